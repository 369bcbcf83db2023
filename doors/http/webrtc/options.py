"""What bounds WebRTC, and where its packets go."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class WebRtcOptions:
    """Of one front door.

    Attributes:
        max_peers: connections at once, of viewers and of publishers.
        hosts: addresses of this machine to take packets on; empty: all but loopback.
        ports: the first and the last UDP port to take; None for any free one.
        public_host: an address to name to peers in place of `hosts`, where a router hands its packets on to the same port; empty: none.
        stun: `stun:HOST:PORT`, asked how the outside sees this machine; empty: nobody is asked, and peers have to reach us.
        max_offer_bytes: of an offer, and of a message that adds to it.
        connect_s: how long a peer may take to connect.
        idle_s: how long a publisher may send no picture.
    """

    max_peers: int = 32
    hosts: tuple[str, ...] = ()
    ports: tuple[int, int] | None = None
    public_host: str = ""
    stun: str = ""
    max_offer_bytes: int = 64 * 1024
    connect_s: float = 20.0
    idle_s: float = 15.0

    @property
    def takes_candidates(self) -> bool:
        """Whether a peer is sent packets before it has sent us any, which is of use behind a router that STUN looks through."""
        return bool(self.stun)
