"""What a credential allows of an order, and what the order asks of its tenant's limits, whatever the door."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace

import pytest

from model_core.errors import InvalidRequest
from service.call import Call
from service.events import Event, Frames, Started
from service.identity.allowance import Allowance
from service.identity.permission import check_order, seconds_left
from service.identity.principal import Forbidden, Principal, QuotaExceeded
from service.orders import Doorway, Mode, Order, ResumeRequest, VideoRequest
from tests.core import Core, core
from tests.fakes import FakeDenoiser, FakeStages

LIVE, STREAM, FILE = (Doorway(mode, names={"seconds": "length"}) for mode in (Mode.LIVE, Mode.STREAM, Mode.FILE))


@dataclass
class Seen:
    """Quotas that note what they were asked, and what was used."""

    asked: list[tuple[str, float | None]] = field(default_factory=list)
    used: list[float] = field(default_factory=list)
    refuse: bool = False

    @asynccontextmanager
    async def session(self, tenant: str, seconds: float | None) -> AsyncGenerator[Allowance, None]:
        self.asked.append((tenant, seconds))
        if self.refuse:
            raise QuotaExceeded("no more", limit="budget_seconds", allowed=1.0, used=1.0)
        allowance = Allowance()
        try:
            yield allowance
        finally:
            self.used.append(allowance.used_s())


def wish(seconds: float) -> VideoRequest:
    return VideoRequest(prompt="a red circle", seconds=seconds)


async def test_the_model_and_the_length_are_those_of_the_credential() -> None:
    async with core() as served:
        model = served.stages.config.name
        order = served.intake.order(wish(2.0), STREAM)
        check_order(order, Principal(models=frozenset({model}), max_seconds=2.0))
        with pytest.raises(Forbidden, match=f"model must be one of other with this credential; got {model}"):
            check_order(order, Principal(models=frozenset({"other"})))
        with pytest.raises(Forbidden, match="model must be one of none with this credential"):
            check_order(order, Principal(models=frozenset()))
        with pytest.raises(Forbidden, match=r"length must be at most 1\.5 with this credential; got 2"):
            check_order(order, Principal(max_seconds=1.5))
        with pytest.raises(Forbidden, match="length must be at most 1000 with this credential; got no end"):
            check_order(served.intake.order(wish(0.0), LIVE), Principal(max_seconds=1000.0))


async def drawn(served: Core, request: VideoRequest, call: Call, stop_after: int = 10**6) -> list[Event]:
    events: list[Event] = []

    async def send(event: Event) -> None:
        events.append(event)
        if len(events) >= stop_after:
            raise ConnectionError("the caller left")

    with suppress(ConnectionError):
        await served.runner.run(served.intake.order(request, STREAM), send, call)
    return events


async def test_a_session_asks_for_its_length_and_pays_for_what_was_sent() -> None:
    quotas = Seen()
    async with core(quotas=quotas) as served:
        call = Call(principal=Principal(tenant="studio"))
        await drawn(served, wish(2.0), call)
        assert (quotas.asked, quotas.used) == ([("studio", 2.0)], [2.0])
        await drawn(served, wish(2.0), call, stop_after=3)  # Started, and two chunks
        assert 0 < quotas.used[-1] < 2.0
        file = await served.runner.make_file(served.intake.order(wish(1.0), FILE), call, 10**7)
        assert quotas.used[-1] == file.ended.usage.video_s == 1.0
        await served.runner.run(served.intake.order(replace(wish(1.0), max_lead_seconds=0.0), STREAM), _nobody, call)
        assert quotas.asked[-1] == ("studio", 1.0)


async def test_a_file_that_fails_costs_nothing() -> None:
    quotas, stages = Seen(), FakeStages()
    broken = FakeStages(FakeDenoiser(stages.config, error=ValueError("a defect")))
    async with core(broken, quotas=quotas) as served:
        with pytest.raises(ValueError, match="a defect"):
            await served.runner.make_file(served.intake.order(wish(1.0), FILE), Call(), 10**7)
        assert quotas.used == [0.0]


async def goes_on_at(served: Core, frame: int) -> Order:
    """The order for a session whose caller left, once its record is written as far as `frame`."""
    orders: list[Order] = []
    token = ""

    async def send(event: Event) -> None:
        nonlocal token
        if isinstance(event, Started):
            token = event.resume_token
        if not isinstance(event, Frames) or event.chunk.first_frame < 2 * frame:
            return
        while not orders:
            with suppress(InvalidRequest):
                orders.append(await served.intake.resume(ResumeRequest(token=token, next_frame=frame), STREAM, ""))
            await asyncio.sleep(0.005)
        raise ConnectionError("the caller left")

    async with asyncio.timeout(20):
        with suppress(ConnectionError):
            await served.runner.run(served.intake.order(wish(2.0), STREAM), send, Call())
    return orders[0]


async def test_a_session_that_goes_on_asks_for_what_is_left() -> None:
    quotas = Seen()
    async with core(quotas=quotas) as served:
        frame = served.stages.config.frames_per_chunk
        order = await goes_on_at(served, frame)
        left = seconds_left(order)
        assert left == pytest.approx(2.0 - frame / served.stages.config.fps)
        await served.runner.run(order, _nobody, Call())
        assert quotas.asked[-1] == ("", left)
        assert quotas.used[-1] == pytest.approx(left)


async def test_a_refusal_does_no_work() -> None:
    quotas = Seen(refuse=True)
    async with core(quotas=quotas) as served:
        with pytest.raises(QuotaExceeded):
            await served.runner.run(served.intake.order(wish(1.0), STREAM), _nobody, Call())
        with pytest.raises(Forbidden):
            await served.runner.make_file(served.intake.order(wish(1.0), FILE), Call(principal=Principal(models=frozenset())), 10**7)
        assert served.stages.encoder.calls == 0
        assert served.desk.statistics().arrivals == 0
        assert len(quotas.asked) == 1, "what is forbidden is not counted"


async def _nobody(_: Event) -> None:
    """A reader that keeps nothing."""
