"""On which Ray clusters the application refuses to be built."""

from __future__ import annotations

from typing import Any

import pytest

from deployments.cluster.exposure import reason_for_token
from deployments.cluster.local import STAGED_CONFIG, Overrides, start_local
from model_core.errors import InvalidRequest


@pytest.mark.parametrize(
    ("host", "nodes", "reason"),
    [
        ("127.0.0.1", ["10.0.0.1"], None),
        ("::1", ["10.0.0.1", "10.0.0.1"], None),  # two of Ray's nodes on one machine
        ("0.0.0.0", ["10.0.0.1"], "front_door.host 0.0.0.0 faces the network"),  # noqa: S104 - nothing is bound
        ("::", [], "front_door.host :: faces the network"),
        ("127.0.0.1", ["10.0.0.1", "10.0.0.2"], "the cluster has 2 nodes"),
    ],
)
def test_a_token_is_wanted_where_others_than_this_machine_reach_ray(host: str, nodes: list[str], reason: str | None) -> None:
    assert reason_for_token(host, nodes) == reason


def test_a_private_cluster_without_a_token_is_not_started_for_a_door_to_the_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    open_door = Overrides(grpc_port=0, metrics_port=0, args={"front_door": {"host": "0.0.0.0"}, "identity": {"insecure": True}})  # noqa: S104 - refused
    with pytest.raises(InvalidRequest, match=r"args\.front_door\.host: must be a loopback address unless RAY_AUTH_MODE is token; got"):
        start_local(STAGED_CONFIG, open_door)


def test_a_private_cluster_is_not_started_for_files_of_tls_that_are_not_there() -> None:
    tls = {"certificate_file": "pyproject.toml", "key_file": "/no/key"}
    door = Overrides(grpc_port=0, metrics_port=0, args={"front_door": {"tls": tls}})
    with pytest.raises(InvalidRequest, match=r"args\.front_door\.tls\.key_file: must be a file that can be read; got '/no/key'"):
        start_local(STAGED_CONFIG, door)


@pytest.mark.parametrize(
    ("identity", "told"),
    [
        (
            {"keys": "required", "master_variable": "NOT_THERE"},
            r"args\.identity\.master_variable: must name a variable of this environment that holds the master secret; NOT_THERE is not set",
        ),
        (
            {"certificates": {"ca_file": "/no/ca", "tenants": {"a": "b"}}},
            r"args\.identity\.certificates\.ca_file: must be a file that can be read; got '/no/ca'",
        ),
    ],
)
def test_a_private_cluster_is_not_started_without_what_knows_its_callers(identity: dict[str, Any], told: str) -> None:
    tls = {"certificate_file": "pyproject.toml", "key_file": "pyproject.toml"}
    args = {"front_door": {"tls": tls}, "identity": identity, "state": {"url": "sqlite:////no/where.db"}}
    with pytest.raises(InvalidRequest, match=told):
        start_local(STAGED_CONFIG, Overrides(grpc_port=0, metrics_port=0, args=args))
