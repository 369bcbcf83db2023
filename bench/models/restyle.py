"""Does a restyled video keep its source's motion and take its prompt's colour, and how late is it? `python -m bench.models.restyle`.

Sources are rendered clips of one moving shape. The prompt says the same scene in another colour. Per strength: how far the shape is from
the source's, over whole paths, and in which share of the chunks it has the prompt's colour. Then one source plays in real time, and each
frame's delay is taken, from its moment in the source until its restyled chunk was there. All in this process, on its two threads.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import statistics
import time
from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from model_core.diffusion.flow_match import timesteps
from model_core.local import LocalPipeline, load_pipeline
from model_core.pipeline import SessionRequest
from model_core.presets import millrace_64
from model_core.quality.detect import apart, read, track
from model_core.quality.words import COLOURS
from model_core.tasks import cancel_and_wait
from model_core.types import FrameChunk
from training.world import Scene, caption, centres_of_screen, random_scene, scene_tensor, steady_clip

CONFIG = millrace_64()
CHUNK = CONFIG.frames_per_chunk


@dataclass(frozen=True, slots=True)
class Kept:
    """What is left of the sources at one strength.

    Attributes:
        path_px: mean distance of the shape from the source's, over all frames; `worst_px`: of the clip with the largest mean.
        within_2px: share of the clips whose mean distance is at most 2 pixels.
        colour: share of the chunks in the prompt's colour; `colour_later`: of those after a clip's first.
    """

    steps: int
    strength: float
    path_px: float
    worst_px: float
    within_2px: float
    colour: float
    colour_later: float


@dataclass(frozen=True, slots=True)
class Live:
    """A source that played in real time.

    Attributes:
        delay_s, max_delay_s: of all frames, from the moment in the source until the restyled one was there: median, longest.
        work_s, max_work_s: the same from the moment of the chunk's last frame on.
        busy: seconds of work in a second of video.
        late: chunks that were later than the first one, by more than a chunk's time.
    """

    seconds: float
    delay_s: float
    max_delay_s: float
    work_s: float
    max_work_s: float
    busy: float
    late: int


def pairs(count: int, seed: int) -> list[tuple[Scene, Scene]]:
    """Scenes, and the same ones in another colour."""
    rng, found = random.Random(seed), list[tuple[Scene, Scene]]()
    while len(found) < count:
        scene = random_scene(rng, held_out=False)
        other = replace(scene, colour=rng.randrange(len(COLOURS)))
        if other.colour != scene.colour and other.has_contrast():
            found.append((scene, other))
    return found


def rendered(scene: Scene, frames: int) -> NDArray[np.uint8]:
    """`[N, H, W, 3]`."""
    clip = steady_clip(scene_tensor([scene]), centres_of_screen(1), frames)
    return (clip[0].permute(0, 2, 3, 1) * 255).round().to(torch.uint8).numpy()


def floats(frames: NDArray[np.uint8]) -> torch.Tensor:
    """`[1, N, 3, H, W]` in [0, 1]."""
    return torch.tensor(frames).permute(0, 3, 1, 2)[None].float() / 255


async def restyled(
    local: LocalPipeline, source: NDArray[np.uint8], prompt: str, strength: float, steps: int, pace_s: float = 0.0
) -> tuple[NDArray[np.uint8], list[float], list[float]]:
    """Frames, and the moments at which each source frame was played and each chunk was there. `pace_s` a frame."""
    session = await local.pipeline.open(SessionRequest("bench", prompt, 11, steps, None, strength=strength))
    feed = session.source
    if feed is None:
        raise RuntimeError("the model restyles nothing")
    played, there, chunks = list[float](), list[float](), list[NDArray[np.uint8]]()

    async def give() -> None:
        began = time.perf_counter()
        for number in range(len(source)):
            await asyncio.sleep(began + number * pace_s - time.perf_counter() if pace_s else 0)
            await feed.room()
            played.append(time.perf_counter())
            feed.offer(number, source[number : number + 1])
        feed.finish()

    giving = asyncio.create_task(give())
    async with aclosing(session.events()) as events:
        async for event in events:
            if isinstance(event, FrameChunk):
                chunks.append(event.pixels())
                there.append(time.perf_counter())
    await cancel_and_wait(giving)
    return np.concatenate(chunks), played, there


def paths(frames: NDArray[np.uint8]) -> torch.Tensor:
    """Centroids `[N, 2]`, chunk by chunk, so that a change of colour on the way does not hide the shape."""
    return torch.cat([track(part)[0] for part in floats(frames).split(CHUNK, 1)])


async def kept(local: LocalPipeline, scenes: Sequence[tuple[Scene, Scene]], chunks: int, steps: int, strength: float) -> Kept:
    distances, right = list[float](), list[list[bool]]()
    for number, (scene, other) in enumerate(scenes):
        source = rendered(scene, chunks * CHUNK)
        frames, _, _ = await restyled(local, source, caption(other, random.Random(number)), strength, steps)
        distances.append(float(apart(paths(frames), paths(source)).mean()))
        parts = torch.cat(floats(frames).split(CHUNK, 1))
        right.append((read(parts).colour == other.colour).tolist())
    later = float(np.mean([chunk for clip in right for chunk in clip[1:]]))
    within = sum(distance <= 2 for distance in distances) / len(distances)
    return Kept(steps, strength, statistics.fmean(distances), max(distances), within, float(np.mean(right)), later)


async def live(local: LocalPipeline, chunks: int, steps: int, strength: float) -> Live:
    scene, other = pairs(1, 5)[0]
    source, prompt = rendered(scene, chunks * CHUNK), caption(other, random.Random(0))
    await restyled(local, source[: 2 * CHUNK], prompt, strength, steps)
    began = time.process_time()
    _, played, there = await restyled(local, source, prompt, strength, steps, 1 / CONFIG.fps)
    busy = (time.process_time() - began) / (chunks * CONFIG.chunk_seconds)
    delays = [there[frame // CHUNK] - at for frame, at in enumerate(played)]
    work = [there[chunk] - played[(chunk + 1) * CHUNK - 1] for chunk in range(chunks)]
    late = sum(at > there[0] + (chunk + 1) * CONFIG.chunk_seconds for chunk, at in enumerate(there))
    return Live(chunks * CONFIG.chunk_seconds, statistics.median(delays), max(delays), statistics.median(work), max(work), busy, late)


async def measure(clips: int, chunks: int, steps: Sequence[int], seconds: float) -> tuple[list[Kept], Live]:
    local = load_pipeline()
    torch.set_num_threads(2)
    scenes, shown = pairs(clips, 2026), list[Kept]()
    try:
        for count in steps:
            for strength in sorted(timesteps(count, CONFIG.shift)[1:-1])[:3]:
                shown.append(await kept(local, scenes, chunks, count, strength))
                print(_line(shown[-1]), flush=True)
        gentlest = timesteps(CONFIG.num_steps, CONFIG.shift)[-2]
        return shown, await live(local, round(seconds / CONFIG.chunk_seconds), CONFIG.num_steps, gentlest)
    finally:
        await local.aclose()


def _line(kept: Kept) -> str:
    return (
        f"{kept.steps:2} steps, strength {kept.strength:.3f}: path {kept.path_px:.2f} px, worst clip {kept.worst_px:.2f} px, "
        f"{kept.within_2px:.0%} of clips within 2 px; colour in {kept.colour:.1%} of chunks, {kept.colour_later:.1%} after the first"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clips", type=int, default=40)
    parser.add_argument("--chunks", type=int, default=12, help="of each clip")
    parser.add_argument("--steps", type=int, nargs="+", default=[4, 8])
    parser.add_argument("--seconds", type=float, default=20.0, help="of the source that plays in real time")
    parser.add_argument("--json", type=Path, default=None)
    a = parser.parse_args()
    shown, played = asyncio.run(measure(a.clips, a.chunks, a.steps, a.seconds))
    print(
        f"live: {played.seconds:.1f} s of source; a frame comes back after {played.delay_s:.3f} s, {played.max_delay_s:.3f} s at most; "
        f"of a chunk's last frame that is {played.work_s:.3f} s, {played.max_work_s:.3f} s at most; "
        f"{played.busy:.2f} s of processor time a second of video; {played.late} chunks late"
    )
    if a.json is not None:
        a.json.write_text(json.dumps({"kept": [asdict(each) for each in shown], "live": asdict(played)}, indent=1) + "\n")


if __name__ == "__main__":
    main()
