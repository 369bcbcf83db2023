"""Callers that leave in the middle of a call, one method for each way to leave."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import grpc.aio

from headrace.client import HeadraceClient
from headrace.errors import ClientError
from headrace.v1 import video_pb2 as pb

PROMPT = "a large yellow star moving right on a navy background"
_SERVICE = "/headrace.v1.VideoService"


class Leaver:
    """Calls that do not end well. Every one takes the server's address and a random source, and returns when it has left."""

    def __init__(self, address: str, chance: random.Random, steps: int, patience_s: float) -> None:
        self._address = address
        self._chance = chance
        self._steps = steps
        self._patience_s = patience_s

    def kinds(self) -> dict[str, Callable[[], Awaitable[None]]]:
        return {
            "generate cancelled": self.generate,
            "generate out of time": self.generate_deadline,
            "stream cancelled": self.stream,
            "stream out of time": self.stream_deadline,
            "stream, connection closed": self.stream_closed,
            "live cancelled": self.live,
            "live steered, cancelled": self.live_steered,
            "live half-closed": self.live_half_closed,
            "live, connection closed": self.live_closed,
        }

    def _spec(self, seconds: float = 600.0) -> pb.VideoSpec:
        return pb.VideoSpec(prompt=PROMPT, seconds=seconds, steps=self._steps, seed=self._chance.getrandbits(32))

    def _moment(self) -> float:
        """When to leave: often at once, seldom after a second."""
        return self._chance.choice((0.0, self._chance.uniform(0.0, 0.05), self._chance.uniform(0.0, self._patience_s)))

    async def generate(self) -> None:
        async with HeadraceClient(self._address) as client:
            task = asyncio.create_task(client.generate(PROMPT, seconds=8.0, steps=self._steps))
            await asyncio.sleep(self._moment())
            task.cancel()
            await asyncio.wait([task])
            if not task.cancelled():
                task.exception()

    async def generate_deadline(self) -> None:
        async with HeadraceClient(self._address) as client:
            with suppress(ClientError):
                await client.generate(PROMPT, seconds=8.0, steps=self._steps, timeout_s=0.01 + self._moment())

    async def stream(self) -> None:
        async with HeadraceClient(self._address) as client:
            await self._read_for(client.stream(PROMPT, seconds=60.0, steps=self._steps, codec=pb.CODEC_RAW_RGB))

    async def stream_deadline(self) -> None:
        async with HeadraceClient(self._address) as client:
            with suppress(ClientError):
                async for _ in client.stream(PROMPT, seconds=60.0, steps=self._steps, timeout_s=0.01 + self._moment()):
                    pass

    async def stream_closed(self) -> None:
        channel = grpc.aio.insecure_channel(self._address)
        call = channel.unary_stream(f"{_SERVICE}/Stream", pb.StreamRequest.SerializeToString, pb.StreamResponse.FromString)(
            pb.StreamRequest(spec=self._spec(60.0), codec=pb.CODEC_RAW_RGB)
        )
        await self._read_for(call)
        await channel.close()

    async def live(self) -> None:
        await self._live(steer=False)

    async def live_steered(self) -> None:
        await self._live(steer=True)

    async def live_half_closed(self) -> None:
        """No more controls: the session plays on, until its caller leaves."""
        channel = grpc.aio.insecure_channel(self._address)
        call = await self._live_call(channel, seconds=0.0)
        await asyncio.sleep(self._moment())
        with suppress(grpc.aio.AioRpcError):
            await call.done_writing()
        await self._read_for(call)
        await channel.close()

    async def live_closed(self) -> None:
        channel = grpc.aio.insecure_channel(self._address)
        await self._read_for(await self._live_call(channel, seconds=60.0))
        await channel.close()

    async def slow_reader(self, gone: asyncio.Event) -> None:
        """Take the first frames and then nothing, until `gone`."""
        async with HeadraceClient(self._address) as client:
            events = client.stream(PROMPT, seconds=600.0, steps=self._steps, codec=pb.CODEC_RAW_RGB)
            with suppress(ClientError):
                async for event in events:
                    if isinstance(event, pb.Frames):
                        break
                await gone.wait()
            await events.aclose()

    async def _live(self, *, steer: bool) -> None:
        async with HeadraceClient(self._address) as client, client.live(PROMPT, steps=self._steps, codec=pb.CODEC_RAW_RGB) as session:
            reading = asyncio.create_task(self._read_for(aiter(session)))
            with suppress(ClientError):
                if steer:
                    for control in self._chance.sample([lambda: session.set_prompt(PROMPT + "!"), session.pause, session.resume], k=3):
                        await control()
                        await asyncio.sleep(self._moment() / 3)
            await asyncio.wait([reading])

    async def _live_call(self, channel: grpc.aio.Channel, seconds: float) -> Any:
        call: Any = channel.stream_stream(f"{_SERVICE}/Live", pb.LiveRequest.SerializeToString, pb.LiveResponse.FromString)()
        with suppress(grpc.aio.AioRpcError):
            await call.write(pb.LiveRequest(start=pb.LiveStart(spec=self._spec(seconds), codec=pb.CODEC_RAW_RGB)))
        return call

    async def _read_for(self, events: Any) -> None:
        """Read until it is time to leave."""
        with suppress(TimeoutError, ClientError, grpc.aio.AioRpcError):
            async with asyncio.timeout(self._moment()):
                async for _ in events:
                    pass
