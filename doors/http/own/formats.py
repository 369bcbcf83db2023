"""How a session's events are written: as a playing MP4, as JPEGs that replace each other, or by name, as JSON. Knows no HTTP."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Awaitable, Callable, Collection
from typing import Any, Protocol

from model_core.acts import Keys
from model_core.errors import InvalidRequest, StageUnavailable
from model_core.tasks import run_in_thread
from model_core.types import Codec
from service.events import (
    Ended,
    EndReason,
    Event,
    Frames,
    Paused,
    PromptApplied,
    PromptRefused,
    QualityChanged,
    QueuePosition,
    Resumed,
    Shown,
    Skipped,
    SourceDropped,
    SourceTaken,
    Started,
    Usage,
)  # fmt: skip
from service.watching.show import Item

# Encoding less than this takes less time than a thread does.
_AT_ONCE_BYTES = 64 * 1024
_BOUNDARY = "frame"

Write = Callable[[bytes], Awaitable[None]]


class Format(Protocol):
    """Writes one session."""

    @property
    def media_type(self) -> str: ...

    async def send(self, event: Event | Shown) -> None:
        """See `service.events.Send`."""
        ...


class CutShort(StageUnavailable):
    """The session ended before its video did, and the format cannot say so: the answer is broken off."""


def _whole(event: Ended, ends: Collection[EndReason]) -> None:
    """Raises CutShort where there is less of the video than its reader expects."""
    if event.reason not in ends:
        raise CutShort(f"the session ended before its video did: {event.reason.value}")


class PlayingMp4:
    """A fragmented MP4, which players play while it comes. `ends`: with any other the answer breaks off."""

    media_type = "video/mp4"

    def __init__(self, write: Write, ends: Collection[EndReason] = (EndReason.COMPLETED,)) -> None:
        self._write = write
        self._ends = ends

    async def send(self, event: Event | Shown) -> None:
        match event:
            case Started(codec_header=header):
                await self._write(header)
            case Frames(chunk=chunk):
                for fragment in chunk.data:
                    await self._write(fragment)
            case Ended():
                _whole(event, self._ends)


class ReplacingJpegs:
    """Each frame replaces the one before it, as `<img src=…>` shows it. Frames have no times, so each is written when it is to be seen.

    `ends` as in `PlayingMp4`.
    """

    media_type = f"multipart/x-mixed-replace; boundary={_BOUNDARY}"

    def __init__(self, write: Write, ends: Collection[EndReason] = (EndReason.COMPLETED,)) -> None:
        self._write = write
        self._ends = ends
        self._fps = 1
        self._began: float | None = None

    async def send(self, event: Event | Shown) -> None:
        match event:
            case Started(fps=fps):
                self._fps = fps
            case Frames(chunk=chunk):
                for number, frame in enumerate(chunk.data, chunk.first_frame):
                    await self._until_due(number)
                    head = f"--{_BOUNDARY}\r\nContent-Type: image/jpeg\r\nContent-Length: {len(frame)}\r\n\r\n"
                    await self._write(head.encode() + frame + b"\r\n")
            case Skipped():
                self._began = None  # what follows is to be seen now, not when all that was left out would have been
            case Ended():
                _whole(event, self._ends)
                await self._write(f"--{_BOUNDARY}--\r\n".encode())

    async def _until_due(self, frame: int) -> None:
        """A frame that is late moves those after it, so that they do not rush."""
        now = asyncio.get_running_loop().time()
        due = now if self._began is None else self._began + frame / self._fps
        if due > now:
            await asyncio.sleep(due - now)
        self._began = max(due, now) - frame / self._fps


class ServerSentEvents:
    """Every event by its name, as JSON; frames in base64."""

    media_type = "text/event-stream"

    def __init__(self, write: Write) -> None:
        self._write = write

    async def send(self, event: Event) -> None:
        await self._write(await run_in_thread(encoded, event) if _is_large(event) else encoded(event))

    async def show(self, item: Item) -> None:
        """The same of what many are shown, encoded once for all of them."""
        form = ServerSentEvents
        for data in await item.making(form, _encoded_once) if _is_large(item.event) else item.once(form, _encoded_once):
            await self._write(data)

    async def fail(self, body: dict[str, Any]) -> None:
        """The last event of a session that fails once it has begun."""
        await self._write(_lines("error", body))


def _is_large(event: Event | Shown) -> bool:
    return isinstance(event, Frames) and sum(map(len, event.chunk.data)) > _AT_ONCE_BYTES


def _encoded_once(event: Shown) -> list[bytes]:
    return [encoded(event)]


def encoded(event: Event | Shown) -> bytes:
    """One server-sent event."""
    name, fields = named(event)
    if isinstance(event, Frames):
        fields["data"] = [base64.b64encode(item).decode() for item in event.chunk.data]
    return _lines(name, fields)


def named(event: Event | Shown) -> tuple[str, dict[str, Any]]:
    """The name of an event, and what it says; of frames, all but the frames themselves."""
    name, fields = _FIELDS[type(event)]
    return name, fields(event)


def _lines(name: str, fields: dict[str, Any]) -> bytes:
    return f"event: {name}\ndata: {json.dumps(fields, separators=(',', ':'))}\n\n".encode()


def _started(event: Started) -> dict[str, Any]:
    return {
        "session_id": event.session_id, "model": event.model, "seed": event.seed, "width": event.width, "height": event.height,
        "fps": event.fps, "frames_per_chunk": event.frames_per_chunk, "steps": event.steps, "codec": event.codec.value,
        "codec_header": base64.b64encode(event.codec_header).decode(), "resume_token": event.resume_token, "degraded": event.degraded,
        "watch_token": event.watch_token, "next_frame": event.next_frame,
        **({} if event.source is None else {"source": _taken(event.source)}),
    }  # fmt: skip


def _taken(event: SourceTaken) -> dict[str, Any]:
    return {"next_frame": event.next_frame, "until_frame": event.until_frame}


def _dropped(event: SourceDropped) -> dict[str, Any]:
    dropped = event.dropped
    return {"first_frame": dropped.first_frame, "frames": dropped.frames, "reason": dropped.reason, "next_frame": event.next_frame}


def _frames(event: Frames) -> dict[str, Any]:
    chunk = event.chunk
    return {
        "chunk_index": chunk.index, "first_frame": chunk.first_frame, "frame_count": chunk.num_frames, "codec": chunk.codec.value,
        "timings": [
            {"stage": t.stage, "queue_seconds": t.queue_s, "service_seconds": t.service_s, "device_seconds": t.device_s}
            for t in (*event.before, *chunk.timings)
        ],
    } | _keys(chunk.keys)  # fmt: skip


def _applied(event: PromptApplied) -> dict[str, Any]:
    told = {"prompt": event.prompt, "first_frame": event.first_frame, "request_id": event.request_id, "change": event.change}
    return told | _keys(event.keys)


def _keys(keys: Keys) -> dict[str, Any]:
    """Nothing where none is held, as in a model that takes no actions."""
    return {"keys": list(keys)} if keys else {}


def usage_fields(event: Usage) -> dict[str, Any]:
    """What a session or job has used."""
    return {
        "fps": event.fps, "frames": event.frames, "superseded_frames": event.superseded, "video_seconds": event.video_s,
        "denoise_seconds": event.denoise_s, "decode_seconds": event.decode_s,
    } | (_enhanced(event) if event.enhanced else {})  # fmt: skip


def _enhanced(event: Usage) -> dict[str, Any]:
    """What the model rendered of an enhanced session, and what came of that."""
    return {
        "rendered_frames": event.rendered, "rendered_pixels": event.pixels, "enhanced_pixels": event.pixels_enhanced,
        "enhance_seconds": event.enhance_s,
    }  # fmt: skip


def _refused(event: PromptRefused) -> dict[str, Any]:
    violations = event.error.violations if isinstance(event.error, InvalidRequest) else ()
    found = [{"field": v.field, "description": v.description} for v in violations]
    return {"request_id": event.request_id, "message": str(event.error), "violations": found}


_FIELDS: dict[type, tuple[str, Callable[[Any], dict[str, Any]]]] = {
    QueuePosition: ("queue_position", lambda event: {"position": event.position}),
    Started: ("started", _started),
    Frames: ("frames", _frames),
    PromptApplied: ("prompt_applied", _applied),
    PromptRefused: ("prompt_refused", _refused),
    QualityChanged: (
        "quality_changed",
        lambda event: {"steps": event.steps, "first_frame": event.first_frame, "reason": event.reason.value},
    ),
    Paused: ("paused", lambda event: {"next_frame": event.next_frame}),
    Resumed: ("resumed", lambda event: {"next_frame": event.next_frame}),
    SourceTaken: ("source_taken", _taken),
    SourceDropped: ("source_dropped", _dropped),
    Skipped: ("skipped", lambda event: {"frames": event.frames, "next_frame": event.next_frame}),
    Usage: ("usage", usage_fields),
    Ended: ("ended", lambda event: {"reason": event.reason.value, "usage": usage_fields(event.usage)}),
}
CODECS = {"jpeg": Codec.JPEG, "fmp4": Codec.FMP4_H264, "raw": Codec.RAW_RGB}
