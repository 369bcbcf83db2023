"""Where `generate` gets raw frames from: a server, or the pipeline in this process. The command does not know which."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator
from contextlib import aclosing, asynccontextmanager, closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from headrace.cli.console import Failure, bad_input

if TYPE_CHECKING:
    from headrace.client import HeadraceClient, Reconnect
    from headrace.v1 import video_pb2 as wire
    from model_core.pipeline import VideoPipeline

MAX_SEED = 2**64 - 1
IMAGE_HELP = "PNG, JPEG or WebP that the video begins with, for models that take one."
VIDEO_HELP = "MP4 that the video goes on from, for models that take one."
PATIENCE_HELP = "Seconds to try to get a lost connection back. As the client library does it when not given."
_MAX_FILE_BYTES = 16 * 1024 * 1024  # servers close the connection on a larger message


@dataclass(frozen=True, slots=True)
class Opened:
    """The session has begun."""

    model: str
    seed: int
    width: int
    height: int
    fps: int


@dataclass(frozen=True, slots=True)
class Waiting:
    """In the queue for a slot; 1 is next."""

    position: int


@dataclass(frozen=True, slots=True)
class RawFrames:
    """`count` frames from `first_frame` on: `count * height * width * 3` bytes, row major."""

    first_frame: int
    count: int
    data: bytes


SourceEvent = Opened | Waiting | RawFrames


@dataclass(frozen=True, slots=True)
class Footage:
    """The content of the file that the session is given, if any; at most one of them."""

    image: bytes | None = None
    video: bytes | None = None


class Source(Protocol):
    def stream(self, prompt: str, seconds: float, seed: int | None, footage: Footage) -> AsyncGenerator[SourceEvent, None]:
        """One video, as it is made. Ends after all of it, or raises."""
        ...


def check_prompt_and_seed(prompt: str, seed: int | None) -> None:
    """Refuse what cannot even be written into a request. Every other limit is the server's to judge.

    Raises:
        Failure: the prompt is not UTF-8, or the seed is not an unsigned 64-bit number.
    """
    try:
        prompt.encode()
    except UnicodeEncodeError:
        raise bad_input("PROMPT", f"must be valid UTF-8; got {prompt.encode(errors='surrogateescape')[:64]!r}") from None
    if seed is not None and not 0 <= seed <= MAX_SEED:
        raise bad_input("--seed", f"must be from 0 to {MAX_SEED}; got {seed}")


def read_footage(image: Path | None, video: Path | None) -> Footage:
    """The files' content. What it is is the server's to judge.

    Raises:
        Failure: a file cannot be read, is too large to be sent, or there are two.
    """
    if image is not None and video is not None:
        raise bad_input("--image", f"cannot be given together with --video; got --video {video}")
    return Footage(_content("--image", image), _content("--video", video))


def _content(option: str, path: Path | None) -> bytes | None:
    if path is None:
        return None
    try:
        with path.open("rb") as file:
            content = file.read(_MAX_FILE_BYTES + 1)  # a pipe or a device may have no end
            size = max(len(content), os.fstat(file.fileno()).st_size)
    except OSError as error:
        raise bad_input(option, f"must be a file that can be read; got {str(path)!r}: {error.strerror}") from None
    if size > _MAX_FILE_BYTES:
        raise bad_input(option, f"must be a file of at most {_MAX_FILE_BYTES} bytes; got {size}")
    return content


class RemoteSource:
    """Frames over gRPC."""

    def __init__(self, client: HeadraceClient, reconnect: Reconnect) -> None:
        self._client, self._reconnect = client, reconnect

    async def stream(self, prompt: str, seconds: float, seed: int | None, footage: Footage) -> AsyncGenerator[SourceEvent, None]:
        from headrace.v1 import video_pb2 as pb

        ended = False
        stream = self._client.stream(
            prompt, seconds=seconds, seed=seed, image=footage.image, video=footage.video, codec=pb.CODEC_RAW_RGB,
            reconnect=self._reconnect,
        )  # fmt: skip
        async with aclosing(stream) as events:
            async for event in events:
                match event:
                    case pb.Started():
                        yield opened(event)
                    case pb.QueuePosition():
                        yield Waiting(event.position)
                    case pb.Frames():
                        yield RawFrames(event.first_frame, event.frame_count, b"".join(event.data))
                    case pb.Ended():
                        ended = True
                        check_ended(event)
        if not ended:
            raise Failure("the stream broke off before its end")


class Local(Protocol):
    """A pipeline whose stages live in this process."""

    @property
    def pipeline(self) -> VideoPipeline: ...


class LocalSource:
    """Frames from the pipeline in this process."""

    def __init__(self, local: Local) -> None:
        self._local = local

    async def stream(self, prompt: str, seconds: float, seed: int | None, footage: Footage) -> AsyncGenerator[SourceEvent, None]:
        import secrets

        from deployments.resumption import open_session
        from deployments.validation import Catalogue, Limits, Validator
        from headrace.client import MAX_MESSAGE_BYTES
        from headrace.v1 import video_pb2 as pb
        from model_core.types import FrameChunk
        from model_core.uploads.decoders import UploadDecoders

        pipeline = self._local.pipeline
        config = pipeline.config
        # Judged as a server would judge it, so that the same words give the same frames, or the same error.
        validator = Validator(Catalogue({config.name: config}, config.name), Limits())
        spec = pb.VideoSpec(prompt=prompt, seconds=seconds, seed=seed, image=footage.image, video=footage.video)
        request = pb.StreamRequest(spec=spec, codec=pb.CODEC_RAW_RGB, max_message_bytes=MAX_MESSAGE_BYTES)
        order = validator.stream(request, "local", secrets.randbits(63))
        with closing(UploadDecoders()) as decoders:
            session = await open_session(pipeline, order, decoders)
        yield Opened(config.name, order.request.seed, config.width, config.height, config.fps)
        async with aclosing(session.events()) as events:
            async for event in events:
                if isinstance(event, FrameChunk):
                    yield RawFrames(event.first_frame, event.num_frames, b"".join(event.data))


@asynccontextmanager
async def remote(address: str, patience_s: float | None) -> AsyncGenerator[RemoteSource, None]:
    from headrace.client import HeadraceClient

    async with HeadraceClient(address) as client:
        yield RemoteSource(client, reconnect(patience_s))


def reconnect(patience_s: float | None) -> Reconnect:
    """What `--patience` means."""
    from headrace.client import Reconnect

    return Reconnect() if patience_s is None else Reconnect(patience_s)


@asynccontextmanager
async def local() -> AsyncGenerator[LocalSource, None]:
    from model_core.local import load_pipeline

    pipeline = load_pipeline("")
    try:
        yield LocalSource(pipeline)
    finally:
        await pipeline.aclose()


def opened(started: wire.Started) -> Opened:
    return Opened(started.model, started.seed, started.width, started.height, started.fps)


def check_ended(ended: wire.Ended) -> None:
    """Tell an early end from a proper one.

    Raises:
        Failure: the server ended the session before its length was reached.
    """
    from headrace.v1 import video_pb2 as pb

    if ended.reason == pb.END_REASON_SERVER_DRAINING:
        raise Failure(f"the server is shutting down; the video ends early, after {ended.usage.frames_sent} frames")
