"""How a server is spoken to: one `play` for each wire, so that everything else about a measurement is the same.

headrace   our gRPC `Stream`; the monolith on Ray Serve speaks it too
http       POST a JSON ask, read a stream of framed chunks (see `bench.kit.framing`)
sse        the same as server-sent events, each with a chunk in base64
pipeline   no wire: the pipeline in this process, which is the floor
"""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator
from contextlib import aclosing

import aiohttp

from bench.kit import framing
from bench.kit.load import PROMPT, Heard
from bench.kit.session import Ask, chunks
from headrace.client import Busy, ClientError, HeadraceClient
from headrace.v1 import video_pb2 as pb
from model_core.local import LocalPipeline


def ask(heard: Heard, lead_s: float) -> Ask:
    """What an arrival asks for: a live one is paced."""
    lead = lead_s if heard.arrival.kind == "live" else 0.0
    return Ask(prompt=PROMPT, seed=heard.arrival.seed, seconds=heard.arrival.seconds, lead_s=lead)


class GrpcWire:
    """Plays arrivals as `Stream` calls of raw frames on one connection. One that says nothing for `silence_s` counts as hung."""

    def __init__(self, client: HeadraceClient, lead_s: float, silence_s: float | None = None) -> None:
        self._client = client
        self._lead_s = lead_s
        self._silence_s = silence_s

    async def __call__(self, heard: Heard) -> None:
        a, degraded = ask(heard, self._lead_s), False
        stream = self._client.stream(a.prompt, seconds=a.seconds, seed=a.seed, codec=pb.CODEC_RAW_RGB, max_lead_s=a.lead_s)
        try:
            async with aclosing(stream) as events:
                while True:
                    async with asyncio.timeout(self._silence_s):
                        event = await anext(events, None)
                    match event:
                        case None:
                            break
                        case pb.QueuePosition():
                            heard.waited = True
                        case pb.Started(degraded=degraded):
                            pass
                        case pb.QualityChange(reason=reason):
                            degraded = reason == pb.QUALITY_REASON_LOAD or degraded
                            heard.changes += 1
                        case pb.Frames(first_frame=first, frame_count=count, timings=timings):
                            heard.add(first, count, sum(t.service_seconds for t in timings), degraded=degraded)
            heard.result = "completed"
        except TimeoutError:
            heard.result = "hung"
        except Busy as busy:
            heard.result, heard.refused_after_s, heard.retry_after_s = "refused", heard.now(), busy.retry_after_s
        except ClientError as error:
            heard.result = f"{error.code.name}: {error}"


class HttpWire:
    """Plays arrivals as POSTs whose answers are streams of framed chunks."""

    def __init__(self, session: aiohttp.ClientSession, url: str, lead_s: float, *, events: bool = False) -> None:
        self._session = session
        self._url = url
        self._lead_s = lead_s
        self._events = events

    async def __call__(self, heard: Heard) -> None:
        body = ask(heard, self._lead_s).to_json()
        async with self._session.post(self._url, json=body) as response:
            if response.status != 200:
                heard.result = f"HTTP {response.status}: {(await response.text())[:200]}"
                return
            async for chunk in self._chunks(response):
                heard.add(chunk.first_frame, chunk.frames, chunk.compute_s)
        heard.result = "completed"

    async def _chunks(self, response: aiohttp.ClientResponse) -> AsyncIterator[framing.Chunk]:
        reader = framing.Reader()
        if not self._events:
            async for part in response.content.iter_any():
                for chunk in reader.feed(part):
                    yield chunk
            return
        buffered = b""
        async for part in response.content.iter_any():
            *whole, buffered = (buffered + part).replace(b"\r\n", b"\n").split(b"\n\n")
            for event in whole:
                for chunk in reader.feed(_payload(event)):
                    yield chunk


def _payload(event: bytes) -> bytes:
    """What one server-sent event carries; nothing of an `error`, which would be no base64."""
    fields = dict(line.split(b":", 1) for line in event.split(b"\n") if b":" in line)
    if fields.get(b"event", b"message").strip() != b"message":
        raise RuntimeError(f"the server sent {event[:200]!r}")
    return base64.b64decode(fields.get(b"data", b"").strip())


class PipelineWire:
    """Plays arrivals on the pipeline in this process."""

    def __init__(self, pipeline: LocalPipeline, lead_s: float) -> None:
        self._pipeline = pipeline
        self._lead_s = lead_s

    async def __call__(self, heard: Heard) -> None:
        async with aclosing(chunks(self._pipeline, ask(heard, self._lead_s))) as made:
            async for chunk in made:
                heard.add(chunk.first_frame, chunk.num_frames, sum(t.service_s for t in chunk.timings))
        heard.result = "completed"
