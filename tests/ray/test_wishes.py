"""What callers wish of the router (`deployments.links.wishes`), where Serve carries the router itself: on a real cluster."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from ray import serve
from ray.serve._private.api import serve_start
from ray.serve.config import RequestRouterConfig
from ray.serve.handle import DeploymentHandle

from deployments.cluster.private_ray import PrivateRay
from deployments.links.watching import own_actor
from deployments.links.wishes import Avoid, Only

pytestmark = [pytest.mark.ray, pytest.mark.timeout(120)]

CALLS = 12
ROUTER = {"request_router_class": "deployments.links.routing:AskingRouter"}
PATIENCE_S = 60.0  # only bounds a failing test


class Replica:
    def who(self, *wishes: object) -> str:
        return own_actor()


class Caller:
    """Another replica, which calls as front doors and stages do."""

    def __init__(self, handle: DeploymentHandle[Any]) -> None:
        self._handle = handle

    async def answers(self, *wishes: object) -> list[str]:
        return [await self._handle.who.remote(*wishes) for _ in range(CALLS)]


@pytest.fixture(scope="module")
def caller() -> Iterator[DeploymentHandle[Any]]:
    cluster = PrivateRay()
    try:
        cluster.start(dashboard=False)
        serve_start(proxy_location="Disabled")
        small: Any = {"num_cpus": 0}
        router = RequestRouterConfig.model_validate(ROUTER)
        two: Any = serve.deployment(Replica, num_replicas=2, ray_actor_options=small, request_router_config=router)
        one: Any = serve.deployment(Caller, ray_actor_options=small)
        handle = serve.run(one.bind(two.bind()), name="wishes", route_prefix=None)
        yield handle
        handle.shutdown()
    finally:
        serve.shutdown()
        cluster.stop()


async def test_a_call_goes_where_its_caller_wishes_and_never_where_it_does_not(caller: DeploymentHandle[Any]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        both: Counter[str] = Counter()
        while len(both) < 2:
            both.update(await caller.answers.remote())
        first, second = both
        for actor, other in ((first, second), (second, first)):
            assert set(await caller.answers.remote(Only(actor))) == {actor}
            assert set(await caller.answers.remote(Avoid(frozenset({actor})))) == {other}
