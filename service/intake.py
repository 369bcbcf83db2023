"""Takes requests in: makes checked orders of new sessions, and of sessions that go on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from model_core.enhancement import Enhancement
from model_core.errors import FieldViolation, InvalidRequest
from model_core.pipeline import VideoPipeline
from model_core.reconcile import Acknowledged, reconcile
from model_core.request import SessionRequest, no_enhancer
from model_core.session_log import PromptEntry, SessionRecord
from service.checks import MAX_JOB_SECONDS, Catalogue, Limits, Problems, Validator
from service.orders import Doorway, Mode, Order, ResumePoint, ResumeRequest, VideoRequest
from service.records.keeper import SessionKeeper
from service.records.store import SessionMismatch
from service.replay import ReplayRequest, check_replay, replay_point


class Intake:
    """What all doors of a front door ask for orders.

    Args:
        pipelines: by model name.
        default_model: the model of a request that names none.
        limits: of what one caller may ask for.
        keeper: finds sessions that go on.
        new_id: a new session id.
        new_seed: a seed for requests without one, an unsigned 64-bit number.
        aliases: further names of models; see `service.checks.Catalogue`.
        max_job_seconds: length of a job.
    """

    def __init__(
        self,
        pipelines: Mapping[str, VideoPipeline],
        default_model: str,
        limits: Limits,
        keeper: SessionKeeper,
        new_id: Callable[[], str],
        new_seed: Callable[[], int],
        aliases: Mapping[str, str] | None = None,
        max_job_seconds: float = MAX_JOB_SECONDS,
    ) -> None:
        enhancing = frozenset(name for name, pipeline in pipelines.items() if pipeline.enhances)
        self.catalogue = Catalogue({name: pipeline.config for name, pipeline in pipelines.items()}, default_model, aliases or {}, enhancing)
        self.limits = limits
        self.max_job_seconds = max_job_seconds
        self._pipelines = pipelines
        self.validator = Validator(self.catalogue, limits, max_job_seconds)
        self._keeper = keeper
        self._new_id = new_id
        self._new_seed = new_seed

    def order(self, request: VideoRequest, doorway: Doorway, problems: Problems | None = None) -> Order:
        """The order for a new session. One that is streamed can be resumed.

        Args:
            problems: what the door found already; also below.

        Raises:
            InvalidRequest: with everything that is wrong.
        """
        order = self.validator.order(request, doorway, self._new_id(), self._new_seed(), problems)
        if doorway.mode.whole:
            return order
        return replace(order, token=self._keeper.new_token(), holder=self._keeper.new_token())

    async def resume(self, request: ResumeRequest, doorway: Doorway, tenant: str, problems: Problems | None = None) -> Order:
        """The order for a session that goes on. Its `claim` takes the session, once there is a place for it: a refused call takes nothing.

        Args:
            tenant: the caller's. Another tenant's session is not found.

        Raises:
            InvalidRequest: a field is wrong, or the frame is out of reach.
            SessionNotFound, SessionMismatch: the session cannot be resumed here.
            StageUnavailable: the session store does not answer.
        """
        lead_s = self.validator.resume(request, doorway, problems)
        holder = self._keeper.new_token()

        def ordered(record: SessionRecord) -> Order:
            pipeline = self._pipeline(record, doorway)
            point = resume_point(record, pipeline, request, doorway)
            return Order(_request_of(record), pipeline.config.shown(record.enhance), lead_s, doorway, request.token, holder, point)

        async def claim() -> Order:
            # It may have gone on since: what counts is the record as it was taken.
            return ordered(await self._keeper.claim(request.token, holder, tenant))

        return replace(ordered(await self._keeper.find(request.token, tenant)), claim=claim)

    async def replay(self, request: ReplayRequest, doorway: Doorway, tenant: str, problems: Problems | None = None) -> Order:
        """The order for a new session that shows a part of another one again. That one is left as it is.

        Args:
            tenant: as in `resume`.

        Raises:
            InvalidRequest: a field is wrong, nothing of the frames is recorded, or nothing here makes frames between.
            SessionNotFound, SessionMismatch, StageUnavailable: as in `resume`.
        """
        problems = Problems() if problems is None else problems
        self.validator.token(request.token, doorway, problems)
        check_replay(request, self.limits.max_stream_seconds, doorway, problems)
        lead_s = self.validator.lead(request.max_lead_seconds, doorway, problems)
        problems.check()
        record = await self._keeper.find(request.token, tenant)
        pipeline = self._pipeline(record, doorway)
        if not pipeline.enhances:
            sentence = no_enhancer(Enhancement(frames=request.slow, slow=request.slow), pipeline.config)
            raise InvalidRequest((FieldViolation(doorway.path("slow"), sentence),))
        point = replay_point(record, pipeline.config, request, doorway, self._new_id(), problems)
        made = _request_of(point.story.record)
        config = pipeline.config.shown(made.enhance)
        for violation in doorway.lacks(made.codec, config):
            problems.add(violation.field, violation.description)
        problems.check()
        return Order(made, config, lead_s, doorway, self._keeper.new_token(), self._keeper.new_token(), point, replays=True)

    def go_on(self, order: Order, record: SessionRecord, next_frame: int) -> Order:
        """`order`, which nobody watches, from `next_frame` on, with what `record` holds.

        Raises:
            SessionMismatch: what made the session is not served here any more.
            InvalidRequest: the record does not reach that frame.
        """
        request = ResumeRequest(token=record.session_id, next_frame=next_frame)
        point = resume_point(record, self._pipeline(record, order.doorway), request, order.doorway)
        return replace(order, resume=point, upload=None)

    def _pipeline(self, record: SessionRecord, doorway: Doorway) -> VideoPipeline:
        """Raises SessionMismatch: what made the session is not served here."""
        pipeline = self._pipelines.get(record.model)
        if pipeline is None or not pipeline.continues(record) or record.guidance > pipeline.config.max_guidance:
            served = ", ".join(sorted(self._pipelines))
            other = "" if pipeline is None else " of another version, or with more guidance than this server allows"
            token = doorway.path("token")
            raise SessionMismatch(f"{token}: the session is of model {record.model}{other}; this server serves {served}")
        return pipeline


def _request_of(record: SessionRecord) -> SessionRequest:
    return SessionRequest(
        session_id=record.session_id, prompt=record.timeline[-1].prompt, seed=record.seed, num_steps=record.num_steps,
        num_frames=record.num_frames, codec=record.codec, guidance=record.guidance, negative_prompt=record.negative_prompt,
        strength=record.strength, enhance=record.enhance,
    )  # fmt: skip


def resume_point(record: SessionRecord, pipeline: VideoPipeline, request: ResumeRequest, doorway: Doorway) -> ResumePoint:
    """Where the session of `record` goes on.

    Raises:
        InvalidRequest: what the caller says does not fit the record.
    """
    config = pipeline.config.shown(record.enhance)
    grid = config.grid
    prompts = (PromptEntry(grid.chunk_of(ack.first_frame), ack.prompt, ack.change, keys=ack.keys) for ack in request.acknowledged)
    steps = ((grid.chunk_of(change.first_frame), change.steps) for change in request.quality_changes)
    story = reconcile(record, grid.chunk_from(request.next_frame), Acknowledged(tuple(prompts), tuple(steps)))
    next_frame = min(request.next_frame, grid.first_frame(story.chunk))
    first, last = pipeline.restorable(story.record)
    problems = Problems()
    if doorway.mode is not Mode.LIVE and (problem := _live_problem(record)) is not None:
        problems.add(doorway.path("token"), problem)
    if not first <= next_frame <= last:
        superseded = "" if next_frame == request.next_frame else f", of which those from {next_frame} on were superseded unheard"
        problems.add(doorway.path("next_frame"), f"must be from {first} to {last}; got {request.next_frame}{superseded}")
    furthest = grid.first_frame(grid.chunk_from(last) + 1)
    newest = record.timeline[-1].change
    unreachable = [ack.first_frame for ack in request.acknowledged if ack.change > newest and ack.first_frame < first]
    if unreachable:  # no server has given it: chunks before `first` can no longer be made anew
        sentence = f"must be at least {first} where the change is newer than the record's; got {unreachable[0]}"
        problems.add(doorway.path("acknowledged.first_frame"), sentence)
    heard = [("acknowledged", ack.first_frame) for ack in request.acknowledged]
    heard += [("quality_changes", change.first_frame) for change in request.quality_changes]
    for name, frame in heard:
        if frame > furthest or frame != grid.first_frame(grid.chunk_of(frame)):
            problems.add(doorway.path(f"{name}.first_frame"), f"must be the first frame of a chunk, at most {furthest}; got {frame}")
    unknown = sorted({key for ack in request.acknowledged for key in ack.keys} - set(config.keys))
    if unknown:
        taken = ", ".join(config.keys) or "none"
        problems.add(doorway.path("acknowledged.keys"), f"must be among those of model {config.name}: {taken}; got {unknown[0][:64]!r}")
    bad_steps = [change.steps for change in request.quality_changes if not config.min_steps <= change.steps <= config.max_steps]
    if bad_steps:
        sentence = f"must be from {config.min_steps} to {config.max_steps}; got {bad_steps[0]}"
        problems.add(doorway.path("quality_changes.steps"), sentence)
    for violation in doorway.lacks(record.codec, config):
        problems.add(violation.field, violation.description)
    problems.check()
    return ResumePoint(story, next_frame)


def _live_problem(record: SessionRecord) -> str | None:
    """Why only Live can go on with the session of `record`; None where others can."""
    if record.strength is not None:  # its source has to be sent again
        return "must be of a session that restyles no video, or be resumed by Live; got one that does"
    return "must be of a session with an end, or be resumed by Live; got one without" if record.num_frames is None else None
