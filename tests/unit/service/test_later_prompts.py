"""What is checked of prompts that come later in a video."""

import math
from dataclasses import replace

import pytest

from model_core.errors import InvalidRequest
from model_core.presets import millrace_64
from service.checks import Catalogue, Limits, Validator
from service.orders import Doorway, Mode, Order, VideoRequest

CONFIG = millrace_64()
SHOTS = Doorway(Mode.FILE, names={f"later_prompts[{number}]": f"shots[{number + 1}].text" for number in range(2)})
ASKED = VideoRequest(prompt="a red circle", seconds=6.0)


def order(*later: tuple[float, str], request: VideoRequest = ASKED) -> Order:
    validator = Validator(Catalogue({CONFIG.name: CONFIG}, CONFIG.name), Limits())
    return validator.order(replace(request, later_prompts=later), SHOTS, "s", 1)


def test_seconds_become_frames() -> None:
    assert order((2.0, "a blue square"), (4.0, "a star")).request.later_prompts == (
        (2 * CONFIG.fps, "a blue square"),
        (4 * CONFIG.fps, "a star"),
    )


@pytest.mark.parametrize(
    ("later", "problem"),
    [
        ([(0.0, "a")], r"shots\[1\].text: must begin after 0 and before 6 seconds; got 0"),
        ([(6.0, "a")], r"shots\[1\].text: must begin after 0 and before 6 seconds; got 6"),
        ([(math.nan, "a")], r"shots\[1\].text: .* got nan"),
        ([(3.0, "a"), (2.0, "b")], r"shots\[2\].text: must begin after 3 and before 6 seconds; got 2"),
        ([(3.0, "a"), (4.0, " ")], r"shots\[2\].text: must hold at least 1 character"),
        ([(1.0 + 0.1 * n, "a") for n in range(32)], r"later_prompts: must be at most 31; got 32"),
    ],
)
def test_what_is_wrong_is_named_as_the_door_names_it(later: list[tuple[float, str]], problem: str) -> None:
    with pytest.raises(InvalidRequest, match=problem):
        order(*later)


def test_a_wrong_length_is_no_fault_of_the_later_prompts() -> None:
    with pytest.raises(InvalidRequest) as caught:
        order((2.0, "a blue square"), request=replace(ASKED, seconds=-1.0))
    assert [violation.field for violation in caught.value.violations] == ["seconds"]
