"""The coded pictures of a session's fragments. Nothing is decoded: boxes are read, and bytes are cut.

A fragment is what `model_core.media.fmp4_fragment` makes: one track of H.264 without pictures that are reordered, which begins with an IDR
picture. Parameter sets stand in the header alone, which is the same for all fragments of a session.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate, pairwise

_START_CODE = b"\x00\x00\x00\x01"
_SHORT_START_CODE = _START_CODE[1:]  # which the longer one ends with
# Bytes of a sample entry for video before the boxes in it, after its own head; and of a sample description before its entries.
_ENTRY_BYTES, _DESCRIPTION_BYTES = 78, 8
_CONTAINERS = (b"moov", b"trak", b"mdia", b"minf", b"stbl")
_BASE_OFFSET, _ENTRY_INDEX, _DURATION, _SIZE = 0x1, 0x2, 0x8, 0x10  # of a tfhd
_DATA_OFFSET, _FIRST_FLAGS, _DURATIONS, _SIZES, _FLAGS, _REORDERED = 0x1, 0x4, 0x100, 0x200, 0x400, 0x800  # of a trun
_NAL_LENGTH_BYTES = 4


class NotOurs(ValueError):
    """Bytes that no front door makes. A sentence that says why."""


@dataclass(frozen=True, slots=True)
class AccessUnit:
    """One coded picture.

    Attributes:
        frame: its index in the session. It is shown at `frame / fps` seconds, and decoded in that order.
        key: a decoder can begin with it.
        data: its NAL units, each behind its length in four bytes, as MP4 and FLV have them. Without parameter sets.
    """

    frame: int
    key: bool
    data: bytes


@dataclass(frozen=True, slots=True)
class Group:
    """Pictures that refer to nothing outside themselves. The first one is a key picture.

    Attributes:
        first_frame: of the session.
        units: one for each frame, in order.
        fragment: all of them as `moof` and `mdat`.
    """

    first_frame: int
    units: tuple[AccessUnit, ...]
    fragment: bytes

    @property
    def end(self) -> int:
        """The frame that follows."""
        return self.first_frame + len(self.units)


@dataclass(frozen=True, slots=True)
class Header:
    """What all groups of a session have in common.

    Attributes:
        width, height: pixels.
        fps: frames a second.
        frames_per_chunk: of every group but the first and the last, which may have fewer.
        segment: `ftyp` and `moov`, as players want them before the first fragment.
        configuration: an AVCDecoderConfigurationRecord, `avcC`: what FLV and WebCodecs want.
    """

    width: int
    height: int
    fps: int
    frames_per_chunk: int
    segment: bytes
    configuration: bytes

    @classmethod
    def of(cls, segment: bytes, width: int, height: int, fps: int, frames_per_chunk: int) -> Header:
        """Raises NotOurs: `segment` is no header of ours."""
        return cls(width, height, fps, frames_per_chunk, segment, _configuration(segment))

    @property
    def codec(self) -> str:
        """As RFC 6381 has it: `avc1.42C00A`."""
        return f"avc1.{self.configuration[1:4].hex().upper()}"

    @property
    def parameter_sets(self) -> tuple[bytes, ...]:
        """NAL units: the sequence parameter set, and the picture parameter set. Raises NotOurs."""
        record, found, at = self.configuration, [], 5
        for mask in (0x1F, 0xFF):
            count, at = record[at] & mask, at + 1
            for _ in range(count):
                end = at + 2 + int.from_bytes(record[at : at + 2])
                if end > len(record):
                    raise NotOurs("avcC is cut off")
                found.append(record[at + 2 : end])
                at = end
        return tuple(found)

    def streamed(self, fragment: bytes, first_frame: int, count: int) -> list[bytes]:
        """The pictures of `fragment`, each as `annex_b` has it. Raises NotOurs: see `group_of`."""
        return [self.annex_b(unit) for unit in group_of(fragment, first_frame, count).units]

    def annex_b(self, unit: AccessUnit) -> bytes:
        """`unit` as a stream of bytes with start codes. Before a key picture stand the parameter sets."""
        sets = self.parameter_sets if unit.key else ()
        return b"".join(_START_CODE + nal for nal in (*sets, *nal_units(unit.data)))


def nal_units(data: bytes) -> Iterator[bytes]:
    """Of an access unit's data. Raises NotOurs: it is cut off."""
    at = 0
    while at < len(data):
        end = at + _NAL_LENGTH_BYTES + int.from_bytes(data[at : at + _NAL_LENGTH_BYTES])
        if end > len(data):
            raise NotOurs("a NAL unit is cut off")
        yield data[at + _NAL_LENGTH_BYTES : end]
        at = end


def nal_units_of_annex_b(data: bytes) -> Iterator[bytes]:
    """Of an access unit as a stream has it, without their start codes."""
    start = data.find(_SHORT_START_CODE)
    while start >= 0:
        start += len(_SHORT_START_CODE)
        after = data.find(_SHORT_START_CODE, start)
        yield data[start : len(data) if after < 0 else after].rstrip(b"\x00")
        start = after


def group_of(fragment: bytes, first_frame: int, count: int) -> Group:
    """The pictures of one `fragment` of `count` frames, from `first_frame` of the session on.

    Raises:
        NotOurs: it is no such fragment.
    """
    sizes, keys, data = _samples(fragment)
    if len(sizes) != count:
        raise NotOurs(f"the fragment at frame {first_frame} must hold {count} pictures; got {len(sizes)}")
    if count == 0 or not keys[0]:
        raise NotOurs(f"the fragment at frame {first_frame} must begin with a key picture")
    ends = [0, *accumulate(sizes)]
    if ends[-1] != len(data):
        raise NotOurs(f"the pictures of the fragment at frame {first_frame} must have {len(data)} bytes; got {ends[-1]}")
    units = tuple(AccessUnit(first_frame + n, keys[n], data[a:b]) for n, (a, b) in enumerate(pairwise(ends)))
    return Group(first_frame, units, fragment)


def _samples(fragment: bytes) -> tuple[list[int], list[bool], bytes]:
    """The size of each picture, whether each is a key picture, and all of their bytes."""
    top = dict(_boxes(fragment, 0, len(fragment)))
    if b"moof" not in top or b"mdat" not in top:
        raise NotOurs("a fragment must have moof and mdat")
    parts = dict(_boxes(fragment, *top[b"moof"]))
    track = dict(_boxes(fragment, *parts[b"traf"])) if b"traf" in parts else {}
    if b"tfhd" not in track or b"trun" not in track:
        raise NotOurs("a fragment must have tfhd and trun")
    usual_size = _usual_size(fragment, track[b"tfhd"][0])
    sizes, keys = _run(fragment, *track[b"trun"], usual_size)
    start, end = top[b"mdat"]
    return sizes, keys, fragment[start:end]


def _usual_size(data: bytes, at: int) -> int:
    flags = _number(data, at, 4) & 0xFFFFFF
    at += 8 + 8 * bool(flags & _BASE_OFFSET) + 4 * bool(flags & _ENTRY_INDEX) + 4 * bool(flags & _DURATION)
    return _number(data, at, 4) if flags & _SIZE else 0


def _run(data: bytes, at: int, end: int, usual_size: int) -> tuple[list[int], list[bool]]:
    flags, count = _number(data, at, 4) & 0xFFFFFF, _number(data, at + 4, 4)
    if flags & _REORDERED:
        raise NotOurs("pictures must be shown in the order in which they are decoded")
    at += 8 + 4 * bool(flags & _DATA_OFFSET) + 4 * bool(flags & _FIRST_FLAGS)
    fields = [flag for flag in (_DURATIONS, _SIZES, _FLAGS) if flags & flag]
    if at + 4 * len(fields) * count != end:
        raise NotOurs("trun must end behind its last picture")
    sizes: list[int] = []
    keys: list[bool] = []
    for n in range(count):
        values = {flag: _number(data, at + 4 * (n * len(fields) + m), 4) for m, flag in enumerate(fields)}
        sizes.append(values.get(_SIZES, usual_size))
        keys.append(n == 0)  # the rest of a fragment of ours refers to its first picture
    return sizes, keys


def _configuration(segment: bytes) -> bytes:
    """The content of `avcC`."""
    start, end = 0, len(segment)
    for kind in _CONTAINERS:
        start, end = _only(segment, start, end, kind)
    start, end = _only(segment, start, end, b"stsd")
    start, end = _only(segment, start + _DESCRIPTION_BYTES, end, b"avc1")
    start, end = _only(segment, start + _ENTRY_BYTES, end, b"avcC")
    record = segment[start:end]
    if len(record) < 7 or record[0] != 1 or record[4] & 3 != _NAL_LENGTH_BYTES - 1:
        raise NotOurs("avcC must be of version 1, with lengths of four bytes")
    return record


def _only(data: bytes, start: int, end: int, kind: bytes) -> tuple[int, int]:
    found = dict(_boxes(data, start, end)).get(kind)
    if found is None:
        raise NotOurs(f"a header must have {kind.decode()}")
    return found


def _boxes(data: bytes, start: int, end: int) -> Iterator[tuple[bytes, tuple[int, int]]]:
    """Kinds of the boxes between two offsets, and where the content of each begins and ends."""
    while start < end:
        size = _number(data, start, 4)
        if size < 8 or start + size > end:
            raise NotOurs("a box is cut off")
        yield data[start + 4 : start + 8], (start + 8, start + size)
        start += size


def _number(data: bytes, at: int, width: int) -> int:
    if at + width > len(data):
        raise NotOurs("a box is cut off")
    return int.from_bytes(data[at : at + width])
