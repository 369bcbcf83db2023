"""Addresses of servers, in the forms that gRPC takes. Pure."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator

MOST_PORT = 65535
_NAMED = ("dns", "ipv4", "ipv6")  # what may stand before the address itself
_UNIX = ("unix", "unix-abstract")
_NO_RESOLVER = ("http", "https")  # a habit of people; gRPC would look for a host of that name


def problem(address: str) -> str | None:
    """What is wrong with `address`, a sentence without a subject; None for nothing.

    gRPC takes a port modulo 65,536, and makes one up where there is none, so that a call goes to some other server.
    """
    scheme, _, rest = address.partition(":")
    if scheme in _UNIX or (rest.startswith("//") and scheme not in (*_NAMED, *_NO_RESOLVER)):  # what only gRPC knows has no port to check
        return None
    if all(_dialled(host, port) for host, port in _parts(address)):
        return None
    return f"must be HOST:PORT, an IPv6 address in brackets, and a port from 1 to {MOST_PORT}; got {address[:256]!a}"


def is_loopback(address: str) -> bool:
    """Whether `address` is this machine."""
    if address.partition(":")[0] in _UNIX:
        return True
    return all(host == "localhost" or _loopback_ip(host) for host, _ in _parts(address))


def _parts(address: str) -> Iterator[tuple[str, str]]:
    """Host and port of each server in `address`; a port that is missing is empty."""
    scheme, colon, rest = address.partition(":")
    if colon and scheme in _NAMED:
        address = rest.rpartition("/")[2]  # what stands before is the name server to ask
    for part in address.split(","):
        if part.startswith("["):
            host, _, port = part[1:].partition("]")
            yield host, port.removeprefix(":") if port.startswith(":") else ""
        elif part.count(":") == 1:
            host, _, port = part.partition(":")
            yield host, port
        else:
            yield part, ""


def _dialled(host: str, port: str) -> bool:
    if not host or host.split() != [host]:
        return False
    return port.isascii() and port.isdecimal() and len(port) <= len(str(MOST_PORT)) and 0 < int(port) <= MOST_PORT


def _loopback_ip(host: str) -> bool:
    try:
        ip = ipaddress.ip_address(host)
    except ValueError:
        return False
    return ip.is_loopback or ip.is_unspecified  # no network carries `0.0.0.0` and `::`, where a server listens everywhere
