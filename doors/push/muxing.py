"""A session's pictures in FLV or MPEG-TS. The pictures are copied; only silence is encoded."""

from __future__ import annotations

import io
from fractions import Fraction
from typing import IO

import av
import numpy as np
from av.audio.frame import AudioFrame
from av.audio.stream import AudioStream
from av.container import InputContainer, OutputContainer
from av.packet import Packet
from av.video.stream import VideoStream

from model_core.access_units import Group

SAMPLE_RATE = 44_100  # what every receiver takes
_AUDIO_BITS_S = 32_000
_SAMPLES = 1024  # of a frame of AAC
_OPTIONS = {
    "flv": {"flvflags": "no_duration_filesize"},
    # Without a delay, times are those of the session, to the tick.
    "mpegts": {"mpegts_flags": "resend_headers", "max_delay": "0"},
}


class Muxer:
    """Writes groups to one receiver.

    Args:
        target: a URL, or a file that is written to.
        container: `flv` or `mpegts`.
        segment: `ftyp` and `moov` of the session.
        fps: frames a second.
        options: for the protocol.

    Raises:
        av.FFmpegError: the receiver is not there.
    """

    def __init__(
        self,
        target: str | IO[bytes],
        container: str,
        segment: bytes,
        fps: int,
        *,
        silent_audio: bool,
        options: dict[str, str] | None = None,
    ) -> None:
        self._fps = fps
        self._template: InputContainer = av.open(io.BytesIO(segment), "r", format="mp4")
        known = {**_OPTIONS[container], "flush_packets": "1", "avoid_negative_ts": "disabled"}
        self._out: OutputContainer = av.open(target, "w", format=container, options={**known, **(options or {})})
        self._video: VideoStream = self._out.add_stream_from_template(self._template.streams.video[0])
        self._silence = Silence(self._out) if silent_audio else None
        self._out.start_encoding()

    def write(self, group: Group) -> None:
        """Raises av.FFmpegError: the receiver is lost."""
        for unit in group.units:
            packet = Packet(unit.data)
            packet.stream = self._video
            packet.time_base = Fraction(1, self._fps)
            packet.pts = packet.dts = unit.frame
            packet.duration = 1
            packet.is_keyframe = unit.key
            if self._silence is not None:
                self._silence.until(Fraction(unit.frame, self._fps))
            self._out.mux(packet)
        if self._silence is not None:
            self._silence.until(Fraction(group.end, self._fps))

    def close(self) -> None:
        """End in order. Raises av.FFmpegError."""
        self._out.close()
        self._template.close()


class Silence:
    """A track of AAC in which nothing is heard, for receivers that refuse video alone. Its times are those of the pictures."""

    def __init__(self, out: OutputContainer) -> None:
        self._out = out
        self._stream: AudioStream = out.add_stream("aac", rate=SAMPLE_RATE, layout="stereo", options={"b": str(_AUDIO_BITS_S)})
        self._next: int | None = None  # in samples

    def until(self, seconds: Fraction) -> None:
        """Write what sounds before that moment. The first moment is the track's begin; after a gap it goes on behind the gap."""
        end = int(seconds * SAMPLE_RATE)
        if self._next is None:
            self._next = end
        while self._next + _SAMPLES <= end:
            silence = AudioFrame.from_ndarray(np.zeros((2, _SAMPLES), np.float32), format="fltp", layout="stereo")
            # The encoder puts one frame before the first, so that would be before the first picture.
            silence.sample_rate, silence.time_base, silence.pts = SAMPLE_RATE, Fraction(1, SAMPLE_RATE), self._next + _SAMPLES
            self._out.mux(self._stream.encode(silence))
            self._next += _SAMPLES
