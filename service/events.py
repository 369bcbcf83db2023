"""What the service reports to a viewer: plain events. Each door puts them on its own wire.

A session reports `QueuePosition` while it waits for a slot, then `Started` once, then everything else in order. `Ended` comes last.
A session that fails raises an error instead of `Ended`. Others who watch it are shown some of its events; see `Shown`.

Events are messages, because viewers may watch from another process than the session's.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace

from model_core.config import ModelConfig
from model_core.errors import InvalidRequest, StageUnavailable
from model_core.messages import Message, MessageEnum
from model_core.request import SessionRequest
from model_core.session import Paused, PromptApplied, Resumed
from model_core.source import Dropped
from model_core.types import Codec, FrameChunk, StageTiming

__all__ = [
    "EndReason", "Ended", "Event", "Frames", "Paused", "PromptApplied", "PromptRefused", "QualityChanged", "QualityReason",
    "QueuePosition", "Resumed", "Send", "Shown", "Skipped", "SourceDropped", "SourceTaken", "Started", "Usage",
]  # fmt: skip


class EndReason(MessageEnum):
    """Why a session ended without an error. Metrics and logs use the value as the outcome."""

    COMPLETED = "completed"
    STOPPED = "stopped"
    DRAINING = "draining"
    PAUSED = "paused"


class QualityReason(MessageEnum):
    """Why the number of denoise steps changed."""

    LOAD = "load"
    RECOVERED = "recovered"


@dataclass(frozen=True, slots=True)
class QueuePosition:
    """The session waits for a slot; the session at position 1 gets the next one."""

    position: int


@dataclass(frozen=True, slots=True)
class SourceTaken:
    """Frames of the source before `next_frame` are there, and frames before `until_frame` may come."""

    next_frame: int
    until_frame: int


@dataclass(frozen=True, slots=True)
class SourceDropped:
    """Frames of the source that were not taken; `next_frame` is the one that has to come next."""

    dropped: Dropped
    next_frame: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Started(Message):
    """The session has a slot.

    Attributes:
        steps: denoise steps a chunk, as they are now.
        codec_header: bytes that a player needs before the first frame; empty for most codecs.
        resume_token: what the caller needs to resume the session; empty where it cannot be resumed.
        degraded: whether `steps` is fewer than the caller asked for.
        watch_token: what others need to watch the session; empty where it cannot be watched.
        next_frame: the first frame that follows.
        source: what a session that restyles one needs of it; None for any other.
    """

    session_id: str
    model: str
    seed: int
    width: int
    height: int
    fps: int
    frames_per_chunk: int
    steps: int
    codec: Codec
    codec_header: bytes = b""
    resume_token: str = ""
    degraded: bool = False
    watch_token: str = ""
    next_frame: int = 0
    source: SourceTaken | None = None

    @classmethod
    def of(
        cls, request: SessionRequest, config: ModelConfig, steps: int, codec_header: bytes = b"", resume_token: str = "",
        watch_token: str = "", next_frame: int = 0,
    ) -> Started:  # fmt: skip
        return cls(
            session_id=request.session_id, model=config.name, seed=request.seed, width=config.width, height=config.height, fps=config.fps,
            frames_per_chunk=config.frames_per_chunk, steps=steps, codec=request.codec, codec_header=codec_header,
            resume_token=resume_token, degraded=steps < request.num_steps, watch_token=watch_token, next_frame=next_frame,
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Frames(Message):
    """A chunk of frames. `before` holds the timings of stages that worked ahead of those that the chunk went through."""

    chunk: FrameChunk
    before: tuple[StageTiming, ...] = ()


@dataclass(frozen=True, slots=True)
class PromptRefused:
    """A prompt that changes nothing. The error's violations name the field `prompt`."""

    request_id: int
    error: InvalidRequest | StageUnavailable


@dataclass(frozen=True, slots=True)
class QualityChanged(Message):
    """Frames from `first_frame` on are made with `steps` denoise steps a chunk."""

    steps: int
    first_frame: int
    reason: QualityReason


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage(Message):
    """What a session has used so far.

    Attributes:
        fps: media rate.
        frames: frames sent, without those that were superseded.
        superseded: frames that were sent and then replaced.
        denoise_s, decode_s: the session's own share of device time.
        text_s: the same of the text stage; counted for jobs, whose prompts are all known when they begin.
        frame_pixels: of one frame.
        steps: denoise steps, summed over the chunks; those of superseded frames count, as their device time does.
        source_frames, source_dropped: frames of a source that were taken, and not taken.
        source_delay_s: from the last source frame of the newest chunk until the chunk was sent.
        frames_times, size_times: of an enhanced session, see `Enhancement`. `fps`, `frames` and `frame_pixels` are of what was sent.
        enhance_s: as `decode_s`.
    """

    fps: int
    frames: int = 0
    superseded: int = 0
    denoise_s: float = 0.0
    decode_s: float = 0.0
    text_s: float = 0.0
    frame_pixels: int = 0
    steps: int = 0
    source_frames: int = 0
    source_dropped: int = 0
    source_delay_s: float = 0.0
    frames_times: int = 1
    size_times: int = 1
    enhance_s: float = 0.0

    @property
    def video_s(self) -> float:
        return self.frames / self.fps

    @property
    def enhanced(self) -> bool:
        return (self.frames_times, self.size_times) != (1, 1)

    @property
    def rendered(self) -> int:
        """Of the frames, those that the model rendered."""
        return -(-self.frames // self.frames_times)

    @property
    def pixels(self) -> int:
        """Of these, as the model rendered them."""
        return self.rendered * (self.frame_pixels // self.size_times**2)

    @property
    def pixels_enhanced(self) -> int:
        """Of all frames, as they were sent; 0 where nothing was enhanced."""
        return self.frames * self.frame_pixels if self.enhanced else 0

    @classmethod
    def of(cls, config: ModelConfig, frames: int = 0) -> Usage:
        """Of a session of which `frames` were sent before; `config` as it is shown."""
        enhance, pixels = config.enhanced, config.width * config.height
        return cls(fps=config.fps, frames=frames, frame_pixels=pixels, frames_times=enhance.frames, size_times=enhance.size)

    def plus(self, chunk: FrameChunk) -> Usage:
        """The usage after `chunk` was made."""
        denoise_s, decode_s, enhance_s, steps = self.denoise_s, self.decode_s, self.enhance_s, self.steps
        for timing in chunk.timings:
            if timing.stage == "denoiser":
                denoise_s += timing.device_s
                steps += len(timing.steps_s)
            elif timing.stage == "decoder":
                decode_s += timing.device_s
            elif timing.stage == "enhancer":
                enhance_s += timing.device_s
        return replace(
            self, frames=self.frames + chunk.num_frames, denoise_s=denoise_s, decode_s=decode_s,
            frame_pixels=chunk.height * chunk.width, steps=steps, enhance_s=enhance_s,
        )  # fmt: skip

    def less(self, frames: int) -> Usage:
        """The usage when the newest `frames` frames are to be sent again."""
        return replace(self, frames=self.frames - frames, superseded=self.superseded + frames)


@dataclass(frozen=True, slots=True)
class Ended(Message):
    """The session is over. Nothing follows."""

    reason: EndReason
    usage: Usage


@dataclass(frozen=True, slots=True)
class Skipped(Message):
    """Somebody who watches took frames more slowly than they came: `frames` of them were left out, and `next_frame` follows now."""

    frames: int
    next_frame: int


Event = (
    QueuePosition | Started | Frames | PromptApplied | PromptRefused | QualityChanged | Paused | Resumed | SourceTaken | SourceDropped
    | Usage | Ended
)  # fmt: skip
Shown = Started | Frames | PromptApplied | QualityChanged | Paused | Resumed | Skipped | Ended
"""What somebody who watches a session is shown. See `service.watching`."""
Send = Callable[[Event], Awaitable[None]]
"""Returns when the caller has taken the event. The session waits for it, so a slow reader slows its own session and no other."""
