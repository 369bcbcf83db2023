#!/usr/bin/env bash
# FFmpeg through PyAV: a decoder's option `max_pixels` is documented as the "maximum number of pixels" of a picture. Most decoders compare it
# with the size of the buffer that they pad to whole blocks, so a video of exactly the limit is refused, also one whose sides blocks divide.
# Which margin is needed differs by codec, and so does the error: invalid data, an invalid argument, or memory that is not there.
set -euo pipefail
folder=$(mktemp -d /tmp/finding-XXXX)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" -qq --disable-pip-version-check install av==18.1.0 numpy==2.4.6
"$folder/venv/bin/python" - 2> /dev/null <<'PY'
import io
import sys

import av
import numpy as np


def video(encoder, side):
    out = io.BytesIO()
    with av.open(out, "w", format="mp4") as container:
        stream = container.add_stream(encoder, rate=24)
        stream.width = stream.height = side
        stream.pix_fmt = "yuv420p"
        for shade in range(8):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.full((side, side, 3), 20 * shade, np.uint8), "rgb24")))
        container.mux(stream.encode())
    return out.getvalue()


def decoded(data, max_pixels):
    with av.open(io.BytesIO(data)) as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_count = 1
        stream.codec_context.options = {"max_pixels": str(max_pixels)}
        try:
            return f"{sum(1 for _ in container.decode(stream))} frames"
        except av.FFmpegError as error:
            return f"{type(error).__name__}: {error.strerror}"


def least(data, side):
    pixels = side * side
    while not decoded(data, pixels).endswith("frames"):
        pixels += side
    return pixels


print("PyAV", av.__version__, "libavcodec", ".".join(map(str, av.library_versions["libavcodec"])))
refused = {}
for encoder, codec in (("libx264", "H.264"), ("libx265", "HEVC"), ("libvpx-vp9", "VP9"), ("mpeg4", "MPEG-4"), ("libsvtav1", "AV1")):
    for side in (64, 100):
        data = video(encoder, side)
        exactly = decoded(data, side * side)
        refused[codec, side] = not exactly.endswith("frames")
        print(f"{codec:7}{side}x{side}, max_pixels={side * side}: {exactly}; decoded from about max_pixels={least(data, side)} on")
as_described = all(refused[codec, 100] for codec in ("H.264", "HEVC", "VP9", "MPEG-4")) and refused["MPEG-4", 64] and not refused["AV1", 100]
print("as described" if as_described else "changed")
sys.exit(not as_described)
PY
