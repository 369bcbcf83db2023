"""Which peers are on this machine, which are proxies whose word counts, and what a caller says of its tenant. Pure."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence

from model_core.errors import FieldViolation, InvalidRequest
from service.identity.principal import Caller

TENANT_HEADER = "x-headrace-tenant"
TENANT_NAME = r"[A-Za-z0-9._-]{1,64}"

_TENANT = re.compile(TENANT_NAME)

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def network(text: str) -> Network:
    """An address, or a network in CIDR notation. Raises ValueError: it is neither, or has bits set beyond its prefix."""
    return ipaddress.ip_network(text)


class Proxies:
    """Those that the configuration names, by address or network."""

    def __init__(self, named: Sequence[str] = ()) -> None:
        self._networks = tuple(network(each) for each in named)

    def __contains__(self, address: str) -> bool:
        parsed = _parsed(address)
        return parsed is not None and any(parsed.version == each.version and parsed in each for each in self._networks)


def is_local(address: str) -> bool:
    """Whether a peer of this address is on this machine. Empty is a Unix socket's."""
    if not address:
        return True
    parsed = _parsed(address)
    return parsed is not None and parsed.is_loopback


def is_tenant(name: object) -> bool:
    """Whether a tenant may be called so."""
    return isinstance(name, str) and _TENANT.fullmatch(name) is not None


def claimed(caller: Caller) -> str:
    """The tenant that a caller names. Raises InvalidRequest: none can be called so."""
    if not is_tenant(caller.claimed_tenant):
        sentence = f"must be 1 to 64 letters, digits, dots, underscores and hyphens; got {caller.claimed_tenant[:64]!a}"
        raise InvalidRequest((FieldViolation(TENANT_HEADER, sentence),))
    return caller.claimed_tenant


def _parsed(address: str) -> Address | None:
    """A socket for both families writes IPv4 addresses as IPv6 ones; a link-local address may name its interface."""
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return None
    mapped = parsed.ipv4_mapped if isinstance(parsed, ipaddress.IPv6Address) else None
    return mapped or parsed
