"""`headrace live`: a session steered from the keyboard while it plays."""

from __future__ import annotations

import asyncio
import sys
import time
from collections import deque
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from headrace.cli import console, secure, source
from headrace.cli.decoding import Decoder
from headrace.cli.keyboard import lines
from headrace.cli.recording import SCALE_HELP, Recording, check_out, default_scale
from headrace.cli.screen import Screen, screen
from headrace.cli.steering import HELP, steer
from headrace.playout import PlayoutClock
from model_core.tasks import cancel_and_wait

if TYPE_CHECKING:
    from headrace.client import LiveEvent, WatchEvent
    from headrace.v1 import video_pb2 as wire
    from model_core.media import Frames

_DRAW_EVERY_S = 1 / 12
_STDIN = 0
_MOST_DUE = 1024


@secure.with_access
def live(
    prompt: Annotated[str, typer.Argument(help="What to draw first.", show_default=False)],
    address: Annotated[str, typer.Option(metavar="HOST:PORT", help="Server to ask.")] = console.DEFAULT_ADDRESS,
    seconds: Annotated[float, typer.Option(help="Length of the video; 0 plays until /stop.")] = 0.0,
    seed: Annotated[int | None, typer.Option(help="Drawn at random when not given.", show_default=False)] = None,
    image: Annotated[Path | None, typer.Option(help=source.IMAGE_HELP, show_default=False)] = None,
    video: Annotated[Path | None, typer.Option(help=source.VIDEO_HELP, show_default=False)] = None,
    out: Annotated[Path | None, typer.Option(help="Record to .mp4, .gif, or .npy (raw frames).", show_default=False)] = None,
    steps: Annotated[int | None, typer.Option(min=1, max=source.MAX_STEPS, help=source.STEPS_HELP, show_default=False)] = None,
    guidance: Annotated[float | None, typer.Option(help=source.GUIDANCE_HELP, show_default=False)] = None,
    negative_prompt: Annotated[str | None, typer.Option(help=source.NEGATIVE_HELP, show_default=False)] = None,
    scale: Annotated[int | None, typer.Option(help=SCALE_HELP, show_default=False)] = None,
    patience: Annotated[float | None, typer.Option(min=0.0, help=source.PATIENCE_HELP, show_default=False)] = None,
    access: secure.Access = secure.PLAIN,
) -> None:
    """Play a steerable session: type a new prompt while it plays."""

    async def main() -> None:
        source.check_words_and_seed(prompt, negative_prompt, seed)
        footage = source.read_footage(image, video)
        check_out(out, seconds, scale)
        async with AsyncExitStack() as stack:
            client = await stack.enter_async_context(access.client(address))
            terminal = sys.stdout.isatty()
            view = stack.enter_context(screen(write, terminal=terminal))
            player = Player(view, out, scale, stack, hint=HELP)
            live = client.live(
                prompt, seconds=seconds, seed=seed, steps=steps or 0, guidance=guidance, negative_prompt=negative_prompt,
                image=footage.image, video=footage.video,
                reconnect=source.reconnect(patience), replaceable=player.replaceable,
            )  # fmt: skip
            session = await stack.enter_async_context(live)
            typed = lines(_STDIN, view.typing if terminal and sys.stdin.isatty() else None)
            steering = asyncio.create_task(steer(session, typed, view.say, stops=seconds == 0))
            drawing = asyncio.create_task(player.draw())
            stack.push_async_callback(cancel_and_wait, steering, drawing)
            async for event in session:
                await player.show(event)

    console.run(main, address)


class Player:
    """Turns events into what is seen: lines, a status line, pictures when they are due, a recording."""

    def __init__(self, view: Screen, out: Path | None, scale: int | None, stack: AsyncExitStack, hint: str = "") -> None:
        self._view = view
        self._hint = hint  # for whoever steers the session
        self._out, self._scale, self._stack = out, scale, stack
        self._clock = PlayoutClock(time.monotonic)
        self._info: source.Opened | None = None
        self._decoder: Decoder | None = None
        self._recording: Recording | None = None
        # Frames wait here until they are due, and may be superseded meanwhile. Bounded, because the server sends only a little ahead;
        # if it does not, the oldest are taken to be played.
        self._due: deque[tuple[float, int, Frames]] = deque()
        self._saving = asyncio.Lock()

    async def show(self, event: LiveEvent | WatchEvent) -> None:
        from headrace.v1 import video_pb2 as pb

        match event:
            case pb.Started():
                await self._begin(event)
            case pb.Frames():
                await self._frames(event)
            case pb.PromptAck():
                self._supersede(event.first_frame)
                self._view.say(f"frame {event.first_frame}: {event.prompt}" + (f" [{' '.join(event.keys)}]" if event.keys else ""))
            case pb.Paused() | pb.Resumed():
                self._clock.paused()
                self._view.say(f"{'paused before' if isinstance(event, pb.Paused) else 'resumed at'} frame {event.next_frame}")
            case pb.Skipped():
                self._clock.paused()  # what comes next is not late: it is not what was to come
                self._view.say(f"too slow: {event.frames} frames left out before frame {event.next_frame}")
            case pb.UsageTick():
                self._view.status(self.line())
            case pb.Ended():
                self._view.say(f"{pb.EndReason.Name(event.reason).removeprefix('END_REASON_').lower().replace('_', ' ')}: {self.line()}")
                source.check_ended(event)
            case pb.QueuePosition() | pb.PromptRefused() | pb.QualityChange():
                self._view.say(_told(event))

    async def _begin(self, started: wire.Started) -> None:
        self._info, self._decoder = source.opened(started), Decoder(started)
        self._view.say(f"{started.model}, seed {started.seed}, {started.width}x{started.height} at {started.fps} frames a second")
        if self._hint:
            self._view.say(self._hint)
            if started.watch_token:
                self._view.say(f"others see it with: headrace watch {started.watch_token}")
            if started.resume_token:
                self._view.say(f"its last seconds again, slowly: headrace replay {started.resume_token}")
        await self._record(self._info)

    def replaceable(self) -> int | None:
        return self._clock.replaceable()

    async def _record(self, info: source.Opened) -> None:
        if self._out is not None:
            self._recording = await self._stack.enter_async_context(
                Recording(self._out, info.fps, self._scale or default_scale(info.width, info.height))
            )
            self._stack.push_async_callback(self._played, _MOST_DUE)  # what has arrived is worth keeping, however the session ends

    def _supersede(self, first_frame: int) -> None:
        self._clock.superseded(first_frame)
        while self._due and self._due[-1][1] >= first_frame:
            self._due.pop()

    def line(self) -> str:
        played = self._clock.stats()
        ttff = "-" if played.ttff_s is None else f"{played.ttff_s:.2f} s"
        return f"first frame {ttff}, {played.frames} frames, {played.fps:.1f} a second, {played.late_frames} late"

    async def draw(self) -> None:
        """Show the newest frame that is due, a few times a second, until cancelled."""
        while True:
            await asyncio.sleep(_DRAW_EVERY_S)
            now = time.monotonic()
            await self._played(sum(due <= now for due, _, _ in self._due))

    async def _played(self, count: int) -> None:
        """So many frames have been on screen, and will not be superseded any more."""
        async with self._saving:  # who writes first took its frames first
            frames = [self._due.popleft()[2] for _ in range(min(count, len(self._due)))]
            if frames:
                self._view.picture(frames[-1])
            if frames and self._recording is not None:
                import numpy as np

                await self._recording.write(np.stack(frames))

    async def _frames(self, event: wire.Frames) -> None:
        if (info := self._info) is None or self._decoder is None:
            raise console.Failure("the server sent frames before it said what they are")
        frames = self._decoder.pixels(event)
        if frames is None:
            return
        due = self._clock.arrived(event.first_frame, event.frame_count, info.fps)
        self._due.extend((due + n / info.fps, event.first_frame + n, frame) for n, frame in enumerate(frames))
        await self._played(len(self._due) - _MOST_DUE)


def _told(event: wire.QueuePosition | wire.PromptRefused | wire.QualityChange) -> str:
    from headrace.v1 import video_pb2 as pb

    match event:
        case pb.QueuePosition():
            return f"waiting, position {event.position}"
        case pb.PromptRefused():
            return f"refused: {event.message}"
        case pb.QualityChange():
            why = "busy" if event.reason == pb.QUALITY_REASON_LOAD else "no longer busy"
            return f"frame {event.first_frame}: {why}, {event.steps} steps a chunk"


def write(text: str) -> None:
    """For `screen`."""
    sys.stdout.write(text)
    sys.stdout.flush()
