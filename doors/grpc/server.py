"""The gRPC server: service, health, reflection, TLS, and an orderly end."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import grpc
import grpc.aio
from grpc_health.v1 import health, health_pb2_grpc
from grpc_reflection.v1alpha import reflection, reflection_pb2

from doors.grpc.certificates import TlsSource, server_credentials
from doors.grpc.health import HealthReporter
from doors.grpc.service import SERVICE_NAME, VideoService

MAX_METADATA_BYTES = 64 * 1024
_OPTIONS = (
    # Front-door replicas on one node share a port; the kernel spreads connections over them.
    ("grpc.so_reuseport", 1),
    # A client that vanished without a word is noticed, its call cancelled and its slot freed.
    ("grpc.keepalive_time_ms", 15_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    # Clients ping this server in the same way, also while they are paused or have no call. gRPC would end the connection of a client that
    # pings often, with a status that some clients report as "busy". An answer costs less than any call, and gRPC bounds how many wait.
    ("grpc.http2.max_ping_strikes", 0),
    # Gateways add tokens and cookies. By default gRPC refuses some calls with more than 8 KiB, at random, as "busy".
    ("grpc.max_metadata_size", MAX_METADATA_BYTES),
)
# gRPC itself refuses larger messages, unread, with the status that means "busy". Smaller ones above our limit get a sentence of ours.
UNREAD_BYTES = 64 * 1024 * 1024


class GrpcRoom(Protocol):
    """Another contract on the same port."""

    @property
    def service_name(self) -> str:
        """As the contract has it, with its package."""
        ...

    def handler(self) -> grpc.GenericRpcHandler: ...

    async def aclose(self) -> None:
        """End what outlives its calls. The server takes no more of them."""
        ...


def _reflection_v1(names: tuple[str, ...]) -> grpc.GenericRpcHandler:
    """Reflection under its present name, which the library does not serve; nothing else of it has changed since v1alpha."""
    answer = grpc.stream_stream_rpc_method_handler(
        reflection.aio.ReflectionServicer(names).ServerReflectionInfo,
        reflection_pb2.ServerReflectionRequest.FromString,
        reflection_pb2.ServerReflectionResponse.SerializeToString,
    )
    return grpc.method_handlers_generic_handler("grpc.reflection.v1.ServerReflection", {"ServerReflectionInfo": answer})


class GrpcServer:
    """The gRPC door. It listens once.

    Args:
        service: the RPCs.
        health_reporter: answers health checks.
        address: `host:port`; port 0 takes a free one.
        tls: serve TLS with its certificates; None serves plain text.
        with_reflection: let clients list and describe the service.
        rooms: further contracts.
    """

    def __init__(
        self,
        service: VideoService,
        health_reporter: HealthReporter,
        address: str = "127.0.0.1:0",
        tls: TlsSource | None = None,
        *,
        with_reflection: bool = True,
        rooms: Sequence[GrpcRoom] = (),
    ) -> None:
        self._service = service
        self._rooms = rooms
        self._health = health_reporter
        self._address = address
        self._tls = tls
        self._with_reflection = with_reflection
        self._server: grpc.aio.Server | None = None

    async def start(self) -> int:
        """Listen. Returns the port.

        Raises:
            RuntimeError: the address cannot be bound, or the server was started before.
        """
        if self._server is not None:
            raise RuntimeError("a GrpcServer can be started once")
        largest = max(UNREAD_BYTES, 2 * self._service.limits.max_request_bytes)
        server = grpc.aio.server(options=(*_OPTIONS, ("grpc.max_receive_message_length", largest)))
        self._server = server
        server.add_generic_rpc_handlers((self._service.handler(), *(room.handler() for room in self._rooms)))
        health_pb2_grpc.add_HealthServicer_to_server(self._health.servicer, server)
        if self._with_reflection:
            names = (SERVICE_NAME, *(room.service_name for room in self._rooms), health.SERVICE_NAME, reflection.SERVICE_NAME)
            reflection.enable_server_reflection(names, server)
            server.add_generic_rpc_handlers((_reflection_v1(names),))
        if self._tls is None:
            port = server.add_insecure_port(self._address)
        else:
            port = server.add_secure_port(self._address, server_credentials(self._tls))
        await self._health.begin()
        await server.start()
        return port

    async def stop_serving(self) -> None:
        """See `Door`. Health checks say NOT_SERVING."""
        await self._health.stop_serving()

    async def stop(self, grace_s: float) -> None:
        """See `Door`. One at a time: two overlapping stops of a grpc.aio server crash the process.

        Raises:
            RuntimeError: the server was never started.
        """
        if self._server is None:
            raise RuntimeError("the GrpcServer was not started")
        await self._server.stop(grace_s)
        for room in self._rooms:
            await room.aclose()
