"""How metrics leave a replica, and how Prometheus finds every replica.

Each process serves its own registry. The front door answers Prometheus' HTTP service discovery by asking the replicas that Serve routes to
at that moment, so one that has died is not in the next answer; there is no file or table that could go stale.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
import threading
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import ray
from prometheus_client import CollectorRegistry, Gauge, ProcessCollector
from ray import serve
from ray.experimental import internal_kv
from ray.serve.metrics import Gauge as RayGauge

from deployments.config.addresses import joined, parted
from observability.exporter import Exporter, Targets
from observability.metrics import shown_on_ray

# What each replica answers when it is looked for: its address, and the labels of its series.
Target = dict[str, str]
Ask = Callable[[], Awaitable[Sequence[Target]]]

_ADDRESS = "address"
_DEPLOYMENT = "deployment"
_ANSWER_WITHIN_S = 5.0
_CONNECT_WITHIN_S = 0.5
_SHOW_EVERY_S = 5.0
_ANYWHERE = ("", "0.0.0.0", "::")  # noqa: S104 - compared with, not bound to
_OTHERS = b"headrace/metrics/"

log = logging.getLogger(__name__)


class ReplicaMetrics:
    """One process's registry, served on a port, with its key gauges among Ray's own metrics.

    Args:
        host: interface to serve on.
        port: the configured one, for the first of its kind on a node; a further one takes a free port.
        targets: see `Exporter`.
    """

    def __init__(self, registry: CollectorRegistry, host: str, port: int = 0, targets: Callable[[], Targets] | None = None) -> None:
        ProcessCollector(registry=registry)
        self._exporter = _exporter(registry, host, port, targets)
        self.address = joined(ray.util.get_node_ip_address() if host in _ANYWHERE else host, self._exporter.port)
        self._registry = registry
        self._gauges: dict[str, RayGauge] = {}
        self._over = threading.Event()
        self._showing = threading.Thread(target=self._show, name="ray-metrics", daemon=True)
        self._showing.start()

    def target(self) -> Target:
        """What a replica answers when it is looked for."""
        replica = serve.get_replica_context().replica_id
        return {_ADDRESS: self.address, _DEPLOYMENT: replica.deployment_id.name, "replica": replica.unique_id}

    def close(self) -> None:
        self._over.set()
        self._exporter.close()
        self._showing.join()

    def _show(self) -> None:
        """Copy what Ray's dashboard is to show, now and then: a scrape of Ray's agent need not be fresher than that."""
        while not self._over.wait(_SHOW_EVERY_S):
            for metric, labels, value in shown_on_ray(self._registry):
                gauge = self._gauges.get(metric.full)
                if gauge is None:
                    names: Any = _on_ray(tuple(label.name for label in metric.labels))
                    gauge = self._gauges[metric.full] = RayGauge(metric.full, description=metric.text, tag_keys=names)
                gauge.set(value, tags=dict(zip(_on_ray(tuple(labels)), labels.values(), strict=True)))


def _on_ray(names: tuple[str, ...]) -> tuple[str, ...]:
    """Serve gives its own tag `deployment` to every metric of a replica."""
    return tuple("of_deployment" if name == _DEPLOYMENT else name for name in names)


def _exporter(registry: CollectorRegistry, host: str, port: int, targets: Callable[[], Targets] | None) -> Exporter:
    try:
        return Exporter(registry, host, port, targets)
    except OSError as error:
        if error.errno != errno.EADDRINUSE or port == 0:
            raise
        exporter = Exporter(registry, host, 0, targets)
        log.warning("metrics port %d is taken; this replica uses %d", port, exporter.port)
        return exporter


def announce(name: str, address: str) -> None:
    """Let the front doors find a process that is no replica: the controller, with the autoscaling policy in it.

    It is listed for as long as somebody listens there, under one `name` at a time.
    """
    internal_kv._internal_kv_put(_OTHERS + name.encode(), address.encode(), overwrite=True)  # noqa: SLF001 - Ray's own libraries use it so


def announced() -> list[Target]:
    """Those processes that listen now. Blocks for a moment."""
    found = []
    for key in internal_kv._internal_kv_list(_OTHERS):  # noqa: SLF001
        if (value := internal_kv._internal_kv_get(key)) is not None:  # noqa: SLF001 - gone since it was listed
            address = value.decode()
            if listens(address):
                found.append({_ADDRESS: address, _DEPLOYMENT: key.removeprefix(_OTHERS).decode(), "replica": ""})
    return found


def listens(address: str) -> bool:
    """Whether anybody does, at `host:port`. Blocks for a moment."""
    try:
        socket.create_connection(parted(address), _CONNECT_WITHIN_S).close()
    except OSError:
        return False
    return True


class Discovery:
    """Asks every replica where its metrics are.

    Args:
        stages: each asks the replicas of a deployment; one that none answers may raise.
        others: those that are no replicas; called in a thread.
        replicas: gauge, set to the number that answered, by deployment.
    """

    def __init__(self, stages: Sequence[Ask], others: Callable[[], list[Target]], replicas: Gauge) -> None:
        self._stages = stages
        self._others = others
        self._replicas = replicas

    async def targets(self) -> Targets:
        """Everybody who answers now, each once."""
        answers = await asyncio.gather(*(ask() for ask in self._stages), asyncio.to_thread(self._others), return_exceptions=True)
        found = {target[_ADDRESS]: target for answer in answers if not isinstance(answer, BaseException) for target in answer}
        self._replicas.clear()
        for target in found.values():
            self._replicas.labels(target[_DEPLOYMENT]).inc()
        return [{"targets": [address], "labels": _labels(target)} for address, target in sorted(found.items())]

    def from_thread(self, loop: asyncio.AbstractEventLoop) -> Callable[[], Targets]:
        """`targets` for a caller in another thread than `loop`'s.

        Raises:
            TimeoutError: from what is returned, if the loop does not come to it.
        """
        return lambda: asyncio.run_coroutine_threadsafe(self.targets(), loop).result(_ANSWER_WITHIN_S)


def _labels(target: Target) -> dict[str, str]:
    """Not `deployment`: some metrics have that label, of the deployment that they are about."""
    return {"process": target[_DEPLOYMENT]} | ({"replica": target["replica"]} if target["replica"] else {})


def metrics_targets(handle: Any) -> Ask:
    """Asks the replicas behind a handle."""

    async def ask() -> list[Target]:
        answers = await handle.broadcast("metrics_target").results_async(timeout_s=_ANSWER_WITHIN_S / 2, return_exceptions=True)
        return [answer for answer in answers if isinstance(answer, dict)]

    return ask
