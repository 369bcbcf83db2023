"""Reads a stream as any player would, and prints each picture: `python -m bench.operate.receiver URL FORMAT`."""

from __future__ import annotations

import sys
import time

import av
import numpy as np

_CORNER = 4  # pixels of each corner, where there is nothing but background
_TRY_FOR_S = 30.0
_OPTIONS = {"fflags": "nobuffer", "probesize": "32768", "analyzeduration": "500000"}
# To RTMP, `timeout` would mean that it listens.
_WAITS = {"flv": {"rtmp_live": "live", "rw_timeout": "30000000"}, "mpegts": {"timeout": "30000000"}}


def read(url: str, form: str) -> None:
    """Lines of seconds on this machine's monotonic clock, seconds of the stream, and red, green and blue."""
    with av.open(url, "r", format=form, options={**_OPTIONS, **_WAITS[form]}) as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_count = 1  # a thread more is a picture later
        for frame in container.decode(stream):
            now, pixels = time.monotonic(), frame.to_ndarray(format="rgb24")
            corners = [
                pixels[rows, columns]
                for rows in (slice(_CORNER), slice(-_CORNER, None))
                for columns in (slice(_CORNER), slice(-_CORNER, None))
            ]
            red, green, blue = np.mean(corners, axis=(0, 1, 2))
            print(f"{now:.4f} {frame.time:.4f} {red:.0f} {green:.0f} {blue:.0f}", flush=True)


def main() -> None:
    began = time.monotonic()
    while True:
        try:
            read(*sys.argv[1:3])
        except (av.FFmpegError, IndexError):  # nothing is sent there yet
            if time.monotonic() - began > _TRY_FOR_S:
                raise
            time.sleep(0.2)
        else:
            return


if __name__ == "__main__":
    main()
