"""The settings of WebRTC."""

from __future__ import annotations

import importlib.util
import ipaddress
import re
from typing import Annotated, Self

from pydantic import Field, field_validator, model_validator

from deployments.config.addresses import is_loopback
from deployments.config.settings import Settings
from doors.http.webrtc.options import WebRtcOptions

_PACKAGE = "aiortc"
_LOOPBACK = "127.0.0.1"
_STUN = re.compile(r"stun:[A-Za-z0-9.-]{1,253}(:[0-9]{1,5})?")


class WebRtcSettings(Settings):
    """WHEP and WHIP at the HTTP door of each front-door replica.

    Attributes:
        enabled: whether there is any. It needs the package `aiortc`.
        max_peers: viewers and publishers that are connected at once, for each replica.
        hosts: IP addresses of the machine to take packets on; empty: all of them, or loopback alone where the HTTP door has no other.
        ports: the first and the last UDP port to take; null for any. A peer takes one on each address.
        public_host: an IP address to name to peers in place of `hosts`, where a router hands its packets on to the same port.
        stun: `stun:HOST:PORT`, asked how the outside sees the machine; empty: nobody is.
        connect_seconds: how long a peer may take to connect.
        idle_seconds: how long a publisher may send no picture.
    """

    enabled: bool = False
    max_peers: Annotated[int, Field(ge=1, le=10_000)] = 32
    hosts: tuple[str, ...] = ()
    ports: tuple[Annotated[int, Field(ge=1024, le=65535)], Annotated[int, Field(ge=1024, le=65535)]] | None = None
    public_host: str = ""
    stun: str = ""
    connect_seconds: Annotated[float, Field(gt=0, le=300)] = 20.0
    idle_seconds: Annotated[float, Field(gt=0, le=3600)] = 15.0

    @field_validator("hosts")
    @classmethod
    def _addresses(cls, hosts: tuple[str, ...]) -> tuple[str, ...]:
        for host in hosts:
            _checked_address(host)
        return hosts

    @field_validator("public_host")
    @classmethod
    def _address(cls, host: str) -> str:
        if host:
            _checked_address(host)
        return host

    @field_validator("stun")
    @classmethod
    def _names_a_server(cls, url: str) -> str:
        if url and not _STUN.fullmatch(url):
            raise ValueError(f"must be stun:HOST or stun:HOST:PORT; got {url!r}")
        return url

    @model_validator(mode="after")
    def _can_be_had(self) -> Self:
        if self.ports is not None and self.ports[0] > self.ports[1]:
            raise ValueError(f"ports must be a first and a last one; got {self.ports[0]}, {self.ports[1]}")
        if self.enabled:
            check_package(_PACKAGE)
        return self

    def options(self, http_host: str) -> WebRtcOptions:
        """For a front door whose HTTP is on `http_host`."""
        hosts = self.hosts or ((_LOOPBACK,) if is_loopback(http_host) else ())
        return WebRtcOptions(
            max_peers=self.max_peers, hosts=hosts, ports=self.ports, public_host=self.public_host, stun=self.stun,
            connect_s=self.connect_seconds, idle_s=self.idle_seconds,
        )  # fmt: skip


def _checked_address(host: str) -> None:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        raise ValueError(f"must be IP addresses; got {host[:64]!r}") from None


def check_package(name: str) -> None:
    """Raises ValueError: it is not installed."""
    if importlib.util.find_spec(name) is None:
        raise ValueError(f"enabled must be false where the package {name} is not installed: pip install {name}; got true")
