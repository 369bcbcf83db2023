#!/usr/bin/env bash
# x264 through PyAV: the same pictures, encoded again by a new encoder with the same settings, get other bytes now and then, although x264 is
# said to be deterministic and each encoder has one thread. It is rare where one thread of the process works, and some five in a thousand
# where six threads make and encode pictures at once. The files show the same pictures. With `mbtree=0` none differ.
set -euo pipefail
folder=$(mktemp -d /tmp/finding-XXXX)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" -qq --disable-pip-version-check install av==18.1.0 numpy==2.4.6
"$folder/venv/bin/python" - 2> /dev/null <<'PY'
import collections
import io
import sys
from concurrent.futures import ThreadPoolExecutor

import av
import numpy as np

WIDTH, HEIGHT, ROUNDS, CLIPS = 96, 64, 8, 6
rng = np.random.default_rng(1)
SMALL = [np.kron(rng.integers(0, 255, (8, 4, 4, 3), np.uint8), np.ones((1, 16, 16, 1), np.uint8)) for _ in range(CLIPS)]


def encoded(clip, mbtree):
    out = io.BytesIO()
    with av.open(out, "w", format="mp4", options={"movflags": "empty_moov+default_base_moof"}) as container:
        stream = container.add_stream("libx264", rate=24)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        stream.options = {"preset": "fast", "crf": "16", "bf": "0", "threads": "1", "x264-params": f"mbtree={mbtree}"}
        for number, picture in enumerate(clip):
            framed = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
            framed[:, 16:80] = picture
            frame = av.VideoFrame.from_ndarray(framed, "rgb24")
            frame.pts = number
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return out.getvalue()


def pictures(data):
    with av.open(io.BytesIO(data)) as container:
        return b"".join(frame.to_ndarray(format="rgb24").tobytes() for frame in container.decode(video=0))


def others(mbtree, threads):
    """How many encodings differ from the usual one of their clip, of how many; and whether all show the same."""
    with ThreadPoolExecutor(threads) as pool:
        made = list(pool.map(lambda number: (number % CLIPS, encoded(SMALL[number % CLIPS], mbtree)), range(360)))
    found, same = 0, True
    for clip in range(CLIPS):
        counts = collections.Counter(data for number, data in made if number == clip)
        found += sum(counts.values()) - max(counts.values())
        same &= len({pictures(data) for data in counts}) == 1
    return found, len(made), same


def summed(mbtree, threads):
    runs = [others(mbtree, threads) for _ in range(ROUNDS)]
    found, made, same = sum(run[0] for run in runs), sum(run[1] for run in runs), all(run[2] for run in runs)
    print(f"mbtree={mbtree}, {threads} threads: {found} of {made} encodings have other bytes; all show the same pictures: {same}")
    return found, same


print("PyAV", av.__version__, "libavcodec", ".".join(map(str, av.library_versions["libavcodec"])))
alone, together, without = summed(1, 1), summed(1, 6), summed(0, 6)
as_described = together[0] > alone[0] and alone[1] and together[1] and without == (0, True)
print("as described" if as_described else "changed")
sys.exit(not as_described)
PY
