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
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from urllib.parse import urlsplit

from model_core.errors import HeadraceError

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Address = ipaddress.IPv4Address | ipaddress.IPv6Address

_PORTS = {"https": 443, "http": 80}
_MOST_TRIED = 4  # addresses of a host; whoever owns a name can give it thousands
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
    """One POST. `send` blocks; `abort`, from another thread, ends it, but for the look-up of the host, which the system's resolver ends.

    Args:
        url: as a caller named it.
        policy: where this server posts.
        timeout_s: for the host's addresses and all connections to them together, and then for each time that the host is silent.
        now: seconds, of a clock that is never set back.
    """

    def __init__(
        self,
        url: str,
        headers: Mapping[str, str],
        body: bytes,
        policy: TargetPolicy,
        timeout_s: float,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._url = url
        self._headers = headers
        self._body = body
        self._policy = policy
        self._timeout_s = timeout_s
        self._now = now
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
        connected = self._connect(target, self._now() + self._timeout_s)
        try:
            if target.scheme == "https":
                connected = self._secure(connected, target.host)
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
                    # As a plain socket: the method of one with TLS takes its state away from the thread that works with it.
                    socket.socket.shutdown(self._socket, socket.SHUT_RDWR)

    def _connect(self, target: Target, until: float) -> socket.socket:
        addresses = _addresses(target)
        for address in addresses:  # all of them, or a name with two would be let through every other time
            self._policy.check(address, target.scheme)
        problem: OSError = OSError("the host has no address")
        tried = addresses[:_MOST_TRIED]
        for number, address in enumerate(tried):
            # A share of what is left for each, so that one that does not answer leaves time for the next.
            share_s = (until - self._now()) / (len(tried) - number)
            if share_s <= 0:
                raise TimeoutError("the time is over")
            try:
                made = self._reach(address, target.port, share_s)
            except _Aborted:
                raise
            except OSError as error:
                problem = error
            else:
                made.settimeout(self._timeout_s)
                return made
        raise problem

    def _reach(self, address: Address, port: int, within_s: float) -> socket.socket:
        made = socket.socket(socket.AF_INET if address.version == 4 else socket.AF_INET6, socket.SOCK_STREAM)
        try:
            self._hold(made)  # before it is connected, so that `abort` ends that, too
            made.settimeout(within_s)
            made.connect((str(address), port))
            self._go_on()  # where it was aborted a moment before it began to connect
        except BaseException:
            made.close()
            raise
        return made

    def _secure(self, connected: socket.socket, host: str) -> ssl.SSLSocket:
        """Takes `connected` over. The handshake comes after it is held: it is the host that says how long that takes."""
        secured = ssl.create_default_context().wrap_socket(connected, server_hostname=host, do_handshake_on_connect=False)
        try:
            self._hold(secured)
            secured.do_handshake()
        except BaseException:
            secured.close()
            raise
        return secured

    def _hold(self, held: socket.socket) -> None:
        """What `abort` shuts from now on. Raises _Aborted."""
        with self._lock:
            self._socket = held
        self._go_on()

    def _go_on(self) -> None:
        with self._lock:
            if self._aborted:
                raise _Aborted("the time is over")


class _Aborted(TimeoutError):
    """No other address is tried then."""


def _addresses(target: Target) -> Sequence[Address]:
    found = socket.getaddrinfo(target.host, target.port, type=socket.SOCK_STREAM)
    return [ipaddress.ip_address(str(where[0]).partition("%")[0]) for *_, where in found]
