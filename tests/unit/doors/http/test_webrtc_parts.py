"""Parts of WebRTC by themselves: what is announced, which ports are taken, and what a track holds."""

from __future__ import annotations

import asyncio
import random
import socket
from typing import Any

import pytest

from doors.http.webrtc.ingest import Units
from doors.http.webrtc.loop import PortLoop
from doors.http.webrtc.offers import announced, checked_fragment, checked_offer
from doors.http.webrtc.track import UnitTrack
from model_core.errors import InvalidRequest

LINES = """\
v=0
o=- 1 1 IN IP4 0.0.0.0
s=-
t=0 0
a=group:BUNDLE 0
m=video 9 UDP/TLS/RTP/SAVPF 99
c=IN IP4 0.0.0.0
a=recvonly
a=mid:0
a=rtpmap:99 H264/90000
a=candidate:1 1 udp 2130706431 10.0.0.7 5000 typ host
a=candidate:2 1 udp 2130706431 5c1d2b44.local 5001 typ host
a=candidate:3 1 tcp 1 10.0.0.7 9 typ host tcptype active
a=candidate:4 1 udp 1 224.0.0.1 5002 typ host
a=end-of-candidates
a=ice-ufrag:abcd
a=ice-pwd:abcdefghijklmnopqrstuv
a=fingerprint:sha-256 00:11:22:33
a=setup:actpass
"""
OFFER = LINES.replace("\n", "\r\n")


def candidates(sdp: str) -> list[str]:
    return [line for line in sdp.splitlines() if "candidate" in line]


def test_addresses_of_a_peer_count_only_where_they_are_asked_for_and_names_never() -> None:
    assert candidates(checked_offer(OFFER, sends=False, takes_candidates=False)) == []
    taken = candidates(checked_offer(OFFER, sends=False, takes_candidates=True))
    assert taken == ["a=candidate:1 1 udp 2130706431 10.0.0.7 5000 typ host"]
    fragment = "a=mid:1\r\na=candidate:1 1 udp 1 10.0.0.7 5000 typ host\r\na=candidate:1 1 udp 1 x.local 5000 typ host\r\n"
    assert checked_fragment(fragment, "abcd") == [("1", "1 1 udp 1 10.0.0.7 5000 typ host")]
    with pytest.raises(InvalidRequest, match="fragment"):
        checked_fragment("<html>", "abcd")


def test_a_public_address_stands_in_place_of_ours_once_for_each_port() -> None:
    answer = (
        "v=0\r\nm=video 5000 X 99\r\nc=IN IP4 10.0.0.1\r\na=candidate:1 1 udp 1 10.0.0.1 5000 typ host\r\n"
        "a=candidate:2 1 udp 1 10.1.0.1 5000 typ host\r\na=candidate:3 1 udp 1 10.0.0.1 5001 typ host\r\n"
    )
    assert announced(answer, "") == answer
    told = announced(answer, "203.0.113.5")
    assert [line.split(" ")[4:6] for line in candidates(told)] == [["203.0.113.5", "5000"], ["203.0.113.5", "5001"]]
    assert "c=IN IP4 203.0.113.5" in told
    assert "10.0.0.1" not in told


def free_udp_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


def test_udp_ports_are_of_the_range_and_a_full_one_is_told() -> None:
    port = free_udp_port()
    loop = PortLoop((port, port), random.Random(1))

    async def take() -> None:
        transport, _ = await loop.create_datagram_endpoint(asyncio.DatagramProtocol, local_addr=("127.0.0.1", 0))
        assert transport.get_extra_info("sockname")[1] == port
        with pytest.raises(OSError, match=f"no UDP port from {port} to {port} is free"):
            await loop.create_datagram_endpoint(asyncio.DatagramProtocol, local_addr=("127.0.0.1", 0))
        transport.close()

    loop.run_until_complete(take())
    loop.close()


async def sent(track: UnitTrack, count: int) -> list[bytes]:
    return [bytes(await track.recv()) for _ in range(count)]


async def test_a_track_keeps_the_newest_chunk_until_somebody_plays() -> None:
    track = UnitTrack(fps=1000)
    for first in (0, 2, 4):
        await track.put(first, [b"%d" % first, b"%d" % (first + 1)])
    assert await sent(track, 2) == [b"4", b"5"]


async def test_pictures_that_are_superseded_are_not_sent_and_time_goes_on() -> None:
    track = UnitTrack(fps=1000)
    await track.put(0, [b"0", b"1", b"2", b"3"])
    packets = [await track.recv(), await track.recv()]
    await track.put(2, [b"2 anew", b"3 anew"])
    packets += [await track.recv(), await track.recv()]
    assert [bytes(packet) for packet in packets] == [b"0", b"1", b"2 anew", b"3 anew"]
    times = [packet.pts or 0 for packet in packets]
    assert times == sorted(set(times))


async def test_a_track_holds_two_chunks_and_whoever_puts_waits() -> None:
    track = UnitTrack(fps=1000)
    await track.put(0, [b"0", b"1"])
    assert await sent(track, 1) == [b"0"]
    await track.put(2, [b"2", b"3"])
    waiting = asyncio.create_task(track.put(4, [b"4", b"5"]))
    await asyncio.sleep(0)
    assert (waiting.done(), track.waiting) == (False, 3)
    assert await sent(track, 1) == [b"1"]
    await waiting
    track.stop()
    await track.put(6, [b"6"])
    assert track.waiting == 0


class Coded:
    """What aiortc's receiver hands out."""

    def __init__(self, timestamp: int, kind: int, size: int = 8) -> None:
        self.timestamp = timestamp
        self.data = b"\x00\x00\x00\x01" + bytes([kind]) + b"x" * size


async def test_a_full_queue_of_coded_pictures_begins_again_with_a_key_picture() -> None:
    units = Units()

    def put(timestamp: int, kind: int) -> None:
        given: Any = (None, Coded(timestamp, kind))
        units.put(given)

    put(0, 5)
    for n in range(1, 70):
        put(n, 1)
    put(70, 5)
    put(71, 1)
    found = [await units.next(), await units.next()]
    assert [one and one[0] for one in found] == [70, 71]
    assert units.dropped == 70
    units.put(None)
    assert await units.next() is None
