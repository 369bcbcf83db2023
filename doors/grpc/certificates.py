"""TLS of the gRPC door: what it shows to callers, what it asks of them, and how it follows files that are replaced."""

from __future__ import annotations

import logging
import ssl
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, cast

import grpc

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class TlsIdentity:
    """PEM: the certificate chain, its private key, and the authorities of client certificates; without any no client is asked for one."""

    certificate_chain: bytes
    private_key: bytes
    client_ca: bytes = b""

    def __repr__(self) -> str:
        return f"TlsIdentity(client_ca={bool(self.client_ca)})"


class TlsSource(Protocol):
    """Where a server has its certificates from."""

    @property
    def asks_clients(self) -> bool:
        """Whether callers must have a certificate. It does not change."""
        ...

    def current(self) -> TlsIdentity: ...

    def renewed(self) -> TlsIdentity | None:
        """What has taken the place of the current one; None for nothing. Called before each connection, in a thread of gRPC's."""
        ...


class FixedTls:
    """One identity for good."""

    def __init__(self, identity: TlsIdentity) -> None:
        self._identity = identity

    @property
    def asks_clients(self) -> bool:
        return bool(self._identity.client_ca)

    def current(self) -> TlsIdentity:
        return self._identity

    def renewed(self) -> None:
        return None


class TlsFiles:
    """Files that may be replaced while the server runs. New ones count for connections from then on, once they belong together.

    Args:
        certificate, key: PEM.
        client_ca: PEM; None where no client is asked for a certificate.

    Raises:
        OSError, ssl.SSLError: the files cannot be read, or do not belong together.
    """

    def __init__(self, certificate: Path, key: Path, client_ca: Path | None = None) -> None:
        self._certificate, self._key, self._client_ca = certificate, key, client_ca
        self._lock = threading.Lock()  # gRPC accepts connections in several threads
        self._stamp, self._identity = self._read()

    @property
    def asks_clients(self) -> bool:
        return self._client_ca is not None

    def current(self) -> TlsIdentity:
        return self._identity

    def renewed(self) -> TlsIdentity | None:
        """See `TlsSource`. Files that cannot be read, or do not belong together yet, change nothing."""
        with self._lock:
            try:
                if self._now() == self._stamp:
                    return None
                self._stamp, self._identity = self._read()
            except (OSError, ssl.SSLError) as error:
                log.warning("the certificate in %s is not taken: %s", self._certificate, error)
                return None
        log.info("the certificate in %s was read again", self._certificate)
        return self._identity

    def _read(self) -> tuple[tuple[object, ...], TlsIdentity]:
        before = self._now()
        checked = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        checked.load_cert_chain(self._certificate, self._key)
        client_ca = b""
        if self._client_ca is not None:
            checked.load_verify_locations(self._client_ca)
            client_ca = self._client_ca.read_bytes()
        identity = TlsIdentity(self._certificate.read_bytes(), self._key.read_bytes(), client_ca)
        if self._now() != before:
            raise OSError("the files change just now")
        return before, identity

    def _now(self) -> tuple[object, ...]:
        """What changes when a file is replaced. Mounted secrets are replaced by a link to another folder."""
        paths = (self._certificate, self._key, *([] if self._client_ca is None else [self._client_ca]))
        return tuple((found.st_ino, found.st_mtime_ns, found.st_size) for found in (path.stat() for path in paths))


def server_credentials(source: TlsSource) -> grpc.ServerCredentials:
    """For `add_secure_port`. Where clients are asked for a certificate, nobody without a good one gets through the handshake."""

    def renewed() -> grpc.ServerCertificateConfiguration | None:
        identity = source.renewed()
        return None if identity is None else _configuration(identity)

    # None says that nothing has changed; only the documentation knows it, and not the types.
    fetch = cast("Callable[[], grpc.ServerCertificateConfiguration]", renewed)
    return grpc.dynamic_ssl_server_credentials(_configuration(source.current()), fetch, require_client_authentication=source.asks_clients)


def _configuration(identity: TlsIdentity) -> grpc.ServerCertificateConfiguration:
    pair = (identity.private_key, identity.certificate_chain)
    return grpc.ssl_server_certificate_configuration([pair], identity.client_ca or None)
