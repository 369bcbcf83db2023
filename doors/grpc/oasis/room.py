"""`decart.inference.a2v.A2VService` over our sessions: a prompt begins a live session, and each Infer takes four of its frames.

A world follows actions, as the arrow keys that they come to; in any other model they are checked, and change nothing. Errors are part of
the answers, as the protocol has it.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any

import grpc
import grpc.aio
from google.protobuf.message import Message

from doors.grpc.callers import address_of, authenticated, secret_of
from doors.grpc.edge import Context, RpcEdge
from doors.grpc.incoming import Incoming
from doors.grpc.oasis import a2v_pb2 as pb
from doors.grpc.oasis.errors import Refused, failed, refusal
from doors.grpc.oasis.scene import Scene
from doors.grpc.oasis.session import STREAMS, OasisSession
from doors.wire.messages import RequestParser
from model_core.tasks import cancel_and_wait
from model_core.types import Codec
from service.call import Call
from service.clock import Clock
from service.failures import failure_of, outcome_of
from service.identity.principal import NOBODY, Authority, Caller, Principal, Unauthenticated
from service.intake import Intake
from service.ledger.denials import Denials
from service.orders import Doorway, Mode, VideoRequest
from service.sessions.runner import SessionRunner

NAME = "oasis"
SERVICE_NAME = pb.DESCRIPTOR.services_by_name["A2VService"].full_name
TARGET_KEY = "x-session-target"

MAX_SESSIONS = 256
IDLE_S = 60.0
_FINISHED = 1024  # ids that are remembered, to say so
_LOOKS = 4  # for idle sessions, in the time that one may be idle

Answer = Callable[[Any, Call, Context], Awaitable[Message]]

log = logging.getLogger(__name__)


class Unasked:
    """For the edge of this room: it asks nobody, since the room does so itself, and answers in the protocol's way. See `Authority`."""

    async def by_secret(self, presented: str, caller: Caller) -> Principal:
        return NOBODY

    async def by_access_key(self, access_key: str, caller: Caller) -> tuple[Principal, Sequence[str]]:
        return NOBODY, ()

    async def without_secret(self, caller: Caller) -> Principal:
        return NOBODY

    async def client_token(
        self, principal: Principal, *, seconds: float, models: Sequence[str] | None, max_seconds: float | None, origin: str
    ) -> tuple[str, float]:
        raise Unauthenticated("this room makes no tokens")

    async def ticket(self, principal: Principal) -> tuple[str, float]:
        raise Unauthenticated("this room makes no tokens")


class OasisRoom:
    """Registered with `GrpcServer` as one of its rooms. Sessions live in this process; `x-session-target` says which one that is.

    Args:
        intake: makes orders.
        runner: serves them.
        edge: guards each call, with `Unasked`.
        authority: says who callers are.
        clock: tells how long a session is idle.
        new_id: an unguessable id.
        denials: for the audit log.
        most: sessions at once.
        idle_s: a session that is not used for so long ends.
    """

    def __init__(
        self,
        intake: Intake,
        runner: SessionRunner,
        edge: RpcEdge,
        authority: Authority,
        clock: Clock,
        new_id: Callable[[], str],
        *,
        denials: Denials | None = None,
        most: int = MAX_SESSIONS,
        idle_s: float = IDLE_S,
    ) -> None:
        self._intake = intake
        self._runner = runner
        self._edge = edge
        self._authority = authority
        self._clock = clock
        self._new_id = new_id
        self._denials = denials or Denials()
        self._most = most
        self._idle_s = idle_s
        self._target = new_id()
        self._parser = RequestParser(pb.DESCRIPTOR)
        self._sessions: dict[str, OasisSession] = {}
        self._finished: OrderedDict[str, tuple[str, str]] = OrderedDict()
        self._looking: asyncio.Task[None] | None = None

    @property
    def service_name(self) -> str:
        """See `GrpcRoom`."""
        return SERVICE_NAME

    def handler(self) -> grpc.GenericRpcHandler:
        """See `GrpcRoom`. Requests come as bytes, as `VideoService` has them."""
        methods: dict[str, tuple[type[Message], Any, Answer]] = {
            "Initialize": (pb.InitializeRequest, pb.InitializeResponse, self._initialize),
            "Prompt": (pb.PromptRequest, pb.PromptResponse, self._prompt),
            "Infer": (pb.InferRequest, pb.InferResponse, self._infer),
            "Finish": (pb.FinishRequest, pb.FinishResponse, self._finish),
        }
        return grpc.method_handlers_generic_handler(
            SERVICE_NAME,
            {
                name: grpc.stream_unary_rpc_method_handler(partial(self._call, name, *parts), None, _serialized)
                for name, parts in methods.items()
            },
        )

    async def aclose(self) -> None:
        """End all sessions."""
        if self._looking is not None:
            await cancel_and_wait(self._looking)
        await asyncio.gather(*(session.aclose() for session in self._sessions.values()))
        self._sessions.clear()

    async def _call(self, name: str, kind: type[Message], answers: Any, answer: Answer, _: object, context: Context) -> Message:
        async with self._edge.guard(f"{NAME}.{name}", context) as call:
            call.door = NAME
            request: Any = await Incoming(context, self._parser, self._intake.limits).only(kind, upload=False)
            try:
                call.principal = await self._caller(context, getattr(request, "api_key", ""))
                call.tenant = call.principal.tenant
                return await answer(request, call, context)
            except Refused as error:
                call.outcome = "invalid"
                told = refusal(error)
            except Exception as error:
                call.outcome = outcome_of(error)
                self._denials.note(SERVICE_NAME, call.address, error, call.request_id)
                failure = failure_of(error, call.request_id)
                if call.outcome == "internal":
                    log.exception("%s failed: %s", name, failure.message)
                told = failed(failure)
            refused: Message = answers(error=told)
            return refused

    async def _caller(self, context: Context, given: str) -> Principal:
        """By the metadata, or else by the key in the first message."""
        metadata = context.invocation_metadata() or ()
        if given and secret_of(metadata) is None:
            return await self._authority.by_secret(given, Caller(address=address_of(context.peer())))
        return await authenticated(self._authority, context)

    # --- The four calls.

    async def _initialize(self, request: pb.InitializeRequest, call: Call, context: Context) -> pb.InitializeResponse:
        codec, form = _format(request.accepted_output_formats)
        if len(self._sessions) >= self._most:
            raise Refused(pb.ERROR_CODE_UNSPECIFIED, f"{self._most} sessions are open here, which is the most; try again later")
        catalogue = self._intake.catalogue
        config = catalogue.models[catalogue.default]
        session_id = self._new_id()
        self._sessions[session_id] = OasisSession(_owner(call.principal), config, codec, self._clock.now)
        if self._looking is None or self._looking.done():
            self._looking = asyncio.create_task(self._look())
        await context.send_initial_metadata(((TARGET_KEY, self._target),))
        info = [pb.StreamInfo(name=name, type=pb.SENSOR_TYPE_RGB, height=config.height, width=config.width) for name in STREAMS]
        return pb.InitializeResponse(session_id=session_id, output_format=form, streams=info)

    async def _prompt(self, request: pb.PromptRequest, call: Call, context: Context) -> pb.PromptResponse:
        session = self._session(request.session_id, call.principal, context)
        # Until it is stopped; a model of clips makes its clip.
        wanted = VideoRequest(prompt=request.prompt, model=session.config.name, codec=session.codec)
        order = self._intake.order(wanted, Doorway(Mode.LIVE))
        await session.prompt(lambda: Scene(self._runner, order, call.again(), self._idle_s))
        return pb.PromptResponse()

    async def _infer(self, request: pb.InferRequest, call: Call, context: Context) -> pb.InferResponse:
        session = self._session(request.session_id, call.principal, context)
        return await session.infer(request.sequence_num, request.actions)

    async def _finish(self, request: pb.FinishRequest, call: Call, context: Context) -> pb.FinishResponse:
        session = self._session(request.session_id, call.principal, context)
        await self._end(request.session_id, session)
        return pb.FinishResponse()

    def _session(self, session_id: str, principal: Principal, context: Context) -> OasisSession:
        """Raises Refused: there is none of this caller's."""
        session, owner = self._sessions.get(session_id), _owner(principal)
        if session is not None and session.owner == owner:
            return session
        if self._finished.get(session_id) == owner:
            raise Refused(pb.ERROR_CODE_ALREADY_FINISHED, "the session is finished")
        targets = [value for key, value in context.invocation_metadata() or () if key == TARGET_KEY]
        if targets and self._target not in targets:
            raise Refused(pb.ERROR_CODE_INVALID_SESSION, f"the session is at another front door, as {TARGET_KEY} says: keep its connection")
        raise Refused(pb.ERROR_CODE_INVALID_SESSION, f"no session has this id; one that is idle for {self._idle_s:g} s ends")

    async def _end(self, session_id: str, session: OasisSession) -> None:
        self._sessions.pop(session_id, None)
        self._finished[session_id] = session.owner
        if len(self._finished) > _FINISHED:
            self._finished.popitem(last=False)
        await session.aclose()

    async def _look(self) -> None:
        """End idle sessions, until none is left."""
        while self._sessions:
            await self._clock.sleep(self._idle_s / _LOOKS)
            before = self._clock.now() - self._idle_s
            idle = [(name, each) for name, each in self._sessions.items() if each.used_at <= before and not each.busy]
            for session_id, session in idle:
                del self._sessions[session_id]
                await session.aclose()


def _format(accepted: Any) -> tuple[Codec, pb.FrameFormat]:
    """The first that is here of what the caller takes; VP9 for one who does not say. Raises Refused."""
    for form in accepted or (pb.FRAME_FORMAT_VP9,):
        match form:
            case pb.FRAME_FORMAT_VP9:
                return Codec.RAW_RGB, pb.FRAME_FORMAT_VP9
            case pb.FRAME_FORMAT_JPEG:
                return Codec.JPEG, pb.FRAME_FORMAT_JPEG
    told = ", ".join(str(form) for form in accepted)
    raise Refused(pb.ERROR_CODE_INVALID_FORMAT, f"accepted_output_formats must have VP9 (3) or JPEG (1); got {told}")


def _owner(principal: Principal) -> tuple[str, str]:
    return principal.tenant, principal.subject


def _serialized(message: Message) -> bytes:
    return message.SerializeToString()
