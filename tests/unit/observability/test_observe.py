"""What the observability check does between cluster and Prometheus: the runbook's queries, and the way from an exemplar to its trace."""

from __future__ import annotations

import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import cast

import numpy as np
import pytest

from bench.kit.prometheus import Prometheus
from bench.operate.observe import check_trace, runbook_queries, slow_decoder
from model_core.types import Codec, FrameChunk, StageTiming
from observability.catalogue import CATALOGUE, TTFF
from observability.tracing import Tracing, span_exporter
from observability.waterfall import read


class Answers:
    """A Prometheus that knows three exemplars, and a decoder that is slow in one replica."""

    def __init__(self, slow_stage: str = "decoder", trace_id: str = "") -> None:
        self.slow_stage = slow_stage
        self.trace_id = trace_id

    def exemplars(self, series: str, seconds: float) -> list[tuple[float, str]]:
        assert series == f"{TTFF.full}_bucket"
        return [(0.1, "f" * 32), (0.3, self.trace_id), (9.0, "e" * 32)]

    def query(self, expression: str) -> list[dict[str, object]]:
        if "by (stage)" in expression:
            return [self.sample("stage", stage, 1.0 if stage == self.slow_stage else 0.1) for stage in ("decoder", "denoiser")]
        return [self.sample("replica", "sound", 0.05), self.sample("replica", "bad", 1.0)]

    @staticmethod
    def sample(label: str, value: str, seconds: float) -> dict[str, object]:
        return {"metric": {label: value}, "value": [0, str(seconds)]}


@pytest.fixture
def traced(tmp_path: Path) -> tuple[Path, str]:
    """A file with one call in it, and that call's trace id."""
    file = tmp_path / "traces.jsonl"
    tracing = Tracing(span_exporter("file", str(file), ""), 1.0)
    trace = tracing.begin("service", "Stream", ())
    assert trace is not None
    trace.started()
    timings = tuple(StageTiming(stage, 0.0, 0.1, 0.1) for stage in ("denoiser", "decoder"))
    trace.sent(FrameChunk(0, 0, 8, 8, 8, Codec.JPEG, (b"",), np.zeros((1, 1, 1, 1), np.float32), timings), 0.0, 0.0, 0.0)
    trace.first(0.3)
    trace.end("completed")
    tracing.close()
    (call,) = read(file.read_text().splitlines())
    return file, call.root.trace_id


def test_the_slowest_exemplar_whose_session_is_over_leads_to_its_trace(
    traced: tuple[Path, str], capsys: pytest.CaptureFixture[str]
) -> None:
    file, trace_id = traced
    seen = cast("Prometheus", Answers(trace_id=trace_id))
    assert check_trace(seen, file, 60.0) == 0
    shown = capsys.readouterr().out
    assert f"(0.3, '{trace_id}')" in shown
    assert re.search(r"decoder +works +100\.00", shown)
    file.write_text("")
    assert check_trace(seen, file, 60.0) == 1


def test_the_runbook_finds_the_replica_or_blames_nobody() -> None:
    assert slow_decoder(cast("Prometheus", Answers())) == "bad"
    assert slow_decoder(cast("Prometheus", Answers("denoiser"))) is None


def test_the_runbook_asks_for_what_there_is() -> None:
    known = {metric.full for metric in CATALOGUE}
    queries = runbook_queries()
    assert len(queries) == 2
    for query in queries:
        names = {re.sub(r"_(bucket|count|sum)$", "", name) for name in re.findall(r"headrace_\w+", query)}
        assert names
        assert names <= known


@pytest.mark.parametrize("has", [("/classic/alerts",), ("/alerts",), ("/classic/alerts", "/alerts")])
def test_pages_are_named_where_this_prometheus_has_them(has: tuple[str, ...]) -> None:
    class Pages(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if self.path in has else 404)
            self.end_headers()

        def log_message(self, *_: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Pages) as server:
        threading.Thread(target=server.serve_forever).start()
        url = f"http://127.0.0.1:{server.server_port}"
        try:
            assert Prometheus(url).page("alerts") == url + has[0]
            with pytest.raises(OSError, match="has no page graph"):
                Prometheus(url).page("graph")
        finally:
            server.shutdown()
