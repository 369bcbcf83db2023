"""What the enhancer is worth, beside FFmpeg: `python -m bench.models.enhancer`.

PSNR in dB, of all frames together, over clips of attribute combinations that no network was trained on:

  rendered     the world's own frames. The frame between is the world's half-way; larger frames are the world rendered at that size.
  autoencoder  the same after the embedded model's autoencoder. Of every three frames the outer two are given, and the one between is
               wanted as it was decoded; larger frames are wanted as the world has them.
  generated    what the embedded model draws for prompts, the frame between as before. Nothing says what its larger frames should be.

Frames between are compared with FFmpeg's minterpolate, motion-compensated and without scene detection, larger ones with swscale's Lanczos.
Then the time of a chunk.
"""

from __future__ import annotations

import argparse
import math
import random
import statistics
import time
from collections.abc import Callable
from fractions import Fraction

import numpy as np
import torch
from av.error import BlockingIOError as NothingYet
from av.error import EOFError as Over
from av.filter import Graph
from av.video.format import VideoFormat
from av.video.frame import VideoFrame
from av.video.reformatter import Interpolation, VideoReformatter
from numpy.typing import NDArray

from model_core.enhancement import Enhancement
from model_core.local import build_enhancer, load_pipeline
from model_core.nn.enhancer import SIZES, Enhancer
from model_core.presets import millrace_64
from model_core.stages.interface import Decoder
from model_core.weights import load_enhancer
from training.train_enhancer import FRAMES, Clips, make_clips
from training.world import caption, random_scene, render

Pixels = NDArray[np.uint8]  # [N, H, W, 3]
Pair = tuple[Pixels, Pixels]  # what was made, and what was wanted
_FORMAT = "yuvj444p"  # the least that minterpolate loses: it takes no RGB
_STRENGTHS = ((2, 1), (1, 2), (1, 4), (2, 2), (2, 4))


def psnr(pairs: list[Pair]) -> float:
    """Of all frames together."""
    error = sum(float(np.square(made.astype(np.float64) - wanted).sum()) for made, wanted in pairs)
    return 10 * math.log10(255**2 * sum(made.size for made, _ in pairs) / error)


def minterpolated(frames: Pixels) -> dict[int, Pixels]:
    """The frames between by FFmpeg: by the index of the frame before, as far as it makes them."""
    graph = Graph()
    graph.threads = 1
    source = graph.add_buffer(width=frames.shape[2], height=frames.shape[1], format=VideoFormat(_FORMAT), time_base=Fraction(1, 24))
    between = graph.add("minterpolate", "fps=48:mi_mode=mci:mc_mode=aobmc:me_mode=bidir:vsbmc=1:scd=none")
    sink = graph.add("buffersink")
    source.link_to(between)
    between.link_to(sink)
    graph.configure()
    made: dict[int, Pixels] = {}
    for number, frame in enumerate([*(VideoFrame.from_ndarray(f, format="rgb24").reformat(format=_FORMAT) for f in frames), None]):
        if frame is not None:
            frame.pts, frame.time_base = number, Fraction(1, 24)
        source.push(frame)
        while True:
            try:
                out = sink.pull()
            except (NothingYet, Over):
                break
            if not isinstance(out, VideoFrame) or out.time_base is None:
                raise TypeError(f"minterpolate must make video frames with times; got {out}")
            at = Fraction(out.pts or 0) * out.time_base * 48
            if at.denominator == 1 and at.numerator % 2:
                made[at.numerator // 2] = out.to_ndarray(format="rgb24").astype(np.uint8)
    return made


def lanczos(frames: Pixels, size: int) -> Pixels:
    """Larger frames by swscale."""
    reader = VideoReformatter()
    height, width = frames.shape[1] * size, frames.shape[2] * size
    scaled = (
        reader.reformat(VideoFrame.from_ndarray(f, format="rgb24"), width, height, interpolation=Interpolation.LANCZOS) for f in frames
    )
    return np.stack([frame.to_ndarray(format="rgb24") for frame in scaled])


def uint8(frames: torch.Tensor) -> Pixels:
    """`[N, 3, H, W]` in [0, 1]."""
    made: Pixels = (frames.clamp(0, 1) * 255).round().to(torch.uint8).permute(0, 2, 3, 1).contiguous().numpy()
    return made


class Judge:
    """Compares the network with FFmpeg."""

    def __init__(self, network: Enhancer) -> None:
        self._network = network

    def between(self, clips: list[Pair]) -> tuple[float, float]:
        """PSNR of the network and of FFmpeg, over (given frames, the frames between them)."""
        ours: list[Pair] = []
        theirs: list[Pair] = []
        for given, wanted in clips:
            doubled = self._network.doubled(torch.tensor(given[:1]), torch.tensor(given)).numpy()
            for index, made in minterpolated(given).items():
                if index < len(wanted):
                    theirs.append((made, wanted[index]))
                    ours.append((doubled[2 * index + 2], wanted[index]))  # for the same frames
        return psnr(ours), psnr(theirs)

    def larger(self, clips: list[Pair], size: int) -> tuple[float, float]:
        """The same of frames that are `size` times as large."""
        enlarge: Callable[[torch.Tensor], torch.Tensor] = getattr(self._network, f"enlarge_{size}")
        ours = [(enlarge(torch.tensor(given)).numpy(), wanted) for given, wanted in clips]
        return psnr(ours), psnr([(lanczos(given, size), wanted) for given, wanted in clips])


def world(clips: Clips, index: int, half_frames: slice, scale: int = 1) -> Pixels:
    """What the world has at these half frames of one clip."""
    centres = clips.centres[index : index + 1, half_frames]
    never = torch.full((1,), 10**6)
    return uint8(render(clips.scenes[index : index + 1], centres, never, scale)[0])


def decoded(clips: Clips, index: int) -> Pixels:
    made: Pixels = clips.decoded[index].permute(0, 2, 3, 1).contiguous().numpy()
    return made


def generated(count: int, seconds: float) -> list[Pixels]:
    """What the embedded model draws for prompts of held-out combinations."""
    pipeline, rng = load_pipeline(), random.Random(3)
    return [pipeline.generate(caption(random_scene(rng, held_out=True), rng), seconds, seed=index) for index in range(count)]


def milliseconds(repeats: int) -> dict[tuple[int, int], float]:
    """Of a chunk in the stage's own graphs: the median."""
    config = millrace_64()
    upstream: Decoder = None  # type: ignore[assignment]  # nothing is streamed
    stage = build_enhancer(config, upstream)
    frames = np.random.default_rng(1).integers(0, 256, (config.frames_per_chunk, config.height, config.width, 3), np.uint8)
    found = {}
    for more, larger in _STRENGTHS:
        times = []
        for _ in range(repeats + 2):
            began = time.perf_counter()
            stage.enhanced(Enhancement(frames=more, size=larger), frames, frames[:1])
            times.append(time.perf_counter() - began)
        found[more, larger] = 1e3 * statistics.median(times[2:])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=48)
    parser.add_argument("--generated", type=int, default=8, help="prompts")
    parser.add_argument("--repeats", type=int, default=20)
    a = parser.parse_args()
    torch.set_num_threads(1)
    clips = make_clips(a.clips, 99, held_out=True)
    judge = Judge(load_enhancer(millrace_64()))
    many, whole = range(a.clips), slice(0, 2 * FRAMES, 2)
    with torch.inference_mode():
        rows = [("frames x2, rendered", judge.between([(world(clips, n, whole), world(clips, n, slice(1, 2 * FRAMES, 2))) for n in many]))]
        coded = [decoded(clips, n) for n in many]
        rows.append(("frames x2, autoencoder", judge.between([(frames[::2], frames[1::2]) for frames in coded])))
        for size in SIZES:
            rows.append(
                (f"size x{size}, rendered", judge.larger([(world(clips, n, whole), world(clips, n, whole, size)) for n in many], size))
            )
            wanted = [(coded[n], world(clips, n, whole, size)) for n in many]
            rows.append((f"size x{size}, autoencoder", judge.larger(wanted, size)))
    drawn = generated(a.generated, 2.0)
    with torch.inference_mode():
        rows.insert(2, ("frames x2, generated", judge.between([(frames[::2], frames[1::2]) for frames in drawn])))
    print(f"{'PSNR, dB':<26}{'enhancer':>10}{'FFmpeg':>10}")
    for name, (ours, theirs) in rows:
        print(f"{name:<26}{ours:>10.2f}{theirs:>10.2f}")
    config = millrace_64()
    print(f"\na chunk, {config.frames_per_chunk} frames of {config.width}x{config.height}, one thread")
    for (more, larger), spent in milliseconds(a.repeats).items():
        print(f"frames x{more}, size x{larger}{spent:>12.1f} ms")


if __name__ == "__main__":
    main()
