"""Hosts, ports and URLs as people write them in a configuration: `::1` beside `127.0.0.1`."""

from __future__ import annotations

import ipaddress
from urllib.parse import SplitResult, urlsplit


def joined(host: str, port: int) -> str:
    """`host:port`, with an IPv6 address in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def parted(address: str) -> tuple[str, int]:
    """The inverse of `joined`."""
    host, _, port = address.rpartition(":")
    return host.removeprefix("[").removesuffix("]"), int(port)


def checked_host(host: str) -> str:
    """`host`, if it is a name or an IP address by itself. Raises ValueError."""
    try:
        if ":" in host:
            ipaddress.ip_address(host)
        elif host.split() != [host] or set(host) & set("/[]"):
            raise ValueError
    except ValueError:
        raise ValueError(f"must be a host's name or IP address, without a port and without brackets; got {host!r}") from None
    return host


def url_parts(url: str) -> SplitResult:
    """Raises ValueError where a client would only find out as it connects."""
    try:
        parts = urlsplit(url)
        if parts.port == 0:
            raise ValueError("port 0 is nobody's")
    except ValueError:  # whose sentence may quote a part of a password
        raise ValueError(f"must be a URL with a host and a port from 1 to 65535; got {url!r}") from None
    return parts


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches what listens on `host`."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
