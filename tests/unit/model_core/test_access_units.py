"""Coded pictures cut out of fragments, against what libav reads from the same bytes."""

from __future__ import annotations

import io

import av
import numpy as np
import pytest

from model_core import media
from model_core.access_units import Header, NotOurs, group_of, nal_units, nal_units_of_annex_b
from tests.broadcasts import CHUNK, FPS, HEIGHT, WIDTH, fragment, group, header, segment

IDR, SLICE, SPS, PPS = 5, 1, 7, 8


def test_pictures_are_those_that_libav_finds() -> None:
    noise = np.random.default_rng(1).integers(0, 255, (CHUNK, HEIGHT, WIDTH, 3), np.uint8)
    data = media.fmp4_fragment(noise, 40, FPS)
    cut = group_of(data, 40, CHUNK)
    with av.open(io.BytesIO(segment() + data), "r") as container:
        packets = [packet for packet in container.demux(video=0) if packet.size]
    assert [unit.data for unit in cut.units] == [bytes(packet) for packet in packets]
    assert [unit.key for unit in cut.units] == [packet.is_keyframe for packet in packets]
    assert [unit.frame for unit in cut.units] == list(range(40, 48))
    assert (cut.first_frame, cut.end, cut.fragment) == (40, 48, data)


def test_a_stream_with_start_codes_is_decoded_from_a_key_picture_on() -> None:
    data = b"".join(header().annex_b(unit) for unit in group(16, shade=200).units)
    with av.open(io.BytesIO(data), "r", format="h264") as container:
        pictures = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    assert len(pictures) == CHUNK
    assert abs(int(pictures[-1].mean()) - 200) <= 2


def test_a_stream_has_the_pictures_of_the_fragment_and_parameter_sets_before_the_key_picture() -> None:
    data = fragment(16)
    nals = [list(nal_units_of_annex_b(unit)) for unit in header().streamed(data, 16, CHUNK)]
    assert [[nal[0] & 31 for nal in of_unit] for of_unit in nals] == [[SPS, PPS, IDR]] + [[SLICE]] * (CHUNK - 1)
    assert [[nal for nal in of_unit if nal[0] & 31 in (IDR, SLICE)] for of_unit in nals] == [
        list(nal_units(unit.data)) for unit in group(16).units
    ]


def test_the_header_says_what_players_ask() -> None:
    assert header().codec.startswith("avc1.42C0")
    assert [nal[0] & 31 for nal in header().parameter_sets] == [SPS, PPS]
    kinds = [[nal[0] & 31 for nal in nal_units(unit.data)] for unit in group(0).units]
    assert kinds == [[IDR]] + [[SLICE]] * (CHUNK - 1)


@pytest.mark.parametrize("cut", [0, 4, 9, 60, 130, -1])
def test_what_is_cut_off_is_refused(cut: int) -> None:
    with pytest.raises(NotOurs):
        group_of(fragment(0)[:cut], 0, CHUNK)
    with pytest.raises(NotOurs):
        Header.of(segment()[:cut], WIDTH, HEIGHT, FPS, CHUNK)


def test_another_number_of_pictures_is_refused() -> None:
    with pytest.raises(NotOurs, match="must hold 7 pictures; got 8"):
        group_of(fragment(0), 0, 7)


def test_reordered_pictures_are_refused() -> None:
    frames = np.random.default_rng(1).integers(0, 255, (CHUNK, HEIGHT, WIDTH, 3), np.uint8)
    pictures = [av.VideoFrame.from_ndarray(frame, format="rgb24") for frame in frames]
    for number, picture in enumerate(pictures):
        picture.pts = number
    whole = media.mux_fragment(pictures, (WIDTH, HEIGHT), 0, FPS, {"preset": "medium", "bf": "2"})
    boxes = b"".join(box for kind, box in media.mp4_boxes(whole) if kind in (b"moof", b"mdat"))
    with pytest.raises(NotOurs, match="must be shown in the order"):
        group_of(boxes, 0, CHUNK)
