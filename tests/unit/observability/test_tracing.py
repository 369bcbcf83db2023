"""Traces: whose calls have one, what is in it, and that the parts of a first frame sum to the whole; log lines carry the same ids."""

from __future__ import annotations

import asyncio
import json
import logging
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from prometheus_client.openmetrics.exposition import generate_latest
from ray._common.formatters import JSONFormatter
from typer.testing import CliRunner

from deployments.cluster.local import free_port
from headrace.cli import app
from headrace.client import BadRequest, HeadraceClient
from headrace.v1 import video_pb2 as pb
from model_core.types import Codec, FrameChunk, StageTiming
from observability.context import TRACE_ID, work, work_for
from observability.logs import set_up_logs
from observability.session_trace import SessionTrace
from observability.tracing import Tracing, span_exporter
from observability.waterfall import FirstFrame, Trace, first_frame, read, table
from tests.served import Served, serving

TRACE, CALLER = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
TRACED, UNTRACED = f"00-{TRACE}-{CALLER}-01", f"00-{TRACE}-{CALLER}-00"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "traces" / "spans.jsonl"


def to(file: Path, sample: float = 0.0) -> Tracing:
    return Tracing(span_exporter("file", str(file), ""), sample)


def written(file: Path) -> list[Trace]:
    return read(file.read_text().splitlines())


async def watch(served: Served, traceparent: str = "", prompt: str = "a red circle") -> int:
    """A stream; returns its chunks."""
    metadata = (("traceparent", traceparent),) if traceparent else ()
    async with HeadraceClient(served.address, metadata=metadata) as client:
        return len([1 async for event in client.stream(prompt, seconds=1.0) if isinstance(event, pb.Frames)])


async def test_a_callers_trace_goes_on_through_every_stage(file: Path) -> None:
    tracing = to(file)
    async with serving(tracing=tracing) as served:
        chunks = await watch(served, TRACED)
        await served.nothing_left()
    tracing.close()
    (trace,) = written(file)
    assert (trace.root.trace_id, trace.root.parent) == (TRACE, f"0x{CALLER}")
    assert trace.root.name == "headrace.v1.VideoService/Stream"
    assert trace.session_id == "id-1"
    assert trace.root.attributes["headrace.outcome"] == "completed"
    names = [span.name for span in trace.spans]
    assert {name: names.count(name) for name in names} == {"encode": 1, "denoise": chunks, "decode": chunks, "send": chunks}
    assert {span.trace_id for span in trace.spans} == {TRACE}
    assert "red circle" not in str(trace)  # what is drawn is its caller's affair


async def test_who_is_traced_is_decided_by_the_caller_or_else_by_chance(file: Path) -> None:
    never, always = to(file.with_name("never"), 0.0), to(file.with_name("always"), 1.0)
    for tracing in (never, always):
        async with serving(tracing=tracing) as served:
            await watch(served)
            await watch(served, UNTRACED)
            await watch(served, "garbage")
            await watch(served, TRACED)
        tracing.close()
    assert [t.root.trace_id for t in written(file.with_name("never"))] == [TRACE]
    roots = [t.root for t in written(file.with_name("always"))]
    assert len(roots) == 3
    assert sum(root.trace_id == TRACE for root in roots) == 1


def test_two_parents_are_none_and_states_are_one_list(file: Path) -> None:
    """As W3C trace context has it: nobody's first or last header wins."""
    tracing = to(file)
    other = UNTRACED.replace(CALLER, "1" * 16)
    assert tracing.begin("s", "r", (("traceparent", TRACED), ("traceparent", other))) is None
    assert tracing.begin("s", "r", (("traceparent", TRACED), ("traceparent", TRACED))) is None
    begun = tracing.begin("s", "r", (("tracestate", "a=1"), ("traceparent", TRACED), ("tracestate", "b=2")))
    assert begun is not None
    begun.end("completed")
    tracing.close()
    (line,) = file.read_text().splitlines()
    assert re.findall(r"key=(\w), value=(\d)", json.loads(line)["context"]["trace_state"]) == [("a", "1"), ("b", "2")]


async def test_without_an_exporter_the_callers_id_still_finds_the_slow_one() -> None:
    async with serving() as served:
        await watch(served, TRACED)
        exposed = generate_latest(served.registry).decode()  # type: ignore[no-untyped-call]
    exemplars = [line for line in exposed.splitlines() if line.startswith("headrace_ttff_seconds_bucket") and "trace_id" in line]
    assert len(exemplars) == 1
    assert f'trace_id="{TRACE}"' in exemplars[0]
    assert TRACE_ID.get() == ""


async def test_a_failed_call_and_a_prompt_switch_are_in_the_trace(file: Path) -> None:
    tracing = to(file, 1.0)
    async with serving(tracing=tracing) as served:
        async with served.client.live("a red circle", seconds=2.0, max_lead_s=0.1) as session:
            await session.set_prompt("a blue circle")
            async for _ in session:
                pass
        with pytest.raises(BadRequest):
            await watch(served, prompt="")
    tracing.close()
    by_outcome = {t.root.attributes["headrace.outcome"]: t for t in written(file)}
    assert [name for name, _ in by_outcome["completed"].root.events] == ["started", "prompt switched"]
    assert by_outcome["invalid"].spans == ()


@pytest.fixture
def collector() -> Iterator[tuple[str, list[bytes]]]:
    """Takes what is posted to it."""
    posted: list[bytes] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            posted.append(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/v1/traces", posted
    server.shutdown()
    server.server_close()
    thread.join()


async def test_spans_reach_a_collector(collector: tuple[str, list[bytes]]) -> None:
    endpoint, posted = collector
    tracing = Tracing(span_exporter("otlp", "", endpoint), 0.0)
    async with serving(tracing=tracing) as served:
        await watch(served, TRACED)
    await asyncio.to_thread(tracing.close)
    requests = [ExportTraceServiceRequest.FromString(body) for body in posted]
    spans = [span for r in requests for resource in r.resource_spans for scope in resource.scope_spans for span in scope.spans]
    assert {"encode", "denoise", "decode", "send", "headrace.v1.VideoService/Stream"} == {span.name for span in spans}
    assert {span.trace_id.hex() for span in spans} == {TRACE}


async def test_a_collector_that_is_away_holds_nothing_up() -> None:
    tracing = Tracing(span_exporter("otlp", "", f"http://127.0.0.1:{free_port()}/v1/traces"), 1.0)
    async with serving(tracing=tracing) as served:
        assert await watch(served) == 3
        await served.nothing_left()
    await asyncio.to_thread(tracing.close)


class Play:
    """A call that goes by the book, told to its trace at made-up moments: the session's clock is a thousand seconds behind the wall's."""

    def __init__(self, file: Path) -> None:
        self.tracing = Tracing(span_exporter("file", str(file), ""), 1.0, lambda: self.at + 1000.0)
        self.at = 5.0
        trace = self.tracing.begin("service", "Stream", ())
        assert trace is not None
        self.trace: SessionTrace = trace

    def first_frame(self, decode_s: float, *, waited_s: float = 0.0) -> None:
        """118 ms from admission to the first frame, 10 of them in the decoder; it says `decode_s`."""
        began = self.at
        self.at = began + 0.021
        self.trace.encoded(StageTiming("text_encoder", 0.002, 0.015, 0.015, transfer_s=0.003), began + 0.001, self.at)
        if waited_s:
            self.at = began + waited_s
            self.trace.waited(began, self.at)
            began = self.at - 0.021
        self.at = began + 0.025
        self.trace.started()
        wall = began + 1000.0
        denoised = StageTiming("denoiser", 0.004, 0.060, 0.03, 0.003, wall + 0.099, steps_s=(0.045, 0.030, 0.015, 0.0))
        decoded = StageTiming("decoder", 0.001, decode_s, decode_s, 0.002, wall + 0.113)
        chunk = FrameChunk(0, 0, 8, 8, 8, Codec.JPEG, (b"",) * 8, np.zeros((1, 1, 1, 1), np.float32), (denoised, decoded))
        self.at = began + 0.118
        self.trace.sent(chunk, began + 0.115, self.at, 0.0)
        self.trace.first(0.118 - (0.021 if waited_s else 0.0))
        self.trace.end("completed")
        self.tracing.close()


def played(file: Path) -> FirstFrame:
    (trace,) = written(file)
    found = first_frame(trace)
    assert found is not None
    return found


def test_the_parts_of_a_first_frame_sum_to_the_whole(file: Path) -> None:
    Play(file).first_frame(0.010)
    found = played(file)
    assert found.ttff_s == 0.118
    assert found.missing_s == pytest.approx(0.0, abs=1e-5)  # spans are written in microseconds
    assert [(p.where, p.what, round(1000 * p.seconds, 1)) for p in found.parts] == [
        ("front door", "checks, admission", 1.0),
        ("text encoder", "there and back", 3.0),
        ("text encoder", "waits", 2.0),
        ("text encoder", "works", 15.0),
        ("front door", "opens the session", 4.0),
        ("stages", "open their streams", 10.0),
        ("denoiser", "waits", 4.0),
        ("denoiser", "works", 60.0),
        ("denoiser", "on its way from there", 3.0),
        ("decoder", "waits", 1.0),
        ("decoder", "works", 10.0),
        ("decoder", "on its way from there", 2.0),
        ("front door", "sends", 3.0),
    ]
    assert found.steps == pytest.approx((0.054, 0.069, 0.084, 0.099), abs=1e-5)
    for earlier, later in zip(found.parts, found.parts[1:], strict=False):
        assert later.at == pytest.approx(earlier.at + earlier.seconds, abs=1e-5)


def test_a_session_that_waited_in_line_counts_from_its_admission(file: Path) -> None:
    Play(file).first_frame(0.010, waited_s=30.0)
    found = played(file)
    assert found.parts[0].what == "opens the session"
    assert found.missing_s == pytest.approx(0.0, abs=1e-5)


def test_a_stage_that_says_what_is_not_so_shows(file: Path) -> None:
    Play(file).first_frame(0.017)
    assert played(file).missing_s == pytest.approx(-0.007, abs=1e-5)


def test_the_command_prints_the_table_of_a_session(file: Path) -> None:
    Play(file).first_frame(0.010)
    file.write_text(file.read_text() + '{"half a line')
    shown = CliRunner().invoke(app, ["trace", str(file)])
    assert shown.exit_code == 0
    assert TRACE not in shown.output
    for line in table(played(file)):
        assert line in shown.output
    assert re.search(r"denoiser +works +60\.00 +█", shown.output)
    assert re.search(r"step 1 +19\.00", shown.output)  # the wait before it included
    assert re.search(r"step 2 +15\.00", shown.output)
    assert CliRunner().invoke(app, ["trace", str(file), "--trace", TRACE]).exit_code == 1
    assert CliRunner().invoke(app, ["trace", "nowhere.jsonl"]).exit_code == 2


@pytest.fixture
def destination() -> Iterator[tuple[str, list[str]]]:
    """A logger as Serve sets one up for JSON, and its lines."""
    lines: list[str] = []

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(self.format(record))

    factory, handler, name = logging.getLogRecordFactory(), Keep(), "tests.serve"
    handler.setFormatter(JSONFormatter())
    logger = logging.getLogger(name)
    logger.setLevel(logging.INFO)
    logger.handlers = [handler]
    yield name, lines
    logging.setLogRecordFactory(factory)


def test_lines_of_our_packages_are_json_and_say_whose_they_are(destination: tuple[str, list[str]]) -> None:
    name, lines = destination
    for _ in range(2):
        set_up_logs(["tests.package"], name)
    log = logging.getLogger("tests.package.module")
    log.info("nobody's")
    work_for(("session-7", TRACE))
    log.info("a stream opens")
    log.debug("not wanted")
    try:
        raise ValueError("what broke")
    except ValueError:
        log.exception("failed")
    nobodys, opens, failed = map(json.loads, lines)
    assert (nobodys["message"], opens["message"], failed["message"]) == ("nobody's", "a stream opens", "failed")
    assert nobodys.keys().isdisjoint({"session_id", "trace_id"})
    assert (opens["session_id"], opens["trace_id"]) == (failed["session_id"], failed["trace_id"]) == ("session-7", TRACE)
    assert "what broke" in failed["exc_text"]
    assert work() == ("session-7", TRACE)
