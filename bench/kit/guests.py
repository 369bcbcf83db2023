"""Callers of every kind: well-behaved, mistaken, rude and poisoned. Each makes one call, and says with which status it ended.

A kind names the statuses that it may end with. Any other is a fault of the server, and so is a call that does not end.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Iterator
from contextlib import aclosing, suppress
from dataclasses import dataclass
from typing import Any

import grpc
import grpc.aio

from bench.kit.leavers import Leaver
from bench.kit.poisoned import WORDS
from bench.models.families import footage
from headrace.client import TENANT_KEY, HeadraceClient
from headrace.errors import ClientError
from headrace.v1 import video_pb2 as pb
from model_core.presets import millrace_64

LEFT = "left"  # the caller went away, and heard no status
HUNG = "hung"
TENANT = "guests"
_SERVICE = "/headrace.v1.VideoService"
_STREAMED = ("Stream", "Live")
_PROMPTS = ("a large yellow star moving right on a navy background", "a small green square rising on a cream background")
_ENDS_WITHIN_S = 120.0
_LONG_ENOUGH_S = 10.0
_MEBIBYTE = 1024 * 1024
_MODEL = millrace_64()

_BUSY = grpc.StatusCode.RESOURCE_EXHAUSTED.name
_FINE = frozenset({"OK", _BUSY})
_WRONG = frozenset({grpc.StatusCode.INVALID_ARGUMENT.name})
# A file that is judged after admission.
_WRONG_LATER = _WRONG | {_BUSY}
# Its own session is lost, after it was tried on another replica.
_LOST = frozenset({_BUSY, grpc.StatusCode.INTERNAL.name, grpc.StatusCode.UNAVAILABLE.name})


@dataclass(frozen=True, slots=True)
class Kind:
    """`share` is relative to the others'."""

    name: str
    call: Callable[[], Awaitable[str]]
    allowed: frozenset[str]
    share: float = 1.0


@dataclass(frozen=True, slots=True)
class Call:
    """How one call ended. `details` is what came with the status."""

    kind: str
    status: str
    allowed: bool
    details: str = ""


class Guests:
    """Makes calls, drawn from `chance`, one at a time for each caller of `one`.

    Args:
        poisoned: share of calls that are.
    """

    def __init__(self, address: str, chance: random.Random, poisoned: float) -> None:
        self._address = address
        self._chance = chance
        self._poisoned = poisoned
        self._leaving = Leaver(address, chance, steps=2, patience_s=2.0)
        self._kinds = (*self._sound(), *self._mistaken(), *self._rude())
        self._png, self._mp4 = footage("image", _MODEL.fps), footage("video", _MODEL.fps)

    async def one(self) -> Call:
        """The next call, to its end."""
        if self._chance.random() < self._poisoned:
            kind = Kind("poisoned", self._poison, _LOST)
        else:
            (kind,) = self._chance.choices(self._kinds, [kind.share for kind in self._kinds])
        details = ""
        try:
            async with asyncio.timeout(_ENDS_WITHIN_S):
                status = await kind.call()
        except TimeoutError:
            status = HUNG
        except ClientError as error:
            status, details = error.code.name, str(error)
        except grpc.aio.AioRpcError as error:
            status, details = error.code().name, error.details() or ""
        return Call(kind.name, status, status in kind.allowed, details)

    # -- sound ------------------------------------------------------------------------------------------------------------------------

    def _sound(self) -> Iterator[Kind]:
        yield Kind("generate", self._generate, _FINE)
        yield Kind("stream", self._stream, _FINE, 2)
        yield Kind("stream from an image", lambda: self._stream(image=self._png), _FINE)
        yield Kind("stream from a video", lambda: self._stream(video=self._mp4), _FINE)
        yield Kind("live, steered and paused", self._live, _FINE, 2)
        yield Kind("list models", self._models, frozenset({"OK"}))
        yield Kind("resume", self._resume, _FINE, 2)
        yield Kind("stalled reader that returns", self._stall, _FINE)

    async def _generate(self) -> str:
        async with self._client() as client:
            await client.generate(self._prompt(), seconds=self._chance.uniform(0.1, 2.0), seed=self._seed())
        return "OK"

    async def _stream(self, image: bytes | None = None, video: bytes | None = None) -> str:
        lead_s, codec = self._chance.choice((0.0, 1.0)), self._chance.choice((pb.CODEC_RAW_RGB, pb.CODEC_JPEG, pb.CODEC_FMP4_H264))
        async with self._client() as client:
            async for _ in client.stream(
                self._prompt(), seconds=self._chance.uniform(1.0, 4.0), seed=self._seed(), codec=codec, max_lead_s=lead_s, image=image,
                video=video,
            ):  # fmt: skip
                pass
        return "OK"

    async def _live(self) -> str:
        async with self._client() as client, client.live(self._prompt(), seconds=4.0, seed=self._seed()) as session:
            steering = asyncio.create_task(self._steer(session))
            try:
                async for _ in session:
                    pass
            finally:
                steering.cancel()
                await asyncio.gather(steering, return_exceptions=True)
        return "OK"

    async def _steer(self, session: Any) -> None:
        for _ in range(self._chance.randint(0, 4)):
            await asyncio.sleep(self._chance.uniform(0.0, 1.0))
            if self._chance.random() < 0.5:
                await session.set_prompt(self._prompt())
            else:
                await session.pause()
                await asyncio.sleep(self._chance.uniform(0.0, 3.0))
                await session.resume()

    async def _models(self) -> str:
        async with self._client() as client:
            await client.list_models()
        return "OK"

    async def _resume(self) -> str:
        """Leave in the middle, and go on in a new call from there."""
        token, next_frame = "", 0
        async with self._client() as client, aclosing(client.stream(self._prompt(), seconds=3.0, max_lead_s=1.0)) as events:
            async for event in events:
                if isinstance(event, pb.Started):
                    token = event.resume_token
                if isinstance(event, pb.Frames):
                    next_frame = event.first_frame + event.frame_count
                    break
        await asyncio.sleep(self._chance.uniform(0.0, 2.0))
        return await self._raw("Stream", pb.StreamRequest(resume=pb.SessionResume(token=token, next_frame=next_frame)).SerializeToString())

    async def _stall(self) -> str:
        async with self._client() as client:
            async for event in client.stream(self._prompt(), seconds=8.0, max_lead_s=1.0):
                if isinstance(event, pb.Frames) and event.chunk_index == 1:
                    await asyncio.sleep(self._chance.uniform(2.0, 20.0))
        return "OK"

    # -- mistaken ---------------------------------------------------------------------------------------------------------------------

    def _mistaken(self) -> Iterator[Kind]:
        yield Kind("garbled bytes", self._garbled, _WRONG_LATER | {"OK", "NOT_FOUND", LEFT}, 2)
        yield Kind("wrong fields", self._wrong_fields, _WRONG, 2)
        yield Kind("huge prompt", self._huge_prompt, _WRONG)
        yield Kind("very many fields", self._many_fields, _WRONG)
        yield Kind("message beyond all limits", self._huge_message, _WRONG_LATER, 0.3)
        yield Kind("refused large image", self._refused_image, _WRONG)
        yield Kind("damaged upload", self._damaged, _WRONG_LATER | {"OK"}, 2)
        yield Kind("upload of noise", self._noise, _WRONG_LATER)
        yield Kind("two tenants", self._two_tenants, _WRONG)
        yield Kind("unknown token", self._unknown_token, frozenset({"NOT_FOUND"}))
        yield Kind("unreachable frame", self._unreachable, _WRONG_LATER)
        yield Kind("bad control", self._bad_control, _WRONG_LATER)
        yield Kind("no such method", lambda: self._raw("Paint", b""), frozenset({"UNIMPLEMENTED"}), 0.3)

    async def _garbled(self) -> str:
        method = self._chance.choice(("Generate", "Stream", "Live", "ListModels"))
        whole = bytearray(self._wrapped(method, pb.VideoSpec(prompt=self._prompt(), seconds=0.5, seed=self._seed())))
        for _ in range(self._chance.randint(1, 8)):
            if whole:
                whole[self._chance.randrange(len(whole))] = self._chance.getrandbits(8)
        with suppress(TimeoutError):  # it may have become a sound request for an hour of video
            async with asyncio.timeout(_LONG_ENOUGH_S):
                return await self._raw(
                    method, self._chance.choice((bytes(whole), bytes(whole[: len(whole) // 2]), self._chance.randbytes(60)))
                )
        return LEFT

    async def _wrong_fields(self) -> str:
        wrong: dict[str, Any] = self._chance.choice((
            {"seconds": -1.0}, {"seconds": float("nan")}, {"seconds": 1e300}, {"width": 65}, {"height": 2**32 - 1}, {"steps": 10_000},
            {"model": "no such model"}, {"prompt": " "}, {"prompt": "a\x00b"}, {"video": b"\0" * 100}, {"image": b"GIF89a"},
        ))  # fmt: skip
        spec = pb.VideoSpec(**{"prompt": self._prompt(), "seconds": 1.0, **wrong})
        method = self._chance.choice(("Generate", "Stream", "Live"))
        return await self._raw(method, self._wrapped(method, spec))

    async def _huge_prompt(self) -> str:
        spec = pb.VideoSpec(prompt="x" * self._chance.choice((4097, _MEBIBYTE, 16 * _MEBIBYTE)), seconds=1.0)
        return await self._raw("Stream", self._wrapped("Stream", spec))

    async def _many_fields(self) -> str:
        resume = pb.SessionResume(token="t", acknowledged=[pb.PromptAck()] * self._chance.choice((5000, 200_000)))  # noqa: S106 - no secret
        return await self._raw("Stream", pb.StreamRequest(resume=resume).SerializeToString())

    async def _huge_message(self) -> str:
        return await self._raw("Generate", bytes(20 * _MEBIBYTE))

    async def _refused_image(self) -> str:
        data = self._png[:100] + self._chance.randbytes(8 * _MEBIBYTE - 100)
        method = self._chance.choice(("Generate", "Stream", "Live"))
        return await self._raw(method, self._wrapped(method, pb.VideoSpec(prompt="", seconds=1.0, image=data)))

    async def _damaged(self) -> str:
        kind = self._chance.choice(("image", "video"))
        data = bytearray(self._png if kind == "image" else self._mp4)
        for _ in range(self._chance.randint(1, 6)):
            data[self._chance.randrange(12, len(data))] = self._chance.getrandbits(8)
        cut = self._chance.randint(12, 2 * len(data))
        return await self._upload(kind, bytes(data[:cut]))

    async def _noise(self) -> str:
        kind = self._chance.choice(("image", "video"))
        head = self._png[:33] if kind == "image" else self._mp4[:24]
        return await self._upload(kind, head + self._chance.randbytes(self._chance.choice((10, 100_000, 7 * _MEBIBYTE))))

    async def _upload(self, kind: str, data: bytes) -> str:
        spec = pb.VideoSpec(prompt=self._prompt(), seconds=1.0, **{kind: data})  # type: ignore[arg-type]  # image or video
        return await self._raw("Stream", self._wrapped("Stream", spec))

    async def _two_tenants(self) -> str:
        request = self._wrapped("Stream", pb.VideoSpec(prompt=self._prompt(), seconds=1.0))
        return await self._raw("Stream", request, ((TENANT_KEY, "one"), (TENANT_KEY, "two")))

    async def _unknown_token(self) -> str:
        token = self._chance.choice(("x", "\u2603" * 30, "A" * 32))
        return await self._raw("Stream", pb.StreamRequest(resume=pb.SessionResume(token=token)).SerializeToString())

    async def _unreachable(self) -> str:
        async with self._client() as client, aclosing(client.stream(self._prompt(), seconds=2.0, max_lead_s=1.0)) as events:
            async for event in events:
                if isinstance(event, pb.Frames):
                    break
                if isinstance(event, pb.Started):
                    token = event.resume_token
        resume = pb.SessionResume(token=token, next_frame=self._chance.choice((10**6, 2**64 - 1)))
        return await self._raw("Stream", pb.StreamRequest(resume=resume).SerializeToString())

    async def _bad_control(self) -> str:
        start = self._wrapped("Live", pb.VideoSpec(prompt=self._prompt(), seconds=20.0))
        return await self._raw("Live", start, (), self._chance.choice((start, b"", b"\xff" * 9)))

    # -- rude, and poisoned -----------------------------------------------------------------------------------------------------------

    def _rude(self) -> Iterator[Kind]:
        for name, call in self._leaving.kinds().items():
            yield Kind(name, lambda call=call: self._leave(call), frozenset({LEFT}), 0.5)  # type: ignore[misc]  # bound at once

    async def _leave(self, call: Callable[[], Awaitable[None]]) -> str:
        await call()
        return LEFT

    async def _poison(self) -> str:
        spec = pb.VideoSpec(prompt=f"{self._chance.choice(WORDS)} {self._seed()}", seconds=2.0)
        method = self._chance.choice(("Generate", "Stream", "Live"))
        return await self._raw(method, self._wrapped(method, spec))

    # -- the wire ---------------------------------------------------------------------------------------------------------------------

    def _client(self) -> HeadraceClient:
        return HeadraceClient(self._address, tenant=TENANT)

    def _prompt(self) -> str:
        return f"{self._chance.choice(_PROMPTS)}, take {self._chance.randrange(50)}"

    def _seed(self) -> int:
        return self._chance.getrandbits(32)

    def _wrapped(self, method: str, spec: pb.VideoSpec) -> bytes:
        match method:
            case "Generate":
                return pb.GenerateRequest(spec=spec).SerializeToString()
            case "Stream":
                return pb.StreamRequest(spec=spec).SerializeToString()
            case "Live":
                return pb.LiveRequest(start=pb.LiveStart(spec=spec)).SerializeToString()
        return b""

    async def _raw(self, method: str, request: bytes, metadata: tuple[tuple[str, str], ...] = ((TENANT_KEY, TENANT),), *more: bytes) -> str:
        """Send bytes, read to the end; further ones follow the first answer of a Live."""
        async with grpc.aio.insecure_channel(self._address, options=(("grpc.use_local_subchannel_pool", 1),)) as channel:
            path = f"{_SERVICE}/{method}"
            if method not in _STREAMED:
                call: Any = channel.unary_unary(path)
                await call(request, metadata=metadata)
            elif method == "Stream":
                call = channel.unary_stream(path)
                async for _ in call(request, metadata=metadata):
                    pass
            else:
                call = channel.stream_stream(path)(metadata=metadata)
                with suppress(asyncio.InvalidStateError):  # it has ended; reading says how
                    await call.write(request)
                    for message in more:
                        await call.read()
                        await call.write(message)
                    await call.done_writing()
                while await call.read() is not grpc.aio.EOF:
                    pass
        return "OK"
