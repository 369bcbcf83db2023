"""Fragments that come in several messages."""

from __future__ import annotations

from headrace.cli.fragments import Fragments
from headrace.v1 import video_pb2 as pb


def test_parts_are_put_together_and_one_without_its_rest_is_forgotten() -> None:
    fragments = Fragments()
    messages = [
        pb.Frames(first_frame=8, frame_count=0, data=[b"lost"]),
        pb.Frames(first_frame=16, frame_count=0, data=[b"a"]),
        pb.Frames(first_frame=16, frame_count=8, data=[b"b", b"c"]),
        pb.Frames(first_frame=24, frame_count=8, data=[b"d"]),
    ]
    assert [fragments.whole(message) for message in messages] == [None, None, b"abc", b"d"]
