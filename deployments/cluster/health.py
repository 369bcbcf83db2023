"""Asks a front door on this machine whether it serves, whatever its TLS asks for."""

from __future__ import annotations

import http.client
import json
import socket
import ssl
from pathlib import Path
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from deployments.config.addresses import joined
from deployments.config.application import AppConfig, FrontDoorSettings, TlsSettings
from deployments.config.http import HttpSettings

_ASK_TIMEOUT_S = 5.0
_NO_PROXY = ("grpc.enable_http_proxy", 0)


def serving(config: AppConfig) -> bool:
    """What the front door says of itself.

    Over TLS its certificate is trusted as it stands in the file, for whatever name it is. Where the gRPC port asks for client
    certificates, of which this process has none, the HTTP port is asked; without one, all that can be seen is that somebody listens.
    """
    door = config.front_door
    try:
        if door.tls is None:
            return _over_grpc(grpc.insecure_channel(joined(door.host, door.port), options=[_NO_PROXY]))
        if config.identity.certificates is None:
            return _over_grpc(_secured(door, door.tls))
        if door.http.port is not None:
            return _over_http(door.http, door.http.port)
        with socket.create_connection((door.host, door.port), _ASK_TIMEOUT_S):
            return True
    except (OSError, http.client.HTTPException, grpc.RpcError, ValueError):
        return False


def _over_grpc(channel: grpc.Channel) -> bool:
    """What `grpc.health.v1` says."""
    with channel:
        answer = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=_ASK_TIMEOUT_S)
        return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)


def _over_http(settings: HttpSettings, port: int) -> bool:
    """What `/readyz` says."""
    connection: http.client.HTTPConnection
    if settings.tls is None:
        connection = http.client.HTTPConnection(settings.host, port, timeout=_ASK_TIMEOUT_S)
    else:
        context = _trusting(settings.tls.certificate_file)
        connection = http.client.HTTPSConnection(settings.host, port, timeout=_ASK_TIMEOUT_S, context=context)
    try:
        connection.request("GET", "/readyz")
        answer = connection.getresponse()
        return answer.status == http.client.OK and bool(json.loads(answer.read()).get("ready"))
    finally:
        connection.close()


def _secured(door: FrontDoorSettings, tls: TlsSettings) -> grpc.Channel:
    """A channel that takes the certificate in the file for whoever it is of."""
    context = _trusting(tls.certificate_file)
    context.set_alpn_protocols(["h2"])
    with socket.create_connection((door.host, door.port), _ASK_TIMEOUT_S) as bare, context.wrap_socket(bare) as secured:
        certificate: dict[str, Any] = secured.getpeercert() or {}
    names = [str(name).replace("*", "any") for _, name in certificate.get("subjectAltName", ())]
    options = [_NO_PROXY, *((("grpc.ssl_target_name_override", names[0]),) if names else ())]
    trusted = grpc.ssl_channel_credentials(Path(tls.certificate_file).read_bytes())
    return grpc.secure_channel(joined(door.host, door.port), trusted, options=options)


def _trusting(certificate_file: str) -> ssl.SSLContext:
    """Takes the certificates in the file, whoever has signed them."""
    context = ssl.create_default_context(cafile=certificate_file)
    context.check_hostname = False
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    return context
