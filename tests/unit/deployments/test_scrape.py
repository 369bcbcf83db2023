"""Discovery lists who answers now, and nobody else; the endpoint serves what it is given."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import urllib.error
import urllib.request
from contextlib import ExitStack

import pytest
from prometheus_client import CollectorRegistry

from deployments.config.addresses import joined
from deployments.replicas.metrics_port import Discovery, Target, listens
from observability.exporter import MAX_CONNECTIONS, Exporter, Targets
from observability.metrics import Metrics


def fetch(port: int, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=600) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def replica(name: str, deployment: str) -> Target:
    return {"address": f"10.0.0.1:{name}", "deployment": deployment, "replica": name}


async def test_a_replica_that_stops_answering_is_not_listed_any_more() -> None:
    alive = {"1": "Denoiser", "2": "Denoiser", "3": "Decoder"}

    def ask(deployment: str) -> list[Target]:
        return [replica(name, kind) for name, kind in alive.items() if kind == deployment]

    async def denoisers() -> list[Target]:
        return ask("Denoiser")

    async def decoders() -> list[Target]:
        if not (found := ask("Decoder")):
            raise RuntimeError("none answers")
        return found

    metrics = Metrics(CollectorRegistry())
    discovery = Discovery([denoisers, decoders, denoisers], list, metrics.replicas_answering)
    found = await discovery.targets()
    assert [target["targets"] for target in found] == [["10.0.0.1:1"], ["10.0.0.1:2"], ["10.0.0.1:3"]]  # each once
    assert found[0]["labels"] == {"process": "Denoiser", "replica": "1"}
    del alive["1"], alive["3"]
    assert [target["targets"] for target in await discovery.targets()] == [["10.0.0.1:2"]]
    assert metrics.registry.get_sample_value("headrace_replicas_answering", {"deployment": "Denoiser"}) == 1
    assert metrics.registry.get_sample_value("headrace_replicas_answering", {"deployment": "Decoder"}) is None


async def test_the_endpoint_serves_metrics_and_targets_and_nothing_else() -> None:
    registry = CollectorRegistry()
    Metrics(registry).of("m").ttff_seconds.observe(0.4)
    known: Targets = [{"targets": ["10.0.0.1:1"], "labels": {"process": "Decoder"}}]
    exporter = Exporter(registry, targets=lambda: known)
    try:
        status, text = await asyncio.to_thread(fetch, exporter.port, "/metrics")
        assert status == 200
        assert 'headrace_ttff_seconds_bucket{le="1.0",model="m"} 1.0' in text
        assert "_created" not in text
        status, text = await asyncio.to_thread(fetch, exporter.port, "/targets")
        assert (status, json.loads(text)) == (200, known)
        assert (await asyncio.to_thread(fetch, exporter.port, "/etc"))[0] == 404
    finally:
        await asyncio.to_thread(exporter.close)


async def test_the_endpoint_listens_on_ipv6_too() -> None:
    exporter = Exporter(CollectorRegistry(), host="::1")
    try:
        with socket.create_connection(("::1", exporter.port), timeout=600) as connection:
            connection.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
            assert (await asyncio.to_thread(connection.recv, 12)).endswith(b" 200")
    finally:
        await asyncio.to_thread(exporter.close)


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_a_process_that_is_no_replica_is_found_at_any_address(host: str) -> None:
    exporter = Exporter(CollectorRegistry(), host=host)
    assert listens(joined(host, exporter.port))
    exporter.close()
    assert not listens(joined(host, exporter.port))


async def test_prometheus_is_told_when_the_targets_are_not_known() -> None:
    def unknown() -> Targets:
        raise TimeoutError

    exporter = Exporter(CollectorRegistry(), targets=unknown)
    try:
        assert (await asyncio.to_thread(fetch, exporter.port, "/targets"))[0] == 503
    finally:
        await asyncio.to_thread(exporter.close)


def connected(port: int, sent: bytes = b"") -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", port), timeout=600)
    connection.sendall(sent)
    return connection


@pytest.mark.parametrize("sent", [b"", b"GET /metrics HTTP/1.1\r\nX-Slow: "])
def test_idle_connections_make_room_for_those_who_ask(sent: bytes) -> None:
    before = threading.active_count()
    exporter = Exporter(CollectorRegistry())
    with ExitStack() as stack:
        stack.callback(exporter.close)
        idle = [stack.enter_context(connected(exporter.port, sent)) for _ in range(4 * MAX_CONNECTIONS)]
        assert fetch(exporter.port, "/metrics")[0] == 200
        assert threading.active_count() <= before + 1 + 2 * MAX_CONNECTIONS
        assert idle[0].recv(1) == b"", "who came first has been sent away"


@pytest.mark.parametrize("sent", [b"", b"GET /metrics HTTP/1.1\r\nX-Slow: "])
def test_a_connection_that_has_taken_too_long_is_closed(sent: bytes) -> None:
    now = [0.0]
    exporter = Exporter(CollectorRegistry(), clock=lambda: now[0])
    with ExitStack() as stack:
        stack.callback(exporter.close)
        old = stack.enter_context(connected(exporter.port, sent))
        assert fetch(exporter.port, "/metrics")[0] == 200  # so the one before it has been taken
        now[0] = 16.0
        assert old.recv(1) == b""
        assert fetch(exporter.port, "/metrics")[0] == 200


def test_a_port_that_is_taken_is_an_error() -> None:
    exporter = Exporter(CollectorRegistry())
    try:
        with pytest.raises(OSError, match="in use"):
            Exporter(CollectorRegistry(), port=exporter.port)
    finally:
        exporter.close()
