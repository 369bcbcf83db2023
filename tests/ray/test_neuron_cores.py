"""What Ray does for a replica that asks for Trainium's cores, on a machine that only says it has them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest
import ray

from model_core.runtimes.environment import CORES_VARIABLE, core_count

pytestmark = [pytest.mark.ray, pytest.mark.timeout(900)]


@pytest.fixture
def four_cores() -> Iterator[None]:
    ray.init(num_cpus=2, resources={"neuron_cores": 4}, include_dashboard=False, log_to_driver=False, object_store_memory=100 * 2**20)
    yield
    ray.shutdown()


class Replica:
    def cores(self) -> str | None:
        return os.environ.get(CORES_VARIABLE)


def test_replicas_get_cores_of_their_own_and_others_get_none(four_cores: None) -> None:
    actor: Any = ray.remote(Replica)
    replicas = [actor.options(num_cpus=0.1, resources={"neuron_cores": cores}).remote() for cores in (2, 1, 1)]
    plain = actor.options(num_cpus=0.1).remote()
    visible = ray.get([replica.cores.remote() for replica in replicas], timeout=300)
    assert [core_count(cores) for cores in visible] == [2, 1, 1]
    assert sorted(core for cores in visible for core in cores.split(",")) == ["0", "1", "2", "3"]
    assert ray.get(plain.cores.remote(), timeout=300) is None  # which Neuron would take for all of them; the runtime refuses that
