"""Every metric of Headrace: name, unit, labels, buckets. Nothing else in the code base names one.

Objectives stand on bucket edges, so that the share that meets one is a plain ratio of two counters: first frame within
1 s (`le="1.0"`), chunks on time (`le="0.0"`). No label takes a caller's words: the number of series is fixed.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable
from wsgiref.simple_server import WSGIServer

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, start_http_server

from model_core.types import FrameChunk

PREFIX = "headrace"

TTFF_OBJECTIVE_S = 1.0
LATENESS_OBJECTIVE_S = 0.0

TTFF_BUCKETS_S = (0.05, 0.1, 0.2, 0.3, 0.5, 0.75, TTFF_OBJECTIVE_S, 1.5, 2.0, 3.0, 5.0, 10.0, 30.0)
CHUNK_BUCKETS_S = (0.01, 0.02, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.75, 1.0, 2.0, 5.0)
LATENESS_BUCKETS_S = (LATENESS_OBJECTIVE_S, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
STAGE_BUCKETS_S = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.5, 1.0, 2.0, 5.0)
WAIT_BUCKETS_S = (0.0, 0.1, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 120.0)


class Metrics:
    """The front door's metrics, on the registry given."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.registry = registry

        def histogram(name: str, text: str, buckets: Iterable[float], labels: tuple[str, ...] = ()) -> Histogram:
            return Histogram(f"{PREFIX}_{name}", text, labels, buckets=tuple(buckets), registry=registry)

        def gauge(name: str, text: str) -> Gauge:
            return Gauge(f"{PREFIX}_{name}", text, registry=registry)

        self.ttff_seconds = histogram("ttff_seconds", "From admission to the first frame sent.", TTFF_BUCKETS_S)
        self.chunk_latency_seconds = histogram("chunk_latency_seconds", "Queue and service time of a chunk, all stages.", CHUNK_BUCKETS_S)
        self.chunk_lateness_seconds = histogram(
            "chunk_lateness_seconds", "How long after its playout deadline a chunk was sent; 0 for one on time.", LATENESS_BUCKETS_S
        )
        self.prompt_switch_seconds = histogram(
            "prompt_switch_seconds", "From a new prompt's arrival to the first frame sent that was made for it.", TTFF_BUCKETS_S
        )
        self.resume_seconds = histogram(
            "resume_seconds", "From the arrival of a resumed session to the first frame sent that it had missed.", TTFF_BUCKETS_S
        )
        self.admission_wait_seconds = histogram("admission_wait_seconds", "Wait for a slot; 0 for none.", WAIT_BUCKETS_S)
        self.stage_queue_seconds = histogram(
            "stage_queue_seconds", "Time a chunk waited in a stage before work on it began.", STAGE_BUCKETS_S, ("stage",)
        )
        self.stage_service_seconds = histogram(
            "stage_service_seconds", "Time a stage worked on a chunk, or on a prompt.", STAGE_BUCKETS_S, ("stage",)
        )
        self.sessions_live = gauge("sessions_live", "Sessions that hold a slot.")
        self.sessions_waiting = gauge("sessions_waiting", "Sessions that wait for a slot.")
        self.sessions_total = Counter(
            f"{PREFIX}_sessions_total", "Calls ended, by RPC and how they ended.", ("rpc", "outcome"), registry=registry
        )
        self.session_store_errors_total = Counter(
            f"{PREFIX}_session_store_errors_total",
            "Calls of the session store that failed or took too long.",
            ("operation",),
            registry=registry,
        )
        self.sessions_degraded = gauge("sessions_degraded", "Sessions that run with fewer steps than they asked for.")
        self.capacity_sessions = gauge("capacity_sessions", "Paced sessions of default quality that the stages serve in real time.")
        self.brownout_level = gauge("brownout_level", "0: full quality.")
        self.admissions_total = Counter(
            f"{PREFIX}_admissions_total",
            "Requests, by tenant (a configured one, default or other) and answer: admitted, degraded, waiting, refused.",
            ("tenant", "answer"),
            registry=registry,
        )
        self.degraded_chunks_total = Counter(
            f"{PREFIX}_degraded_chunks_total", "Chunks made with fewer steps than were asked for.", registry=registry
        )
        self.frames_total = Counter(f"{PREFIX}_frames_total", "Frames sent, by codec.", ("codec",), registry=registry)

    def observe_chunk(self, chunk: FrameChunk) -> None:
        """Where the time of a chunk went, from its own timings, and its frames."""
        for timing in chunk.timings:
            self.stage_queue_seconds.labels(timing.stage).observe(timing.queue_s)
            self.stage_service_seconds.labels(timing.stage).observe(timing.service_s)
        self.chunk_latency_seconds.observe(sum(timing.queue_s + timing.service_s for timing in chunk.timings))
        self.frames_total.labels(chunk.codec.value).inc(chunk.num_frames)


def start_metrics_server(registry: CollectorRegistry, port: int, host: str = "127.0.0.1") -> tuple[WSGIServer, threading.Thread]:
    """Serve `registry` at `http://host:port/metrics`; port 0 takes a free one, told by `server.server_port`.

    Ends with `server.shutdown()` and `thread.join()`.

    Raises:
        OSError: the port is taken.
    """
    return start_http_server(port, addr=host, registry=registry)
