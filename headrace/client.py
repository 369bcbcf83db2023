"""A small typed client of `headrace.v1.VideoService`. Knows the wire and nothing behind it.

ClientError                 any failed call; carries the gRPC code
├── BadRequest              the request breaks limits; names each field          (INVALID_ARGUMENT)
├── Refused                 the key is missing, no good, or not for this         (UNAUTHENTICATED, PERMISSION_DENIED)
├── Busy                    no capacity now; says when to retry, where known     (RESOURCE_EXHAUSTED)
└── Unavailable             no server there, or it cannot serve now              (UNAVAILABLE)

async with HeadraceClient("127.0.0.1:50051") as client:
    async for event in client.stream("a red circle moving left", seconds=2.0):
        ...
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from types import TracebackType
from typing import Any, Self, cast

import grpc
import grpc.aio
from grpc_health.v1 import health_pb2

from headrace.connection import Connecting, Connection
from headrace.errors import BadRequest, Busy, ClientError, Refused, Unavailable, Violation, client_error
from headrace.live import LiveEvent, LiveMethod, LiveSession, Replaceable
from headrace.reconnect import Arrived, Reconnect, asked_again, cancel_asked_for, resuming
from headrace.source import LiveSource
from headrace.target import problem
from headrace.v1 import video_pb2 as pb
from headrace.watch import WatchEvent, watching

StreamEvent = pb.Started | pb.QueuePosition | pb.Frames | pb.QualityChange | pb.Ended

__all__ = [
    "MAX_MESSAGE_BYTES", "TENANT_KEY", "BadRequest", "Busy", "ClientError", "Connecting", "HeadraceClient", "LiveEvent", "LiveSession",
    "LiveSource", "Reconnect", "Refused", "StreamEvent", "Unavailable", "Violation", "WatchEvent", "client_error",
]  # fmt: skip

TENANT_KEY = "x-headrace-tenant"  # metadata of a call
# The largest message that this client takes, and says so to servers, which cut chunks to fit.
MAX_MESSAGE_BYTES = 256 * 1024 * 1024

_KEY = re.compile(r"[!-~]*")
_SERVICE = "/headrace.v1.VideoService"
_HEALTH_CHECK = "/grpc.health.v1.Health/Check"
_CHANNEL_OPTIONS = (
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    # Otherwise all clients in a process share a connection, and its flow control.
    ("grpc.use_local_subchannel_pool", 1),
    # A server that vanished without closing its connections is noticed by an unanswered ping.
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.http2.max_pings_without_data", 0),
    # Where several front doors share an address, another one answers at once.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1_000),
    # Of several addresses each client begins with another one.
    ("grpc.service_config", '{"loadBalancingConfig": [{"pick_first": {"shuffleAddressList": true}}]}'),
)


class HeadraceClient:
    """One connection to a server. Use it from one event loop, and close it, or use it as an async context manager.

    Args:
        address: `host:port`.
        tls: credentials, for instance `grpc.ssl_channel_credentials()`; None connects in plain text.
        tenant: whose share of the server's capacity is used; empty: the default's.
        metadata: sent with each call, for instance a `traceparent`.
        connecting: how long to wait for a server that does not answer.
        key: an API key or a token, sent with each call. It travels in clear without `tls`.

    Raises:
        ValueError: `address` is no address, or `key` cannot be sent.
    """

    def __init__(
        self,
        address: str,
        tls: grpc.ChannelCredentials | None = None,
        tenant: str = "",
        metadata: tuple[tuple[str, str], ...] = (),
        connecting: Connecting = Connecting(),  # noqa: B008 - frozen
        key: str = "",
    ) -> None:
        if (told := problem(address)) is not None:
            raise ValueError(f"address {told}")
        if not _KEY.fullmatch(key):  # of which gRPC would print all
            raise ValueError(f"key must be printable ASCII without spaces; got {len(key)} characters, of which some are not")
        options = (*_CHANNEL_OPTIONS, *connecting.options(address))
        if tls is None:
            channel = grpc.aio.insecure_channel(address, options=options)
        else:
            channel = grpc.aio.secure_channel(address, tls, options=options)
        self._channel = channel
        self._connection = Connection(channel, connecting)
        own = ((TENANT_KEY, tenant), ("authorization", f"Bearer {key}" if key else ""))
        self._metadata = (*((name, value) for name, value in own if value), *metadata)
        self._generate = channel.unary_unary(f"{_SERVICE}/Generate", pb.GenerateRequest.SerializeToString, pb.GenerateResponse.FromString)
        self._stream = channel.unary_stream(f"{_SERVICE}/Stream", pb.StreamRequest.SerializeToString, pb.StreamResponse.FromString)
        self._live: LiveMethod = channel.stream_stream(f"{_SERVICE}/Live", pb.LiveRequest.SerializeToString, pb.LiveResponse.FromString)
        self._replay = channel.unary_stream(f"{_SERVICE}/Replay", pb.ReplayRequest.SerializeToString, pb.ReplayResponse.FromString)
        self._watch = channel.unary_stream(f"{_SERVICE}/Watch", pb.WatchRequest.SerializeToString, pb.WatchResponse.FromString)
        self._list = channel.unary_unary(f"{_SERVICE}/ListModels", pb.ListModelsRequest.SerializeToString, pb.ListModelsResponse.FromString)
        self._health = channel.unary_unary(
            _HEALTH_CHECK, health_pb2.HealthCheckRequest.SerializeToString, health_pb2.HealthCheckResponse.FromString
        )

    async def close(self) -> None:
        """Close the connection; calls still open are cancelled."""
        await self._channel.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self.close()

    async def generate(
        self,
        prompt: str,
        *,
        seconds: float,
        seed: int | None = None,
        model: str = "",
        width: int = 0,
        height: int = 0,
        steps: int = 0,
        guidance: float | None = None,
        negative_prompt: str | None = None,
        image: bytes | None = None,
        video: bytes | None = None,
        enhance: pb.Enhance | None = None,
        timeout_s: float | None = None,
        reconnect: Reconnect | None = None,
    ) -> pb.GenerateResponse:
        """A finished MP4 in one answer. Zeros mean the model's default, and so does None.

        `image` or `video` is the content of a file; see `pb.VideoSpec`, also for `enhance`. With `reconnect`, a server that cannot serve
        now, and says when to try again, is asked again. Each try is a new job.

        Raises:
            ClientError: the call failed; see the tree above.
            ValueError: `seed` is not an unsigned 64-bit number, another number does not fit its field, or there is an image and a video.
        """
        spec = _spec(prompt, seconds, seed, model, width, height, steps, guidance, negative_prompt, image, video, enhance)
        request = pb.GenerateRequest(spec=spec, max_message_bytes=MAX_MESSAGE_BYTES)
        left = _countdown(timeout_s)

        async def attempt() -> pb.GenerateResponse:
            try:
                return await self._generate(request, timeout=await self._connection.ready(left()), metadata=self._metadata)
            except grpc.aio.AioRpcError as error:
                raise client_error(error) from error

        return await asked_again(attempt, reconnect)

    async def stream(
        self,
        prompt: str,
        *,
        seconds: float,
        seed: int | None = None,
        model: str = "",
        width: int = 0,
        height: int = 0,
        steps: int = 0,
        guidance: float | None = None,
        negative_prompt: str | None = None,
        image: bytes | None = None,
        video: bytes | None = None,
        enhance: pb.Enhance | None = None,
        codec: pb.Codec = pb.CODEC_RAW_RGB,
        max_lead_s: float = 0.0,
        timeout_s: float | None = None,
        reconnect: Reconnect | None = None,
    ) -> AsyncGenerator[StreamEvent, None]:
        """Frames as they are made. Closing the generator cancels the call, which stops the work behind it.

        With `reconnect`, a connection that breaks is replaced and the frames go on where they stopped; only a gap in time is seen. A
        server that cannot serve now, and says when to try again, is asked again.

        Raises:
            ClientError: the call failed; see the tree above.
            ValueError: as in `generate`.
        """
        spec = _spec(prompt, seconds, seed, model, width, height, steps, guidance, negative_prompt, image, video, enhance)
        left = _countdown(timeout_s)

        async def attempt(resume: pb.SessionResume | None) -> AsyncGenerator[StreamEvent, None]:
            if resume is None or not resume.token:
                request = pb.StreamRequest(spec=spec, codec=codec, max_lead_seconds=max_lead_s, max_message_bytes=MAX_MESSAGE_BYTES)
            else:
                request = pb.StreamRequest(resume=resume, max_lead_seconds=max_lead_s, max_message_bytes=MAX_MESSAGE_BYTES)
            call = self._stream(request, timeout=await self._connection.ready(left()), metadata=self._metadata)
            async with aclosing(_events(call)) as events:
                async for event in events:
                    yield cast("StreamEvent", event)

        async with aclosing(resuming(attempt, reconnect, Arrived())) as events:
            async for event in events:
                yield event

    def live(
        self,
        prompt: str,
        *,
        seconds: float = 0.0,
        seed: int | None = None,
        model: str = "",
        width: int = 0,
        height: int = 0,
        steps: int = 0,
        guidance: float | None = None,
        negative_prompt: str | None = None,
        image: bytes | None = None,
        video: bytes | None = None,
        enhance: pb.Enhance | None = None,
        codec: pb.Codec = pb.CODEC_RAW_RGB,
        max_lead_s: float = 0.0,
        reconnect: Reconnect | None = None,
        replaceable: Replaceable | None = None,
        source: LiveSource | None = None,
    ) -> LiveSession:
        """A steerable session; enter it to start it. `seconds` 0 plays until stopped, `max_lead_s` 0 is the server's default.

        `reconnect` as in `stream`; controls given meanwhile wait. `replaceable` is asked with each change of prompt and tells the first
        frame that can still be replaced on the screen, None for none; `PlayoutClock.replaceable` knows. Frames from a PromptAck's
        `first_frame` on that have arrived before it are then superseded, and come again.

        With `source`, its frames are restyled, and the session ends with it. Its frames are sent while you iterate.

        Raises:
            ValueError: as in `generate`.
        """
        spec = _spec(prompt, seconds, seed, model, width, height, steps, guidance, negative_prompt, image, video, enhance)
        if source is not None:
            spec.strength = source.strength
        start = pb.LiveStart(spec=spec, codec=codec, max_lead_seconds=max_lead_s, max_message_bytes=MAX_MESSAGE_BYTES)
        return LiveSession(self._live, self._connection, start, self._metadata, reconnect, replaceable, source)

    async def replay(
        self,
        token: str,
        *,
        seconds: float = 5.0,
        slow: int = 2,
        until_frame: int = 0,
        codec: pb.Codec = pb.CODEC_RAW_RGB,
        max_lead_s: float = 0.0,
        timeout_s: float | None = None,
    ) -> AsyncGenerator[StreamEvent, None]:
        """The last seconds of a session again, `slow` times slower: 2 or 4. `token` is `Started.resume_token`; see `pb.ReplayRequest`.

        Raises:
            ClientError: the call failed; see the tree above.
        """
        request = pb.ReplayRequest(
            token=token, seconds=seconds, slow=slow, codec=codec, until_frame=until_frame, max_lead_seconds=max_lead_s,
            max_message_bytes=MAX_MESSAGE_BYTES,
        )  # fmt: skip
        call = self._replay(request, timeout=await self._connection.ready(_countdown(timeout_s)()), metadata=self._metadata)
        async with aclosing(_events(call)) as events:
            async for event in events:
                yield cast("StreamEvent", event)

    async def watch(
        self, token: str, *, timeout_s: float | None = None, reconnect: Reconnect | None = None
    ) -> AsyncGenerator[WatchEvent, None]:
        """A session that somebody else runs, from its newest chunk on: Started, then what its own viewer is sent, until it ends.

        Frames have the codec of the session. Whoever reads slowly is sent less, and a Skipped says so. `token` is `Started.watch_token`.
        With `reconnect`, a connection that breaks is replaced, and so is one to a server that shuts down.

        Raises:
            ClientError: the call failed; see the tree above. NOT_FOUND: no session that runs has the token.
        """
        left = _countdown(timeout_s)
        request = pb.WatchRequest(token=token, max_message_bytes=MAX_MESSAGE_BYTES)

        async def attempt() -> AsyncGenerator[WatchEvent, None]:
            call = self._watch(request, timeout=await self._connection.ready(left()), metadata=self._metadata)
            async with aclosing(_events(call)) as events:
                async for event in events:
                    yield cast("WatchEvent", event)

        async with aclosing(watching(attempt, reconnect)) as events:
            async for event in events:
                yield event

    async def list_models(self, timeout_s: float | None = 10.0) -> list[pb.Model]:
        """What is served, with the limits that requests are checked against.

        Raises:
            ClientError: the call failed.
        """
        try:
            left_s = await self._connection.ready(timeout_s)
            return list((await self._list(pb.ListModelsRequest(), timeout=left_s, metadata=self._metadata)).models)
        except grpc.aio.AioRpcError as error:
            raise client_error(error) from error

    async def health(self, service: str = "", timeout_s: float | None = 10.0) -> str:
        """`SERVING`, `NOT_SERVING`, or `SERVICE_UNKNOWN`; the empty service is the whole server.

        Raises:
            ClientError: the call failed.
        """
        try:
            left_s = await self._connection.ready(timeout_s)
            response = await self._health(health_pb2.HealthCheckRequest(service=service), timeout=left_s)
        except grpc.aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.NOT_FOUND:
                return "SERVICE_UNKNOWN"
            raise client_error(error) from error
        return str(health_pb2.HealthCheckResponse.ServingStatus.Name(response.status))


async def _events(call: grpc.aio.UnaryStreamCall[Any, Any]) -> AsyncGenerator[object, None]:
    """What the responses of `call` hold. It is cancelled at the end. Raises ClientError."""
    try:
        async for response in call:
            if (name := response.WhichOneof("event")) is not None:
                yield getattr(response, name)
    except grpc.aio.AioRpcError as error:
        raise client_error(error) from error
    except asyncio.CancelledError:
        if cancel_asked_for():
            raise
        raise ClientError(grpc.StatusCode.CANCELLED, "the server cancelled the call") from None
    finally:
        call.cancel()


def _countdown(seconds: float | None) -> Callable[[], float | None]:
    """Tells what is left of `seconds`."""
    if seconds is None:
        return lambda: None
    clock = asyncio.get_running_loop().time
    ends_at = clock() + seconds
    return lambda: max(0.0, ends_at - clock())


def _spec(
    prompt: str,
    seconds: float,
    seed: int | None,
    model: str,
    width: int,
    height: int,
    steps: int,
    guidance: float | None,
    negative_prompt: str | None,
    image: bytes | None,
    video: bytes | None,
    enhance: pb.Enhance | None,
) -> pb.VideoSpec:
    if image is not None and video is not None:
        raise ValueError("a session is given an image or a video, not both")
    return pb.VideoSpec(
        model=model, prompt=prompt, seconds=seconds, seed=seed, width=width, height=height, steps=steps, guidance=guidance,
        negative_prompt=negative_prompt, image=image, video=video, enhance=enhance,
    )  # fmt: skip
