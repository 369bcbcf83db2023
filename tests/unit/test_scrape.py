"""Discovery lists who answers now, and nobody else; the endpoint serves what it is given."""

from __future__ import annotations

import asyncio
import json
import urllib.error
import urllib.request

import pytest
from prometheus_client import CollectorRegistry

from deployments.scrape import Discovery, Target
from observability.exporter import Exporter, Targets
from observability.metrics import Metrics


def fetch(port: int, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}") as answer:
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
    Metrics(registry).ttff_seconds.observe(0.4)
    known: Targets = [{"targets": ["10.0.0.1:1"], "labels": {"process": "Decoder"}}]
    exporter = Exporter(registry, targets=lambda: known)
    try:
        status, text = await asyncio.to_thread(fetch, exporter.port, "/metrics")
        assert status == 200
        assert 'headrace_ttff_seconds_bucket{le="1.0"} 1.0' in text
        assert "_created" not in text
        status, text = await asyncio.to_thread(fetch, exporter.port, "/targets")
        assert (status, json.loads(text)) == (200, known)
        assert (await asyncio.to_thread(fetch, exporter.port, "/etc"))[0] == 404
    finally:
        await asyncio.to_thread(exporter.close)


async def test_prometheus_is_told_when_the_targets_are_not_known() -> None:
    def unknown() -> Targets:
        raise TimeoutError

    exporter = Exporter(CollectorRegistry(), targets=unknown)
    try:
        assert (await asyncio.to_thread(fetch, exporter.port, "/targets"))[0] == 503
    finally:
        await asyncio.to_thread(exporter.close)


def test_a_port_that_is_taken_is_an_error() -> None:
    exporter = Exporter(CollectorRegistry())
    try:
        with pytest.raises(OSError, match="in use"):
            Exporter(CollectorRegistry(), port=exporter.port)
    finally:
        exporter.close()
