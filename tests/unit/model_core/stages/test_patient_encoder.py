"""What is asked of a text encoder that is away: it is waited for, for so long and no longer."""

from __future__ import annotations

import numpy as np
import pytest

from model_core.errors import FieldViolation, HeadraceError, InvalidRequest, SessionBroken, StageDraining, StageUnavailable
from model_core.reopen import ReopenPolicy
from model_core.stages.patient import PatientEncoder
from model_core.types import Conditioning, Footage, TextEmbedding
from tests.fakes import FakeEncoder

POLICY = ReopenPolicy(attempts=100, backoff_s=1.0, max_backoff_s=8.0, give_up_after_s=30.0)


class Away(FakeEncoder):
    """A call takes `call_s`, and fails with `error` in the first `failures` calls. Time passes when it is said to."""

    def __init__(self, error: Exception, failures: int = 1000, call_s: float = 0.0) -> None:
        super().__init__()
        self._error, self._failures, self._call_s = error, failures, call_s
        self.now = 0.0
        self.numerics = ""
        self.slept: list[float] = []

    async def encode(self, prompt: str, numerics: str = "") -> TextEmbedding:
        self._answer()
        self.numerics = numerics
        return await super().encode(prompt, numerics)

    async def condition(self, footage: Footage) -> Conditioning:
        self._answer()
        return await super().condition(footage)

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds

    def patient(self) -> PatientEncoder:
        return PatientEncoder(self, POLICY, clock=lambda: self.now, sleep=self.sleep, chance=lambda: 0.0)

    def _answer(self) -> None:
        self.now += self._call_s
        self._failures -= 1
        if self._failures >= 0:
            self.calls += 1
            raise self._error


@pytest.mark.parametrize("error", [StageUnavailable("its replica died"), StageDraining("its replica stops")])
async def test_one_that_comes_back_has_answered(error: StageUnavailable) -> None:
    away = Away(error, failures=4)
    assert (await away.patient().encode("a red circle", "avx2")).prompt == "a red circle"
    assert away.numerics == "avx2"
    assert away.slept == [0.0, 1.0, 2.0, 4.0]


async def test_footage_is_waited_for_as_well() -> None:
    footage = Footage(np.zeros((1, 64, 64, 3), np.uint8))
    assert (await Away(StageUnavailable("away"), failures=1).patient().condition(footage)).guides


@pytest.mark.parametrize("call_s", [0.0, 10.0, 120.0])
async def test_one_that_stays_away_is_given_up_after_a_while_however_long_a_call_takes(call_s: float) -> None:
    away = Away(StageUnavailable("away"), call_s=call_s)
    with pytest.raises(StageUnavailable, match="away"):
        await away.patient().encode("a red circle")
    assert away.calls > 1
    longest_wait_s = POLICY.max_backoff_s + call_s
    assert call_s + POLICY.give_up_after_s <= away.now <= call_s + POLICY.give_up_after_s + longest_wait_s


@pytest.mark.parametrize(
    "error",
    [
        InvalidRequest((FieldViolation("prompt", "must be short"),)),
        SessionBroken("too large"),
        HeadraceError("other"),
        ValueError("a defect"),
    ],
)
async def test_what_would_go_wrong_again_is_final(error: Exception) -> None:
    away = Away(error)
    with pytest.raises(type(error)):
        await away.patient().encode("a red circle")
    assert (away.calls, away.slept) == (1, [])
