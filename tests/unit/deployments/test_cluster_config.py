"""cluster.yaml against Ray's own schema and defaults, without a network."""

from __future__ import annotations

import copy
import re
import subprocess
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from ray._private.accelerators.neuron import AWS_NEURON_INSTANCE_MAP
from ray.autoscaler._private.util import prepare_config, validate_config
from ray.serve.schema import ServeDeploySchema

from deployments.cluster.local import FUSED_CONFIG, STAGED_CONFIG
from deployments.config.identity import IdentitySettings

ROOT = Path(__file__).parents[3]


@pytest.fixture(name="config")
def _config() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((ROOT / "cluster.yaml").read_text())
    return loaded


def with_variants() -> dict[str, Any]:
    """The file with the pools that stand in comments."""
    text = (ROOT / "cluster.yaml").read_text()
    uncommented, count = re.subn(r"^  # (trn2-\w+:| {2}.*)$", r"  \1", text, flags=re.MULTILINE)
    assert count > 10
    loaded: dict[str, Any] = yaml.safe_load(uncommented)
    return loaded


def test_ray_accepts_it(config: dict[str, Any]) -> None:
    prepared = prepare_config(copy.deepcopy(config))
    validate_config(prepared)
    assert set(prepared["available_node_types"]) == {"head", "cpu", "trn2"}


def test_ray_accepts_the_pools_that_stand_in_comments() -> None:
    config = with_variants()
    validate_config(prepare_config(copy.deepcopy(config)))
    types = config["available_node_types"]
    assert set(types) == {"head", "cpu", "trn2", "trn2-spot", "trn2-block"}
    assert types["trn2-spot"]["node_config"]["InstanceType"] == types["trn2"]["node_config"]["InstanceType"]
    assert types["trn2-spot"]["node_config"]["InstanceMarketOptions"]["MarketType"] == "spot"


def test_a_trainium_pool_can_be_asked_for_by_name() -> None:
    """See autoscaling/scaling/pools.py."""
    types = with_variants()["available_node_types"]
    pools = [name for name, node in types.items() if "neuron_cores" in node["resources"]]
    assert len(pools) == 3
    for name in pools:
        assert [other for other, node in types.items() if node["resources"].get(name) == 1] == [name]


@pytest.mark.parametrize("path", [STAGED_CONFIG, FUSED_CONFIG])
def test_every_replica_fits_a_pool(config: dict[str, Any], path: Path) -> None:
    document = yaml.safe_load(path.read_text())
    ServeDeploySchema.model_validate(document)
    pools = [node["resources"] for node in config["available_node_types"].values()]
    for block in document["applications"][0]["deployments"]:
        options = block["ray_actor_options"]
        asked = {"CPU": options.get("num_cpus", 1), **options.get("resources", {})}
        assert any(all(pool.get(key, 0) >= n for key, n in asked.items()) for pool in pools), block["name"]
    advised = re.findall(r"^ *# resources: (\{.*\})$", path.read_text(), re.MULTILINE)
    for resources in map(yaml.safe_load, advised):
        assert any(all(pool.get(key, 0) >= n for key, n in resources.items()) for pool in pools), resources


def test_the_head_refuses_what_was_not_filled_in(config: dict[str, Any], tmp_path: Path) -> None:
    (check,) = [command for command in config["head_setup_commands"] if "REPLAC" in command]
    bootstrap = tmp_path / "ray_bootstrap_config.yaml"
    check = check.replace("/home/ubuntu/ray_bootstrap_config.yaml", str(bootstrap))
    assert str(bootstrap) in check
    bootstrap.write_text(yaml.safe_dump(config))
    refused = subprocess.run(["bash", "-c", check], capture_output=True, text=True, check=False)  # noqa: S607 - as Ray runs it
    assert refused.returncode == 1
    assert "ami-REPLACE" in refused.stdout
    assert "fill these in" in refused.stdout
    bootstrap.write_text(re.sub(r"(ami|subnet)-REPLACE", r"\1-0123", yaml.safe_dump(config)))
    assert subprocess.run(["bash", "-c", check], check=False).returncode == 0  # noqa: S607


def test_ray_would_refuse_a_misspelt_field(config: dict[str, Any]) -> None:
    config["available_node_types"]["trn2"]["max_worker"] = 1
    with pytest.raises(jsonschema.ValidationError, match="max_worker"):
        validate_config(prepare_config(config))


def test_nothing_is_left_to_rays_default_commands(config: dict[str, Any]) -> None:
    prepared = prepare_config(copy.deepcopy(config))
    commands = [c for key, value in prepared.items() if key.endswith("commands") for c in value]
    commands += [c for node in prepared["available_node_types"].values() for c in node.get("worker_setup_commands", [])]
    text = "\n".join(commands)
    assert "ray-wheels" not in text  # the defaults install another Ray than the pinned one
    assert all("ray start" not in c or "/home/ubuntu/venv/bin/ray start" in c for c in commands)
    mounted = config["file_mounts"]["/home/ubuntu/headrace"]
    named = {word for command in commands for word in command.split() if word.startswith("/home/ubuntu/headrace/")}
    assert named, "the nodes install the project's requirements"
    for word in named:
        assert (ROOT / mounted / Path(word).relative_to("/home/ubuntu/headrace")).is_file(), word


def test_trainium_resources_are_stated_because_ray_does_not_know_the_instance(config: dict[str, Any]) -> None:
    trn2 = config["available_node_types"]["trn2"]
    assert trn2["node_config"]["InstanceType"] not in AWS_NEURON_INSTANCE_MAP  # fails when Ray learns it: then drop the statement
    assert trn2["resources"]["neuron_cores"] == 4
    assert trn2["min_workers"] == 0


def test_no_replica_can_land_on_the_head(config: dict[str, Any]) -> None:
    assert config["available_node_types"][config["head_node_type"]]["resources"] == {"CPU": 0}


def test_the_pools_fit_under_the_limit(config: dict[str, Any]) -> None:
    pools = [node for name, node in config["available_node_types"].items() if name != config["head_node_type"]]
    assert sum(node["max_workers"] for node in pools) <= config["max_workers"]


def test_ray_asks_for_a_token_that_is_brought_along(config: dict[str, Any]) -> None:
    starts = [c for key in ("head_start_ray_commands", "worker_start_ray_commands") for c in config[key] if "ray start" in c]
    assert len(starts) == 2
    assert all("RAY_AUTH_MODE=token " in command.split("ray start")[0] for command in starts)
    assert config["file_mounts"]["/home/ubuntu/.ray/auth_token"] == "~/.ray/auth_token"  # noqa: S105 - where Ray looks for it


def test_front_doors_have_the_secrets_of_their_callers_keys(config: dict[str, Any]) -> None:
    """They inherit the environment of `ray start`; the head runs none."""
    [start] = [command for command in config["worker_start_ray_commands"] if "ray start" in command]
    brought = [path for path in config["file_mounts"] if path.endswith("/.headrace/environment")]
    assert [f"set -a; . {path}; set +a; " in start.split("/home/ubuntu/venv/bin/ray start")[0] for path in brought] == [True]
    assert IdentitySettings().master_variable in (ROOT / "cluster.yaml").read_text()
