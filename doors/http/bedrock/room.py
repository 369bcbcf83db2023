"""Amazon Bedrock's runtime, as far as it makes videos: boto3 and the AWS SDKs with nothing but another endpoint.

    POST /async-invoke                              StartAsyncInvoke
    GET  /async-invoke/{arn}                        GetAsyncInvoke
    GET  /async-invoke                              ListAsyncInvokes
    POST /model/{id}/invoke                         InvokeModel
    POST /model/{id}/invoke-with-response-stream    InvokeModelWithResponseStream

Callers sign their requests, or send a key as a bearer token. An asynchronous invocation is a job whose video goes to the caller's bucket.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Sequence
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from doors.http.bedrock import answers, aws, errors, event_stream, inputs, listing, sigv4, starting
from doors.http.given import check_all
from doors.http.room import Endpoint, HttpRequest, ReadBody, Services
from doors.http.streaming import streamed
from model_core.errors import FieldViolation, InvalidRequest, StageUnavailable
from model_core.tasks import run_in_thread
from model_core.types import Codec
from service.checks import Problems
from service.events import Ended, EndReason, Event, Frames, Started
from service.failures import Failure, failure_of
from service.identity.principal import Authority, Caller, Means, Principal
from service.jobs.files.presentation import placement
from service.jobs.job import JobNotFound, Presentation
from service.orders import Doorway, Mode, Order
from service.sessions.session import DRAINING

NAME = "bedrock"
SERVICE = "bedrock"  # that signatures must be for

_MAX_BYTES = 25_000_000  # of a body, in and out
_AROUND_VIDEO_BYTES = 1024  # of an answer in JSON
_HASHED_AT_ONCE_BYTES = 64 * 1024
_JSON, _MP4 = "application/json", "video/mp4"


class BedrockRoom:
    """The room.

    Args:
        services: what it translates to.
        arns: the ARNs that it gives.
        now: Unix time, which signatures must be near to.
    """

    def __init__(self, services: Services, arns: aws.Arns | None = None, now: Callable[[], float] = time.time) -> None:
        self._services = services
        self._arns = arns or aws.Arns()
        self._now = now

    @property
    def name(self) -> str:
        return NAME

    def endpoints(self) -> Sequence[Endpoint]:
        # An ARN has a slash. It comes as %2F, which is a slash again by the time a route is looked up.
        calls = (
            ("POST", "/async-invoke", "StartAsyncInvoke", self.start_invocation),
            ("GET", "/async-invoke", "ListAsyncInvokes", self.list_invocations),
            ("GET", "/async-invoke/{arn:path}", "GetAsyncInvoke", self.get_invocation),
            ("POST", "/model/{model:path}/invoke", "InvokeModel", self.invoke),
            ("POST", "/model/{model:path}/invoke-with-response-stream", "InvokeModelWithResponseStream", self.invoke_with_response_stream),
        )
        return tuple(Endpoint(path=path, method=method, operation=name, handler=handler) for method, path, name, handler in calls)

    def refuse(self, failure: Failure) -> Response:
        return errors.refusal(failure)

    async def authenticate(self, request: Request, body: ReadBody, authority: Authority, caller: Caller) -> Principal | None:
        """Whoever signed the request; None where it is not signed.

        The body is read only for a key that exists.

        Raises:
            Unauthenticated: the signature is not by that key, not of this request, or not of now.
            StageUnavailable: the database does not answer.
        """
        authorization = sigv4.parse(request.headers.get("authorization", ""))
        if authorization is None:
            return None
        principal, secrets = await authority.by_access_key(authorization.access_key, caller)
        if principal.means not in {Means.NOBODY, Means.PROXY}:  # these have no key: this server takes any, and checks none
            scope = request.scope
            received = sigv4.Received(request.method, scope["raw_path"], scope["query_string"], scope["headers"])
            sigv4.check_terms(received, authorization, SERVICE, self._now())
            sigv4.verify(received, authorization, await _sha256(await body()), secrets)
        return principal

    async def start_invocation(self, request: HttpRequest) -> Response:
        jobs, problems = self._services.desk(), Problems()
        new = await starting.new_job(await request.json(_MAX_BYTES), request.raw.headers.get(starting.TIER, ""), NAME, problems)
        check_all(problems, self._services.intake, new.request, new.doorway)
        job = await jobs.submit(request.principal, new)
        return _answer(request, {"invocationArn": self._arns.invocation(job.id)})

    async def get_invocation(self, request: HttpRequest) -> Response:
        jobs = self._services.desk()
        job_id = aws.job_of(request.raw.path_params["arn"])
        if job_id is None:
            raise _invalid("invocationArn", "must be an ARN that StartAsyncInvoke returned")
        job = await jobs.get(request.principal, job_id)
        if job.door != NAME:
            raise JobNotFound(f"there is no invocation {job_id}")
        return _answer(request, answers.invocation(job, self._arns))

    async def list_invocations(self, request: HttpRequest) -> Response:
        page = await self._services.desk().list(request.principal, listing.query_of(request.raw.query_params, NAME))
        return _answer(request, answers.page(page, self._arns))

    async def invoke(self, request: HttpRequest) -> Response:
        media_type = _accepted(request.raw.headers.get("accept", ""))
        order, presentation = await self._order(request, Mode.FILE)
        most = _MAX_BYTES if media_type == _MP4 else 3 * ((_MAX_BYTES - _AROUND_VIDEO_BYTES) // 4)
        file = await self._services.runner.make_file(order, request.call, most, placement(presentation, order.config))
        content = file.mp4 if media_type == _MP4 else await run_in_thread(answers.file, file)
        return Response(content, media_type=media_type, headers={errors.REQUEST_ID: request.request_id})

    async def invoke_with_response_stream(self, request: HttpRequest) -> Response:
        """The parts of the stream make one fragmented MP4. A failure after the first of them is the last message."""
        order, _ = await self._order(request, Mode.STREAM)

        def failed(error: Exception) -> bytes:
            failure = failure_of(error, request.request_id)
            return event_stream.failure(errors.in_stream(failure), failure.message)

        return streamed(
            self._services.runner, order, request.call, _messages, event_stream.MEDIA_TYPE, failed=failed,
            headers={"x-amzn-bedrock-content-type": _MP4, errors.REQUEST_ID: request.request_id},
        )  # fmt: skip

    async def _order(self, request: HttpRequest, mode: Mode) -> tuple[Order, Presentation]:
        """The order for a session that is served at once, and the size of its file. Raises InvalidRequest."""
        problems = Problems()
        model = aws.model_of(request.raw.path_params["model"])
        asked = await inputs.read(model, await request.json(_MAX_BYTES), "", problems)
        wanted = asked.coded(Codec.FMP4_H264) if mode is Mode.STREAM else asked.request
        doorway = Doorway(mode, names=asked.names)
        if mode is Mode.FILE:
            size = asked.presentation
            self._services.intake.validator.presentation(size.width, size.height, doorway, problems)
        check_all(problems, self._services.intake, wanted, doorway)
        return self._services.intake.order(wanted, doorway), asked.presentation


def _messages(event: Event) -> bytes:
    """What is written of an event.

    Raises:
        StageUnavailable: the session ends before its video does. What is left of it cannot be fetched elsewhere.
    """
    match event:
        case Started(codec_header=header):
            return b"".join(event_stream.parts(header))
        case Frames(chunk=chunk):
            return b"".join(message for data in chunk.data for message in event_stream.parts(data))
        case Ended(reason=reason) if reason is not EndReason.COMPLETED:
            raise StageUnavailable(DRAINING)
    return b""


def _accepted(accept: str) -> str:
    """The media type of an answer with a video. Raises InvalidRequest."""
    if _MP4 in accept:
        return _MP4
    if accept and not any(kind in accept for kind in (_JSON, "*/*", "application/*")):
        raise _invalid("accept", f"must be {_JSON} or {_MP4}; got {accept[:64]!a}")
    return _JSON


def _invalid(field: str, sentence: str) -> InvalidRequest:
    return InvalidRequest((FieldViolation(field, sentence),))


def _answer(request: HttpRequest, document: dict[str, Any]) -> Response:
    return JSONResponse(document, headers={errors.REQUEST_ID: request.request_id})


async def _sha256(body: bytes) -> str:
    digest = hashlib.sha256(body) if len(body) <= _HASHED_AT_ONCE_BYTES else await run_in_thread(hashlib.sha256, body)
    return digest.hexdigest()
