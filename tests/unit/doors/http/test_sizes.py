import pytest

from doors.http.sizes import LINES, ratio, sized
from service.jobs.job import Presentation


@pytest.mark.parametrize(
    ("shape", "lines", "width", "height"),
    [
        ("16:9", "720p", 1280, 720), ("9:16", "720p", 720, 1280), ("16:9", "1080p", 1920, 1080), ("16:9", "540p", 960, 540),
        ("1:1", "720p", 720, 720), ("4:3", "720p", 960, 720), ("21:9", "720p", 1680, 720), ("16:9", "480p", 854, 480),
        ("1280:720", "720p", 1280, 720), ("16:9", "4k", 3840, 2160),
    ],
)  # fmt: skip
def test_the_shorter_side_has_the_lines_and_both_are_even(shape: str, lines: str, width: int, height: int) -> None:
    found = ratio(shape)
    assert found is not None
    assert sized(found, LINES[lines]) == Presentation(width, height)


@pytest.mark.parametrize("text", ["16x9", "16:", "0:9", "16:9:1", "99999:1", " 16:9", "a:b", "١٦:٩", ""])
def test_what_is_no_ratio(text: str) -> None:
    assert ratio(text) is None
