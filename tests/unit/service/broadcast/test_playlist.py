"""Playlists against the rules of RFC 8216 and draft-pantos-hls-rfc8216bis, read by a parser that shares nothing with what writes them."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

import pytest

from model_core.access_units import Group
from service.broadcast.window import Window
from tests.broadcasts import CHUNK, FPS, group, header

AT = 1_700_000_000.0
# "TARGETDURATION": rounded to the nearest integer, no segment is longer. "85 %": no part but a segment's last is shorter.
SHORTEST_PART = 0.85


@dataclass
class Read:
    """What a player makes of a media playlist."""

    tags: list[tuple[str, str]]
    segments: list[tuple[int, float, str, bool]] = field(default_factory=list)
    parts: dict[int, list[tuple[float, str]]] = field(default_factory=dict)

    def one(self, tag: str) -> str:
        [value] = [value for name, value in self.tags if name == tag]
        return value

    def has(self, tag: str) -> bool:
        return any(name == tag for name, _ in self.tags)

    def attributes(self, tag: str) -> dict[str, str]:
        return {name: value.strip('"') for name, value in re.findall(r'([A-Z0-9-]+)=("[^"]*"|[^,]*)', self.one(tag))}


def read(text: str) -> Read:
    lines = text.splitlines()
    assert lines[0] == "#EXTM3U"
    assert text.endswith("\n")
    found = Read([(name, value) for line in lines[1:] if line.startswith("#") for name, _, value in [line[1:].partition(":")]])
    number, seconds, gap = int(found.one("EXT-X-MEDIA-SEQUENCE")), 0.0, False
    for line in lines[1:]:
        tag, _, value = line[1:].partition(":")
        if tag == "EXTINF":
            seconds = float(value.rstrip(","))
        elif tag == "EXT-X-GAP":
            gap = True
        elif tag == "EXT-X-PART":
            part = re.fullmatch(r'DURATION=([\d.]+),URI="([^"]+)",INDEPENDENT=YES', value)
            assert part is not None, line
            found.parts.setdefault(number, []).append((float(part[1]), part[2]))
        elif not line.startswith("#"):
            found.segments.append((number, seconds, line, gap))
            number, seconds, gap = number + 1, 0.0, False
    return found


def check(found: Read) -> None:
    """The rules that hold for every live playlist."""
    target = int(found.one("EXT-X-TARGETDURATION"))
    assert all(int(seconds + 0.5) <= target and seconds > 0 for _, seconds, _, _ in found.segments)
    assert found.one("EXT-X-MAP") == 'URI="init.mp4"'
    if not found.has("EXT-X-PART-INF"):
        assert not found.parts
        return
    control, part_target = found.attributes("EXT-X-SERVER-CONTROL"), float(found.attributes("EXT-X-PART-INF")["PART-TARGET"])
    assert control["CAN-BLOCK-RELOAD"] == "YES"
    assert float(control["PART-HOLD-BACK"]) >= 2 * part_target  # MUST; three times is a SHOULD, to the digit that is written
    assert float(control["PART-HOLD-BACK"]) >= 3 * part_target - 1e-9
    assert float(control["HOLD-BACK"]) >= 3 * target
    for number, parts in found.parts.items():
        assert all(duration <= part_target for duration, _ in parts)
        assert all(duration >= SHORTEST_PART * part_target for duration, _ in parts[:-1])
        for whole, seconds, _, _ in found.segments:
            if whole == number:
                assert sum(duration for duration, _ in parts) == pytest.approx(seconds, abs=1e-3)
    if not found.has("EXT-X-ENDLIST"):
        hint = found.attributes("EXT-X-PRELOAD-HINT")
        assert hint["TYPE"] == "PART"
        assert hint["URI"] not in [uri for parts in found.parts.values() for _, uri in parts]


def window(chunks: int, *, first: int = 0, parts: bool = True) -> Window:
    made = Window(header(), parts=parts)
    for n in range(chunks):
        made.add(group(first + n * CHUNK), AT + n * CHUNK / FPS)
    return made


@pytest.mark.parametrize("chunks", [1, 2, 5, 6, 7, 11, 12, 13, 40, 100])
@pytest.mark.parametrize("parts", [True, False])
def test_rules_hold_at_every_length(chunks: int, parts: bool) -> None:
    made = window(chunks, parts=parts)
    check(read(made.playlist()))
    made.end()
    over = read(made.playlist())
    check(over)
    assert over.has("EXT-X-ENDLIST")


def test_a_segment_of_two_seconds_has_six_parts_and_the_next_part_is_hinted() -> None:
    made = window(15)
    found = read(made.playlist())
    assert [(number, seconds, uri) for number, seconds, uri, _ in found.segments] == [(0, 2.0, "segment-0.m4s"), (1, 2.0, "segment-1.m4s")]
    assert [uri for _, uri in found.parts[2]] == ["part-96.m4s", "part-104.m4s", "part-112.m4s"]
    assert found.attributes("EXT-X-PRELOAD-HINT")["URI"] == "part-120.m4s"
    assert made.segment(1) == b"".join(group(48 + n * CHUNK).fragment for n in range(6))
    assert made.part(112) == group(112).fragment
    assert (made.segment(2), made.part(120)) == (None, None)
    assert found.tags.count(("EXT-X-PROGRAM-DATE-TIME", "2023-11-14T22:13:22.000Z")) == 1


def test_old_segments_leave_the_playlist_and_are_still_there_for_a_while() -> None:
    made = window(6 * 20)
    found = read(made.playlist())
    assert found.one("EXT-X-MEDIA-SEQUENCE") == "14"
    assert len(found.segments) == 6
    assert sum(seconds for _, seconds, _, _ in found.segments) >= 3 * int(found.one("EXT-X-TARGETDURATION"))
    assert made.segment(11) is not None
    assert made.segment(9) is None
    assert made.part(9 * 48) is None


def test_numbers_are_those_of_the_session_wherever_somebody_begins() -> None:
    late, early = window(20, first=40), window(25)
    assert late.newest == early.newest
    assert late.segment(2) == early.segment(2)
    found = read(late.playlist())
    check(found)
    number, seconds, uri, _ = found.segments[0]
    assert (number, uri) == (0, "segment-0.m4s")
    assert seconds == pytest.approx(1 / 3, abs=1e-4), "what there is of it"


def test_a_short_first_chunk_is_a_segment_of_its_own() -> None:
    made = Window(header())
    made.add(group(0, count=5), AT)
    for n in range(14):
        made.add(group(5 + n * CHUNK), AT)
    found = read(made.playlist())
    check(found)
    assert [(number, uri) for number, _, uri, _ in found.segments] == [(n, f"segment-{n}.m4s") for n in range(3)]
    assert [len(found.parts[n]) for n in range(4)] == [1, 6, 6, 2]


def test_what_is_missing_is_a_gap_and_not_a_shift() -> None:
    made = window(12)
    made.add(group(4 * 48), AT)
    found = read(made.playlist())
    check(found)
    assert [(number, gap) for number, _, _, gap in found.segments] == [(0, False), (1, False), (2, True), (3, True)]
    assert (made.segment(2), made.part(4 * 48)) == (None, group(4 * 48).fragment)
    made.add(group(48 * 1_000_000), AT)  # nobody lists a million gaps
    assert made.numbers == [1_000_000]
    made.add(group(48), AT)
    assert made.numbers == [1_000_000]


def test_bytes_are_bounded() -> None:
    large = Window(header())
    for n in range(30):
        one = group(0)
        large.add(Group(n * CHUNK, one.units, bytes(8 * 1024 * 1024)), AT)
    assert sum(len(large.part(n * CHUNK) or b"") for n in range(30)) <= 64 * 1024 * 1024 + 6 * 8 * 1024 * 1024


def test_a_player_is_told_when_to_wait() -> None:
    made = window(13)
    assert made.newest == (2, 1)
    assert made.has(1, None)
    assert made.has(1, 99)
    assert made.has(2, 0)
    assert not made.has(2, 1)
    assert not made.has(2, None)
    assert made.has_frame(96)
    assert not made.has_frame(104)
    made.end()
    assert made.has(2, 1)


def test_the_first_playlist_says_what_players_ask() -> None:
    text = window(6).multivariant()
    found = Read([(name, value) for line in text.splitlines()[1:] for name, _, value in [line[1:].partition(":")]])
    stream = found.attributes("EXT-X-STREAM-INF")
    assert stream["CODECS"] == header().codec
    assert stream["RESOLUTION"] == "96x64"
    assert int(stream["BANDWIDTH"]) >= int(stream["AVERAGE-BANDWIDTH"]) > 0
    assert text.splitlines()[-1] == "media.m3u8"
