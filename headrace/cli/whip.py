"""`headrace whip`: send a session that somebody steers on to a server of WebRTC, by WHIP, without coding it again."""

from __future__ import annotations

import asyncio
import json
import random
import time
from contextlib import AsyncExitStack, aclosing
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from headrace.cli import console, secure, source
from headrace.cli.console import Failure, bad_input, note
from headrace.cli.fragments import Fragments
from model_core.tasks import cancel_and_wait

if TYPE_CHECKING:
    from doors.http.webrtc.options import WebRtcOptions
    from doors.http.webrtc.push import Target
    from doors.http.webrtc.track import UnitTrack
    from headrace.client import Reconnect
    from headrace.v1 import video_pb2 as wire
    from model_core.access_units import Header

_PACKAGE = "aiortc"
_LOOPBACK = ("localhost", "127.0.0.1", "::1")
_PLAYED_WITHIN_S = 5.0


@dataclass(slots=True)
class Summary:
    """What `--json` prints.

    Attributes:
        frames: pictures that were given to a connection, or to none because there was none.
        connections: that were made.
    """

    model: str = ""
    session: str = ""
    frames: int = 0
    connections: int = 0
    wall_s: float = 0.0


@secure.with_access
def whip(
    token: Annotated[str, typer.Argument(help="As `headrace live` prints it: Started.watch_token.", show_default=False)],
    to: Annotated[str, typer.Option(metavar="URL", help="whip+https://HOST/… or whip+http://HOST/…", show_default=False)],
    to_token: Annotated[
        str, typer.Option(envvar="HEADRACE_WHIP_TOKEN", metavar="TOKEN", help="Bearer token for --to.", show_default=False)
    ] = "",
    stun: Annotated[str, typer.Option(metavar="stun:HOST:PORT", help="Asked how the outside sees this machine.")] = "",
    address: Annotated[str, typer.Option(metavar="HOST:PORT", help="Server to ask; any front door will do.")] = console.DEFAULT_ADDRESS,
    patience: Annotated[float | None, typer.Option(min=0.0, help=source.PATIENCE_HELP, show_default=False)] = None,
    access: secure.Access = secure.PLAIN,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")] = False,
) -> None:
    """Send a session on by WHIP, until it ends."""
    summary = Summary()

    async def main() -> None:
        target, options = _target(to, to_token, stun)
        began = time.monotonic()
        async with AsyncExitStack() as stack:
            client = await stack.enter_async_context(access.client(address))
            policy = source.reconnect(patience)
            events = await stack.enter_async_context(aclosing(client.watch(token, reconnect=policy)))
            sender = Sender(target, options, policy, summary)
            stack.push_async_callback(sender.close)
            async for event in events:
                await sender.show(event)
            await sender.played()
        summary.wall_s = round(time.monotonic() - began, 3)

    console.run(main, address)
    if as_json:
        print(json.dumps(asdict(summary)))
    else:
        note(f"{summary.frames} frames in {summary.wall_s:.1f} s, over {summary.connections} connections")


def _target(to: str, token: str, stun: str) -> tuple[Target, WebRtcOptions]:
    """Raises Failure: there is no such target, or no package for it."""
    from urllib.parse import urlsplit

    try:
        from doors.http.webrtc.options import WebRtcOptions
        from doors.http.webrtc.push import Target
    except ImportError as error:
        raise Failure(f"--to needs the package {_PACKAGE}: {error}") from None
    try:
        target = Target.of(to, token)
    except ValueError as error:
        raise bad_input("--to", str(error)) from None
    host = urlsplit(target.url).hostname
    return target, WebRtcOptions(stun=stun, hosts=("127.0.0.1",) if host in _LOOPBACK else ())


class Sender:
    """Gives a session's pictures to one connection after another.

    Args:
        target: where they go.
        options: where packets leave.
        policy: how a lost connection is made again.
        summary: is counted in.
    """

    def __init__(self, target: Target, options: WebRtcOptions, policy: Reconnect, summary: Summary) -> None:
        self._target, self._options, self._policy, self._summary = target, options, policy, summary
        self._header: Header | None = None
        self._fragments = Fragments()
        self._track: UnitTrack | None = None
        self._sending: asyncio.Task[None] | None = None

    async def show(self, event: object) -> None:
        """Returns when there is room for more. Raises Failure: the session cannot be sent, or is not taken."""
        from headrace.v1 import video_pb2 as pb
        from model_core.access_units import Header

        if self._sending is not None and self._sending.done():
            self._sending.result()
        match event:
            case pb.Started():
                if event.codec != pb.CODEC_FMP4_H264:
                    raise bad_input("TOKEN", "must be of a session whose frames are fmp4, as those of pages are")
                self._header = Header.of(event.codec_header, event.width, event.height, event.fps, event.frames_per_chunk)
                self._summary.model, self._summary.session = event.model, event.session_id
                self._sending = asyncio.create_task(self._keep_sending(event.fps))
            case pb.Frames():
                await self._frames(event)

    async def played(self) -> None:
        """What was given has been sent, or cannot be any more."""
        if self._track is not None:
            playing = asyncio.create_task(self._track.played())
            await asyncio.wait({playing}, timeout=_PLAYED_WITHIN_S)
            await cancel_and_wait(playing)

    async def close(self) -> None:
        if self._sending is not None:
            await cancel_and_wait(self._sending)

    async def _frames(self, event: wire.Frames) -> None:
        if (fragment := self._fragments.whole(event)) is None or self._header is None:
            return
        units = self._header.streamed(fragment, event.first_frame, event.frame_count)
        self._summary.frames += len(units)
        if self._track is not None:
            await self._track.put(event.first_frame, units)

    async def _keep_sending(self, fps: int) -> None:
        """One connection after another, as the policy has it. Raises Failure."""
        from doors.http.webrtc.push import PushRefused, pushing
        from doors.http.webrtc.track import UnitTrack

        failures, lost_at = 0, time.monotonic()
        while True:
            self._track = UnitTrack(fps)
            why = "the connection has ended"
            try:
                async with pushing(self._target, self._track, self._options) as connection:
                    await connection.until_begun()
                    if not connection.ended.is_set():
                        self._summary.connections += 1
                        failures, lost_at = 0, time.monotonic()
                        note(f"plays at {self._target.url}")
                        await connection.ended.wait()
                        lost_at = time.monotonic()
            except PushRefused as error:
                why = str(error)
                if error.lasting:
                    raise Failure(why) from None
            delay_s = self._policy.delay(failures, random.random())
            failures += 1
            if time.monotonic() + delay_s - lost_at > self._policy.give_up_after_s:
                raise Failure(f"--to: {why}")
            note(f"again in {delay_s:.2f} s: {why}")
            await asyncio.sleep(delay_s)
