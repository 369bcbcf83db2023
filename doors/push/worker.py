"""The process of one output: reads groups from standard input and writes them to a receiver, until one of the two ends.

libav may wait for a receiver, and may crash; then this process does, and nothing else. Every group is answered by a line when it has been
handed over. What goes wrong is the last line.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from typing import IO, BinaryIO

import av

from doors.push.framing import CONNECTED, ENDED, TAKEN, CutOff, Start, read_group, read_start
from doors.push.muxing import Muxer
from model_core.access_units import NotOurs, group_of

_US = 1_000_000
_TIMEOUT_S = 10
_PACKET_BYTES = 1316  # seven packets of MPEG-TS, which fit every network
_END_WITHIN_S = 5.0


def main() -> int:
    """0 where everything was handed over and ended in order."""
    say = _speaker(sys.stdout.buffer)
    try:
        serve(sys.stdin.buffer, say)
    except (av.FFmpegError, OSError, CutOff, NotOurs, subprocess.SubprocessError) as error:
        say(_sentence(error))
        return 1
    return 0


def serve(source: BinaryIO, say: Callable[[str], None]) -> None:
    """Raises av.FFmpegError, OSError: the receiver is lost. CutOff, NotOurs: what is read makes no sense."""
    start = read_start(source.read)
    piped = _ffmpeg(start) if start.program else None
    try:
        target: str | IO[bytes] = start.url
        if piped is not None and piped.stdin is not None:
            target = piped.stdin
        segment = bytes.fromhex(start.segment)
        muxer = Muxer(target, start.container, segment, start.fps, silent_audio=start.silent_audio, options=_protocol(start))
        say(CONNECTED)
        while (found := read_group(source.read)) is not None:
            first_frame, count, fragment = found
            muxer.write(group_of(fragment, first_frame, count))
            say(TAKEN)
        muxer.close()
        if piped is not None:
            _ended(piped)
        say(ENDED)
    except OSError as error:
        if piped is None:
            raise
        raise OSError(_last_words(piped) or str(error)) from error
    finally:
        if piped is not None:
            piped.kill()


def _protocol(start: Start) -> dict[str, str]:
    match start.scheme:
        case "rtmp" | "rtmps":
            return {"rw_timeout": str(_TIMEOUT_S * _US), "rtmp_live": "live"}
        case "udp":
            return {"pkt_size": str(_PACKET_BYTES)}
        case _:
            return {}


def _ffmpeg(start: Start) -> subprocess.Popen[bytes]:
    """A program that sends on what is written to it, byte by byte: it neither reads the container nor waits for more of it."""
    words = [start.program, "-hide_banner", "-nostdin", "-loglevel", "error"]
    words += ["-blocksize", str(_PACKET_BYTES), "-f", "data", "-raw_packet_size", str(_PACKET_BYTES), "-i", "pipe:0"]
    words += ["-map", "0", "-c", "copy", "-f", "data", "-flush_packets", "1", start.url]
    return subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, bufsize=0)


def _ended(piped: subprocess.Popen[bytes]) -> None:
    """Raises OSError, SubprocessError: it did not send everything."""
    if piped.stdin is not None:
        piped.stdin.close()
    if (code := piped.wait(_END_WITHIN_S)) != 0:
        raise OSError(_last_words(piped) or f"FFmpeg ended with {code}")


def _last_words(piped: subprocess.Popen[bytes]) -> str:
    """What it complained of, once it has ended."""
    try:
        _, complaint = piped.communicate(timeout=_END_WITHIN_S)
    except (subprocess.TimeoutExpired, ValueError, OSError):
        return ""
    lines = (complaint or b"").decode(errors="replace").strip().splitlines()
    return lines[-1] if lines else ""


def _sentence(error: Exception) -> str:
    """Of one line. Text of libav may hold the URL, which may hold a stream key: then its kind alone is told."""
    words = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return " ".join(f"{type(error).__name__}: {words}".split()) if "://" not in words else type(error).__name__


def _speaker(out: BinaryIO) -> Callable[[str], None]:
    def say(line: str) -> None:
        out.write(line.encode() + b"\n")
        out.flush()

    return say


if __name__ == "__main__":
    sys.exit(main())
