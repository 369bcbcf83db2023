"""Controls of a running session, without any wire."""

from __future__ import annotations

import asyncio

from model_core.errors import InvalidRequest
from model_core.request import SessionRequest
from model_core.session import Session
from model_core.tasks import cancel_and_wait
from service.checks import Limits
from service.controls import ChangePrompt, Control, Pause, Stop
from service.events import EndReason, PromptRefused, SourceDropped
from service.sessions.sourcing import Sourcing
from service.sessions.steering import Steering
from tests.fakes import FakeStages, ManualClock


class Steered:
    """A session that only notes how it ends."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.sourcing: Sourcing | None = None
        self.ends: list[EndReason | Exception | str] = []

    def end(self, reason: EndReason) -> None:
        self.ends.append(reason)

    def fail(self, error: Exception) -> None:
        self.ends.append(error)

    def stop(self) -> None:
        self.ends.append("stop")


class Caller:
    """Sends these controls, then nothing; or no more, if it `closes`."""

    def __init__(self, *controls: Control, closes: bool = False) -> None:
        self._waiting, self._closes = list(controls), closes
        self.refused: list[PromptRefused] = []

    async def next(self) -> Control | None:
        if self._waiting:
            return self._waiting.pop(0)
        return None if self._closes else await asyncio.Future()

    async def refuse(self, answer: PromptRefused | SourceDropped) -> None:
        assert isinstance(answer, PromptRefused)
        self.refused.append(answer)


async def steered(stages: FakeStages, frames: int | None = None) -> Steered:
    return Steered(await stages.pipeline.open(SessionRequest("s", "a red circle", 1, 4, frames)))


async def test_of_prompts_that_come_faster_than_one_session_may_have_embedded_the_newest_is_embedded() -> None:
    stages, clock = FakeStages(), ManualClock()
    target = await steered(stages)
    caller = Caller(*(ChangePrompt(f"prompt {n}", n) for n in range(1, 61)))
    steering = asyncio.create_task(Steering(caller.next, Limits(max_unanswered_controls=64), clock).steer(target, caller.refuse))
    await clock.advance(0.2)
    assert stages.encoder.calls == 1 + 9  # the session's own, what may come at once, and one more
    await clock.advance(0.1)
    assert stages.encoder.calls == 1 + 10
    assert target.session.context().embedding.prompt == "prompt 60"
    assert [answer.request_id for answer in caller.refused] == list(range(10, 60))
    await cancel_and_wait(steering)


async def test_a_bad_prompt_is_refused_by_its_field_and_changes_nothing() -> None:
    target = await steered(FakeStages(), frames=12)
    caller = Caller(ChangePrompt(" ", 7), closes=True)
    await Steering(caller.next, Limits(), ManualClock()).steer(target, caller.refuse)
    (refused,) = caller.refused
    assert refused.request_id == 7
    assert isinstance(refused.error, InvalidRequest)
    assert [violation.field for violation in refused.error.violations] == ["prompt"]
    assert target.session.context().embedding.prompt == "a red circle"
    assert target.ends == [], "with nothing more to come, a session with an end plays to it"


async def test_a_stop_ends_it_and_nothing_is_read_after_it() -> None:
    target, caller = await steered(FakeStages()), Caller(Stop(), Pause())
    await Steering(caller.next, Limits(), ManualClock()).steer(target, caller.refuse)
    assert target.ends == ["stop"]
    assert not target.session.paused


async def test_a_paused_session_ends_when_nobody_is_left_to_resume_it() -> None:
    target, caller = await steered(FakeStages()), Caller(Pause(), closes=True)
    await Steering(caller.next, Limits(), ManualClock()).steer(target, caller.refuse)
    assert target.ends == [EndReason.STOPPED]
