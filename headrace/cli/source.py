"""Where `generate` gets raw frames from: a server, or the pipeline in this process. The command does not know which."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, aclosing, asynccontextmanager, closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from headrace.cli.console import Failure, bad_input

if TYPE_CHECKING:
    from headrace.client import HeadraceClient, Reconnect
    from headrace.v1 import video_pb2 as wire
    from model_core.config import Media
    from model_core.pipeline import VideoPipeline

MAX_SEED = 2**64 - 1
MAX_STEPS = 2**32 - 1  # that fit the field; the model's own limit is for whoever makes the video to tell
DEFAULT_SECONDS = 5.0
IMAGE_HELP = "PNG, JPEG or WebP that the video begins with, for models that take one."
VIDEO_HELP = "MP4 that the video goes on from, for models that take one."
STEPS_HELP = "Denoise steps a chunk. The model's own when not given."
GUIDANCE_HELP = "How strongly the prompt leads, for models that have guidance; 1 is not at all. The model's own when not given."
NEGATIVE_HELP = "What guidance leads away from. The model's own when not given."
ENHANCE_FRAMES_HELP = "Times the frames, 1 or 2: frames between those that the model renders, where there is an enhancer."
ENHANCE_SIZE_HELP = "Times the height and the width, 1, 2 or 4, where there is an enhancer."
PATIENCE_HELP = "Seconds to try to get a lost connection back. As the client library does it when not given."
_MAX_SIZE_CHARS = 11
_MAX_TIMES = 64  # that enhancing makes more or larger; which of them there are is for whoever makes the video to tell
_MAX_FILE_BYTES = 16 * 1024 * 1024  # a larger one is refused by every server of the default limits


@dataclass(frozen=True, slots=True)
class Opened:
    """The session has begun. It has `frames` frames; 0 for no end."""

    model: str
    seed: int
    width: int
    height: int
    fps: int
    frames: int = 0


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

    @property
    def content(self) -> tuple[Media, bytes] | None:
        """The kind and the bytes of the one that there is."""
        if self.image is not None:
            return "image", self.image
        return None if self.video is None else ("video", self.video)


@dataclass(frozen=True, slots=True)
class Wish:
    """What is to be made. None leaves it to the model, `seconds` to `DEFAULT_SECONDS` or what the model makes if that is less.

    A video that is `restyled` says itself how long it is.
    """

    prompt: str
    seconds: float | None = None
    seed: int | None = None
    footage: Footage = field(default_factory=Footage)
    steps: int | None = None
    guidance: float | None = None
    negative_prompt: str | None = None
    restyled: Path | None = None
    strength: float | None = None
    enhance_frames: int = 1
    enhance_size: int = 1

    def length(self, longest_s: float) -> float:
        """Seconds of a video that may have `longest_s`."""
        return min(DEFAULT_SECONDS, longest_s) if self.seconds is None else self.seconds


class Source(Protocol):
    def stream(self, wish: Wish) -> AsyncGenerator[SourceEvent, None]:
        """One video, as it is made. Ends after all of it, or raises."""
        ...


def check_words_and_seed(prompt: str, negative_prompt: str | None, seed: int | None) -> None:
    """Refuse what cannot even be written into a request. Every other limit is the server's to judge.

    Raises:
        Failure: a prompt is not UTF-8, or the seed is not an unsigned 64-bit number.
    """
    for option, text in (("PROMPT", prompt), ("--negative-prompt", negative_prompt or "")):
        try:
            text.encode()
        except UnicodeEncodeError:
            raise bad_input(option, f"must be valid UTF-8; got {text.encode(errors='surrogateescape')[:64]!r}") from None
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

    async def stream(self, wish: Wish) -> AsyncGenerator[SourceEvent, None]:
        from headrace.v1 import video_pb2 as pb

        ended = False
        seconds = await wished_seconds(self._client, wish)
        stream = self._client.stream(
            wish.prompt, seconds=seconds, seed=wish.seed, steps=wish.steps or 0, guidance=wish.guidance,
            negative_prompt=wish.negative_prompt, image=wish.footage.image, video=wish.footage.video, codec=pb.CODEC_RAW_RGB,
            reconnect=self._reconnect, enhance=enhance_of(wish),
        )  # fmt: skip
        async with aclosing(stream) as events:
            async for event in events:
                match event:
                    case pb.Started():
                        yield replace(opened(event), frames=max(1, round(seconds * event.fps)))
                    case pb.QueuePosition():
                        yield Waiting(event.position)
                    case pb.Frames():
                        yield RawFrames(event.first_frame, event.frame_count, b"".join(event.data))
                    case pb.Ended():
                        ended = True
                        check_ended(event)
        if not ended:
            raise Failure("the stream broke off before its end")


def enhance_of(wish: Wish) -> wire.Enhance | None:
    """None for frames as they are rendered, which servers without an enhancer make. Raises Failure: it cannot be written into a request."""
    from headrace.v1 import video_pb2 as pb

    if (wish.enhance_frames, wish.enhance_size) == (1, 1):
        return None
    for option, times in (("--enhance-frames", wish.enhance_frames), ("--enhance-size", wish.enhance_size)):
        if not 1 <= times <= _MAX_TIMES:
            raise bad_input(option, f"must be from 1 to {_MAX_TIMES}; got {times}")
    return pb.Enhance(frames=wish.enhance_frames, size=wish.enhance_size)


class Local(Protocol):
    """A pipeline whose stages live in this process."""

    @property
    def pipeline(self) -> VideoPipeline: ...


class LocalSource:
    """Frames from the pipeline in this process."""

    def __init__(self, local: Local) -> None:
        self._local = local

    async def stream(self, wish: Wish) -> AsyncGenerator[SourceEvent, None]:
        import asyncio
        import secrets

        from headrace.cli import restyled as restyling
        from model_core.enhancement import Enhancement
        from model_core.tasks import cancel_and_wait
        from model_core.types import Codec, FrameChunk
        from model_core.uploads.decoders import UploadDecoders
        from service.checks import Catalogue, Limits, Validator
        from service.orders import Doorway, Mode, VideoRequest
        from service.sessions.opening import open_session

        pipeline = self._local.pipeline
        config, enhance = pipeline.config, Enhancement(wish.enhance_frames, wish.enhance_size)
        # Judged as a server would judge it, so that the same words give the same frames, or the same error.
        enhancing = frozenset({config.name} if pipeline.enhances else ())
        validator = Validator(Catalogue({config.name: config}, config.name, enhancing=enhancing), Limits())
        longest = config.grid.max_frames
        restyled = wish.restyled
        length_s = wish.length(DEFAULT_SECONDS if longest is None else longest / config.fps)
        request = VideoRequest(
            prompt=wish.prompt, seconds=length_s if restyled is None else wish.seconds or 0.0, seed=wish.seed,
            steps=wish.steps or 0, guidance=wish.guidance, negative_prompt=wish.negative_prompt, footage=wish.footage.content,
            codec=Codec.RAW_RGB, strength=wish.strength, enhance=enhance,
        )  # fmt: skip
        mode = Mode.STREAM if restyled is None else Mode.LIVE
        order = validator.order(request, Doorway(mode, "spec."), "local", secrets.randbits(63))
        with closing(UploadDecoders()) as decoders:
            session = await open_session(pipeline, order, decoders)
        config = order.config
        yield Opened(config.name, order.request.seed, config.width, config.height, config.fps, order.request.num_frames or 0)
        async with AsyncExitStack() as stack:
            feeding: asyncio.Task[None] | None = None
            if restyled is not None and session.source is not None:
                frames = restyling.frames("--source", restyled, config.width, config.height, config.fps)
                feeding = asyncio.create_task(restyling.feed(session.source, frames))
                stack.push_async_callback(cancel_and_wait, feeding)
            events = await stack.enter_async_context(aclosing(session.events()))
            async for event in events:
                if isinstance(event, FrameChunk):
                    yield RawFrames(event.first_frame, event.num_frames, b"".join(event.data))
            if feeding is not None and feeding.done():
                feeding.result()


@asynccontextmanager
async def remote(connected: HeadraceClient, patience_s: float | None = None) -> AsyncGenerator[RemoteSource, None]:
    async with connected as client:
        yield RemoteSource(client, reconnect(patience_s))


def reconnect(patience_s: float | None) -> Reconnect:
    """What `--patience` means."""
    from headrace.client import Reconnect

    return Reconnect() if patience_s is None else Reconnect(patience_s)


@asynccontextmanager
async def local(model: str = "", size: tuple[int, int] = (0, 0), frames: int = 0) -> AsyncGenerator[LocalSource, None]:
    """`model` is a preset's name or the folder of a checkpoint, `size` its width and height."""
    from model_core.local import load_pipeline

    pipeline = load_pipeline(model, width=size[0], height=size[1], frames=frames)
    try:
        yield LocalSource(pipeline)
    finally:
        await pipeline.aclose()


async def wished_seconds(client: HeadraceClient, wish: Wish) -> float:
    """The length to ask a server for; if none is wished for, the server is asked what its model makes."""
    if wish.seconds is not None:
        return wish.seconds
    return min(
        (wish.length(model.max_stream_seconds) for model in await client.list_models() if model.default_model), default=DEFAULT_SECONDS
    )


def read_size(text: str | None) -> tuple[int, int]:
    """Width and height of `832x480`; zeros for None.

    Raises:
        Failure: it is none.
    """
    if text is None:
        return 0, 0
    width, by, height = text.partition("x")
    if not by or not (width.isdecimal() and height.isdecimal()) or len(text) > _MAX_SIZE_CHARS:
        raise bad_input("--size", f"must be WIDTHxHEIGHT, such as 832x480; got {text[:64]!r}")
    return int(width), int(height)


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
