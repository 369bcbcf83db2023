"""Health, reflection, TLS, and the port for Prometheus."""

import asyncio
import datetime as dt
import ipaddress
from typing import Any

import grpc
import grpc.aio
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from doors.grpc.certificates import FixedTls, TlsIdentity
from doors.grpc.service import SERVICE_NAME
from headrace.client import ClientError, HeadraceClient
from tests.served import answers, serving


class Stage:
    def __init__(self) -> None:
        self.fault: Exception | None = ConnectionError("no replica yet")

    async def probe(self) -> None:
        if self.fault is not None:
            raise self.fault


async def becomes(client: HeadraceClient, service: str, state: str) -> None:
    async with asyncio.timeout(20):
        while await client.health(service) != state:  # noqa: ASYNC110 - polling is what is tested
            await asyncio.sleep(0.01)


async def test_serving_only_while_every_stage_answers() -> None:
    stage = Stage()
    async with serving(probes={"text_encoder": answers, "denoiser": stage.probe, "decoder": answers}) as served:
        await becomes(served.client, "stage/text_encoder", "SERVING")
        assert await served.client.health("stage/denoiser") == "NOT_SERVING"
        assert await served.client.health() == "NOT_SERVING"
        assert await served.client.health(SERVICE_NAME) == "NOT_SERVING"

        stage.fault = None
        await becomes(served.client, "", "SERVING")
        await becomes(served.client, SERVICE_NAME, "SERVING")

        stage.fault = ValueError("the loop ended")
        await becomes(served.client, "", "NOT_SERVING")
        assert await served.client.health("stage/denoiser") == "NOT_SERVING"
        assert await served.client.health("stage/decoder") == "SERVING"
        assert await served.client.health("stage/unheard of") == "SERVICE_UNKNOWN"


async def test_a_stage_that_can_serve_without_a_replica_says_that_there_is_none() -> None:
    async def idle() -> bool:
        return False

    async with serving(probes={"text_encoder": answers, "denoiser": idle}) as served:
        await becomes(served.client, "", "SERVING")
        told = {name: await served.client.health(name) for name in ("stage/denoiser", "replica/denoiser", "replica/text_encoder")}
    assert told == {"stage/denoiser": "SERVING", "replica/denoiser": "NOT_SERVING", "replica/text_encoder": "SERVING"}


async def test_a_probe_that_never_answers_counts_as_a_stage_that_does_not() -> None:
    async def hang() -> None:
        await asyncio.Event().wait()

    async with serving(probes={"decoder": hang}) as served:
        assert not await served.monitor.probe()
        assert await served.client.health() == "NOT_SERVING"


async def test_a_drained_server_says_so_before_it_goes() -> None:
    async with serving() as served, grpc.aio.insecure_channel(served.address) as channel:
        await becomes(served.client, "", "SERVING")
        watch: Any = channel.unary_stream(
            "/grpc.health.v1.Health/Watch", health_pb2.HealthCheckRequest.SerializeToString, health_pb2.HealthCheckResponse.FromString
        )(health_pb2.HealthCheckRequest())
        assert (await watch.read()).status == health_pb2.HealthCheckResponse.SERVING

        # The watch itself never ends; it must not hold up the drain until the grace is over.
        draining = asyncio.create_task(served.server.drain(grace_s=600))

        assert (await watch.read()).status == health_pb2.HealthCheckResponse.NOT_SERVING
        async with asyncio.timeout(30):
            await draining


async def listed(address: str) -> list[str]:
    request = reflection_pb2.ServerReflectionRequest(list_services="")
    async with grpc.aio.insecure_channel(address) as channel:
        async for response in reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo(iter([request])):
            return [service.name for service in response.list_services_response.service]
    return []


async def test_reflection_lists_and_describes_the_service() -> None:
    async with serving() as served, grpc.aio.insecure_channel(served.address) as channel:
        ours = {"grpc.health.v1.Health", "grpc.reflection.v1alpha.ServerReflection", SERVICE_NAME}
        rooms = {"decart.inference.a2v.A2VService", "inference.GRPCInferenceService"}
        assert set(await listed(served.address)) == ours | rooms
        request = reflection_pb2.ServerReflectionRequest(file_containing_symbol=SERVICE_NAME)
        call = reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo(iter([request]))
        async for response in call:
            assert b"VideoService" in response.file_descriptor_response.file_descriptor_proto[0]


async def test_reflection_answers_under_its_present_name_too() -> None:
    async with serving() as served, grpc.aio.insecure_channel(served.address) as channel:
        method: Any = channel.stream_stream(
            "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
            reflection_pb2.ServerReflectionRequest.SerializeToString,
            reflection_pb2.ServerReflectionResponse.FromString,
        )
        async for response in method(iter([reflection_pb2.ServerReflectionRequest(list_services="")])):
            assert SERVICE_NAME in [service.name for service in response.list_services_response.service]


async def test_reflection_can_be_off() -> None:
    async with serving(with_reflection=False) as served:
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await listed(served.address)
        assert error.value.code() is grpc.StatusCode.UNIMPLEMENTED
        await served.still_serves()


@pytest.fixture(scope="module")
def certificate() -> tuple[bytes, bytes]:
    """A self-signed certificate for 127.0.0.1 and its key, PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = dt.datetime.now(dt.UTC)
    made = (
        x509.CertificateBuilder(issuer_name=name, subject_name=name, public_key=key.public_key(), serial_number=1)
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    return made.public_bytes(pem), key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())


async def test_tls_serves_those_who_trust_the_certificate_and_nobody_in_plain_text(certificate: tuple[bytes, bytes]) -> None:
    chain, key = certificate
    async with serving(tls=FixedTls(TlsIdentity(chain, key))) as served:
        async with HeadraceClient(served.address, grpc.ssl_channel_credentials(chain)) as client:
            assert await client.list_models()
        with pytest.raises(ClientError):
            await served.client.list_models(timeout_s=5)
