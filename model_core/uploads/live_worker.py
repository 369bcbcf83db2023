"""The process that decodes video which a publisher sends live: `python -m model_core.uploads.live_worker JSON`, started by `live`.

It limits its own memory, reads access units of H.264 from standard input, and writes each picture, at the size that is served, to standard
output. Nobody vouches for what it reads, so nothing of it is decoded in a process that serves. Messages are those of `worker`.
"""

from __future__ import annotations

import json
import os
import resource
import sys
from typing import Any

from model_core.uploads import worker

_BAD = "bad"


def serve(wanted: dict[str, Any]) -> None:
    """Decode what comes until the input ends.

    Args:
        wanted: `width` and `height` of the pictures that go out, `max_pixels` of those that come in, and `memory_bytes` to decode in.
    """
    import av  # noqa: PLC0415 - the protocol is read without a decoder
    import numpy as np  # noqa: PLC0415
    from PIL import Image, ImageOps  # noqa: PLC0415

    size = (wanted["width"], wanted["height"])
    codec = av.CodecContext.create("h264", "r")
    codec.thread_count = 1
    codec.options = {"max_pixels": str(wanted["max_pixels"])}
    source, target = open(0, "rb", buffering=0, closefd=False), open(1, "wb", buffering=0, closefd=False)  # noqa: SIM115 - the pipes
    limit = worker.address_space_bytes() + wanted["memory_bytes"]
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    worker.write(target, {"ready": True})
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())  # the decoder says there what it thinks of a stream
    while True:
        job = worker.read_json(source)
        packet = av.Packet(bytes(worker.read_bytes(source, job["bytes"])))
        packet.pts = job["ticks"]
        try:
            frames = codec.decode(packet)
        except av.FFmpegError:
            worker.write(target, {_BAD: True})
            continue
        for frame in frames:
            pixels = frame.to_ndarray(format="rgb24")
            if pixels.shape[1::-1] != size:
                pixels = np.asarray(ImageOps.fit(Image.fromarray(pixels), size, Image.Resampling.BILINEAR))
            worker.write(target, {"ticks": frame.pts}, (np.ascontiguousarray(pixels),))


def main() -> None:
    os.nice(5)  # frames that are being made come first
    for what, value in ((resource.RLIMIT_CORE, 0), (resource.RLIMIT_FSIZE, 0), (resource.RLIMIT_NOFILE, 16)):
        resource.setrlimit(what, (value, value))
    try:
        serve(json.loads(sys.argv[1]))
    except (worker.Ended, BrokenPipeError):
        return


if __name__ == "__main__":
    main()
