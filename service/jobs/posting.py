"""Posts to addresses that callers name, without being led anywhere else.

A caller could name an address that only this server reaches. So a host's addresses are looked up once, each is judged, and the connection
goes to the one that was judged. Redirects are not followed. Nothing of the answer is read but its status.
"""

from __future__ import annotations

import http.client
import ipaddress
import socket
import ssl
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from urllib.parse import urlsplit

from model_core.errors import HeadraceError

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Address = ipaddress.IPv4Address | ipaddress.IPv6Address

_PORTS = {"https": 443, "http": 80}
# Addresses that lead to others: of IPv4 in IPv6, by a translator or a tunnel.
_LEADING = tuple(ipaddress.ip_network(each) for each in ("64:ff9b::/96", "64:ff9b:1::/48", "2001::/32", "2002::/16"))


class TargetRefused(HeadraceError):
    """This server does not post there."""


@dataclass(frozen=True, slots=True)
class TargetPolicy:
    """Where this server posts: to public addresses by https, and to those of `allowed`, of which the machine's own may be http."""

    allowed: tuple[Network, ...] = ()

    def check_url(self, url: str) -> None:
        """What can be said of an address without asking for its host's. Raises TargetRefused."""
        target = Target.of(url)
        try:
            address = ipaddress.ip_address(target.host)
        except ValueError:
            if target.scheme == "http" and not self.allowed:
                raise TargetRefused("the address must begin with https://") from None
            return
        self.check(address, target.scheme)

    def check(self, address: Address, scheme: str) -> None:
        """Raises TargetRefused."""
        plain = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None else address
        allowed = any(plain in network for network in self.allowed)
        if not allowed and not _public(plain):
            raise TargetRefused("the address is not a public one, and is not among those that are allowed")
        if scheme == "http" and not (allowed and plain.is_loopback):
            raise TargetRefused("the address must begin with https://")


def _public(address: Address) -> bool:
    if address.version == 6 and any(address in network for network in _LEADING):
        return False
    return address.is_global and not address.is_multicast and not address.is_reserved and not address.is_unspecified


@dataclass(frozen=True, slots=True)
class Target:
    """An address, taken apart."""

    scheme: str
    host: str
    port: int
    path: str

    @classmethod
    def of(cls, url: str) -> Target:
        """Raises TargetRefused: it is no http or https URL, or has a name and a password in it."""
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError:
            raise TargetRefused("the address cannot be read") from None
        if parts.scheme not in _PORTS or not parts.hostname or parts.username is not None or not url.isprintable() or " " in url:
            raise TargetRefused("the address must be https://HOST/PATH, without a name and a password")
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        return cls(parts.scheme, parts.hostname, _PORTS[parts.scheme] if port is None else port, path)


class Post:
    """One POST. `send` blocks; `abort`, from another thread, ends it."""

    def __init__(self, url: str, headers: Mapping[str, str], body: bytes, policy: TargetPolicy, timeout_s: float) -> None:
        self._url = url
        self._headers = headers
        self._body = body
        self._policy = policy
        self._timeout_s = timeout_s
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None
        self._aborted = False

    def send(self) -> int:
        """The status of the answer.

        Raises:
            TargetRefused: this server does not post there.
            OSError: nobody answered, or no HTTP.
        """
        target = Target.of(self._url)
        connected = self._connect(target)
        try:
            if target.scheme == "https":
                connected = self._hold(ssl.create_default_context().wrap_socket(connected, server_hostname=target.host))
            connection = http.client.HTTPConnection(target.host, target.port, timeout=self._timeout_s)
            connection.sock = connected
            connection.request("POST", target.path, self._body, dict(self._headers))
            return connection.getresponse().status
        except http.client.HTTPException as error:
            raise OSError(f"answered no HTTP: {type(error).__name__}") from None
        finally:
            connected.close()

    def abort(self) -> None:
        with self._lock:
            self._aborted = True
            if self._socket is not None:
                with suppress(OSError):
                    self._socket.shutdown(socket.SHUT_RDWR)

    def _connect(self, target: Target) -> socket.socket:
        addresses = _addresses(target)
        for address in addresses:  # all of them, or a name with two would be let through every other time
            self._policy.check(address, target.scheme)
        problem: OSError = OSError("the host has no address")
        for address in addresses:
            try:
                return self._hold(socket.create_connection((str(address), target.port), self._timeout_s))
            except OSError as error:
                problem = error
        raise problem

    def _hold(self, connected: socket.socket) -> socket.socket:
        with self._lock:
            self._socket = connected
            if self._aborted:
                connected.close()
                raise TimeoutError("the time is over")
        return connected


def _addresses(target: Target) -> Sequence[Address]:
    found = socket.getaddrinfo(target.host, target.port, type=socket.SOCK_STREAM)
    return [ipaddress.ip_address(str(where[0]).partition("%")[0]) for *_, where in found]
