"""A door is one new folder and one line of registration: a toy door serves streams beside any other, over the same service."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from model_core.errors import HeadraceError
from service.call import Call, taken_within
from service.doors import Doors
from service.events import Ended, Event, Frames
from service.failures import outcome_of
from service.intake import Intake
from service.orders import Doorway, Mode, VideoRequest
from service.sessions.runner import SessionRunner
from tests.core import core


class LineDoor:
    """A line of JSON in, lines of JSON out, over TCP."""

    def __init__(self, intake: Intake, runner: SessionRunner) -> None:
        self._intake, self._runner = intake, runner

    async def start(self) -> int:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    async def stop_serving(self) -> None:
        """Nobody asks it for its health."""

    async def stop(self, grace_s: float) -> None:
        self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async def write(line: object) -> None:
            writer.write(json.dumps(line).encode() + b"\n")
            await taken_within(self._intake.limits.stall_timeout_seconds, writer.drain())

        async def send(event: Event) -> None:
            match event:
                case Frames(chunk=chunk):
                    await write({"first": chunk.first_frame, "frames": chunk.num_frames})
                case Ended(reason=reason):
                    await write({"ended": reason.value})

        asked = json.loads(await reader.readline())
        try:
            request = VideoRequest(prompt=asked["text"], seconds=asked["length"])
            order = self._intake.order(request, Doorway(Mode.STREAM, names={"prompt": "text", "seconds": "length"}))
            await self._runner.run(order, send, Call())
        except HeadraceError as error:
            await write({"error": outcome_of(error), "why": str(error)})
        writer.close()


async def asked(port: int, **request: object) -> list[dict[str, Any]]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(json.dumps(request).encode() + b"\n")
    lines = (await reader.read()).splitlines()
    writer.close()
    return [json.loads(line) for line in lines]


async def test_two_doors_serve_the_same_sessions_and_drain_together() -> None:
    async with core() as served:
        doors = Doors([LineDoor(served.intake, served.runner), LineDoor(served.intake, served.runner)], served.runner)
        first, second = await doors.start()
        *frames, end = await asked(first, text="a red circle", length=1.0)
        assert sum(line["frames"] for line in frames) == served.stages.config.fps
        assert end == {"ended": "completed"}
        (refused,) = await asked(second, text="", length=0)
        assert refused["error"] == "invalid"
        assert refused["why"].startswith("text: must hold at least 1 character")
        assert "; length: must be a number from more than 0 to 3600; got 0" in refused["why"]
        await doors.drain(grace_s=0)
        assert served.runner.open_sessions == 0
