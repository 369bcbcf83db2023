"""From a resume message to an order: find the session, check what was asked, take it from whoever holds it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from opentelemetry.util.types import AttributeValue

from doors.grpc.message_size import DEFAULT_BYTES, FIELD, raw_frame_problem
from headrace.v1 import video_pb2 as pb
from model_core.errors import FieldViolation, InvalidRequest
from model_core.pipeline import Session, SessionRequest, VideoPipeline
from model_core.session_log import PromptEntry, SessionRecord, Told, reconcile
from model_core.types import Codec, StageTiming
from model_core.uploads.decoders import UploadDecoders
from service.checks import Order, ResumePoint, Validator
from service.records.keeper import SessionKeeper
from service.records.store import SessionMismatch


class Resumption:
    """Makes orders resumable, and orders out of resumes."""

    def __init__(self, pipelines: Mapping[str, VideoPipeline], keeper: SessionKeeper, validator: Validator) -> None:
        self._pipelines = pipelines
        self._keeper = keeper
        self._validator = validator

    def resumable(self, order: Order) -> Order:
        """A new session with a token."""
        return replace(order, token=self._keeper.new_token(), holder=self._keeper.new_token())

    async def order(self, message: pb.StreamRequest | pb.LiveStart, path: str, *, live: bool) -> Order:
        """`message.resume`, checked. Its `claim` takes the session, once there is a place for it: a request that is refused takes nothing.

        Raises:
            InvalidRequest: a field is wrong, or the frame is out of reach.
            SessionNotFound, SessionMismatch: the session cannot be resumed here.
            StageUnavailable: the store is away.
        """
        lead_s, max_message_bytes = self._validator.resume(message, path, live=live)
        token, holder = message.resume.token, self._keeper.new_token()

        def ordered(record: SessionRecord) -> Order:
            pipeline, point = self._checked(record, message, path, live=live)
            request = SessionRequest(
                session_id=record.session_id, prompt=record.timeline[-1].prompt, seed=record.seed, num_steps=record.num_steps,
                num_frames=record.num_frames, codec=record.codec, guidance=record.guidance, negative_prompt=record.negative_prompt,
            )  # fmt: skip
            return Order(request, pipeline.config, lead_s, token, holder, point, path=path, max_message_bytes=max_message_bytes)

        async def claim() -> Order:
            # It may have gone on since: what counts is the record as it was taken.
            return ordered(await self._keeper.claim(token, holder))

        return replace(ordered(await self._keeper.find(token)), claim=claim)

    def _checked(
        self, record: SessionRecord, message: pb.StreamRequest | pb.LiveStart, path: str, *, live: bool
    ) -> tuple[VideoPipeline, ResumePoint]:
        pipeline = self._pipelines.get(record.model)
        if pipeline is None or pipeline.fingerprint != record.fingerprint or record.guidance > pipeline.config.max_guidance:
            served = ", ".join(sorted(self._pipelines))
            other = "" if pipeline is None else " of another version, or with more guidance than this server allows"
            raise SessionMismatch(f"{path}resume.token: the session is of model {record.model}{other}; this server serves {served}")
        resume, path, grid = message.resume, f"{path}resume.", pipeline.config.grid
        prompts = (PromptEntry(grid.chunk_of(ack.first_frame), ack.prompt, ack.change) for ack in resume.acknowledged)
        steps = ((grid.chunk_of(change.first_frame), change.steps) for change in resume.quality_changes)
        story = reconcile(record, grid.chunk_from(resume.next_frame), Told(tuple(prompts), tuple(steps)))
        next_frame = min(resume.next_frame, grid.first_frame(story.chunk))
        first, last = pipeline.restorable(story.record)
        problems = []
        if not live and record.num_frames is None:
            problems.append(FieldViolation(f"{path}token", "must be of a session with an end, or be resumed by Live; got one without"))
        if not first <= next_frame <= last:
            superseded = "" if next_frame == resume.next_frame else f", of which those from {next_frame} on were superseded unheard"
            problems.append(FieldViolation(f"{path}next_frame", f"must be from {first} to {last}; got {resume.next_frame}{superseded}"))
        furthest = grid.first_frame(grid.chunk_from(last) + 1)
        newest = record.timeline[-1].change
        unreachable = [ack.first_frame for ack in resume.acknowledged if ack.change > newest and ack.first_frame < first]
        if unreachable:  # no server has given it: chunks before `first` can no longer be made anew
            sentence = f"must be at least {first} where the change is newer than the record's; got {unreachable[0]}"
            problems.append(FieldViolation(f"{path}acknowledged.first_frame", sentence))
        told = [("acknowledged", ack.first_frame) for ack in resume.acknowledged]
        told += [("quality_changes", change.first_frame) for change in resume.quality_changes]
        for name, frame in told:
            if frame > furthest or frame != grid.first_frame(grid.chunk_of(frame)):
                sentence = f"must be the first frame of a chunk, at most {furthest}; got {frame}"
                problems.append(FieldViolation(f"{path}{name}.first_frame", sentence))
        least, most = pipeline.config.min_steps, pipeline.config.max_steps
        bad_steps = [change.steps for change in resume.quality_changes if not least <= change.steps <= most]
        if bad_steps:
            problems.append(FieldViolation(f"{path}quality_changes.steps", f"must be from {least} to {most}; got {bad_steps[0]}"))
        if record.codec is Codec.RAW_RGB:
            size = raw_frame_problem(pipeline.config.width, pipeline.config.height, message.max_message_bytes or DEFAULT_BYTES)
            problems += [] if size is None else [FieldViolation(f"{path.removesuffix('resume.')}{FIELD}", size)]
        if problems:
            raise InvalidRequest(tuple(problems))
        return pipeline, ResumePoint(story, next_frame)


async def open_session(pipeline: VideoPipeline, order: Order, decoders: UploadDecoders, caller: str = "") -> Session:
    """The session of `order`, new or resumed; what it is given is decoded for `caller`.

    Raises:
        StageUnavailable: the text encoder is away, or what it is given cannot be decoded just now.
        InvalidRequest: a prompt has too many tokens, or the image or video that it is given cannot be decoded.
    """
    point = order.resume
    if point is not None:
        try:
            return await pipeline.restore(point.story.record, point.next_frame)
        except InvalidRequest as error:
            raise error.under(f"{order.path}resume.acknowledged.") from None
    request = order.request
    if order.upload is not None:
        request = replace(request, footage=await decoders.footage(order.upload, order.config, caller))
        order.upload.forget()
    try:
        return await pipeline.open(request)
    except InvalidRequest as error:
        raise error.under(order.path) from None


def encoding_timing(session: Session, elapsed_s: float) -> StageTiming:
    """What prompt and footage took: what the stage itself says, and the rest on the way; all in the stage if it says nothing."""
    context = session.context()
    given = None if context.given is None else context.given.timing
    told = [timing for timing in (context.embedding.timing, given) if timing is not None]
    if not told:
        return StageTiming("text_encoder", 0.0, elapsed_s, elapsed_s)
    queue_s, service_s, device_s = (sum(part) for part in zip(*((t.queue_s, t.service_s, t.device_s) for t in told), strict=True))
    return StageTiming("text_encoder", queue_s, service_s, device_s, transfer_s=max(0.0, elapsed_s - queue_s - service_s))


def trace_attributes(order: Order, account: str) -> dict[str, AttributeValue]:
    """What a trace says of a session; not what it draws, which is its caller's affair."""
    request = order.request
    return {
        "model": order.config.name, "tenant": account, "steps": request.num_steps, "codec": request.codec.value,
        "max_lead_s": order.max_lead_s, "resumed": order.resume is not None,
    }  # fmt: skip
