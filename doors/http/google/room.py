"""Google's video APIs: Vertex AI, the Gemini API of generation 2, and Interactions."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from starlette.responses import JSONResponse, Response

from doors.http.contents import content_bytes, content_response
from doors.http.given import Given, idempotency_key
from doors.http.google import answers, predictions
from doors.http.google.interactions import Asked, asked
from doors.http.google.shapes import DOOR, refusal
from doors.http.room import Endpoint, Handler, HttpRequest, Services
from doors.http.streaming import streamed
from doors.http.times import iso
from model_core.errors import FieldViolation, InvalidRequest
from service.checks import Problems
from service.failures import Failure
from service.jobs.job import Content, Job, JobNotFound, JobStatus

_PROJECT = "/projects/{project}/locations/{location}"
_MODEL = "/publishers/google/models/{model}"
# The name of a file ends a path. Google's client, told of one at a URL without TLS, sends the whole URL in place of the name.
_FILE = re.compile(r"(?:.*files/)?([a-z0-9]{1,64})(:download)?", re.ASCII)
# Whoever does not ask for `background` waits so long.
_MAX_WAIT_S = 600.0


class GoogleRoom:
    """See `doors.http.room.Room`.

    Args:
        now: Unix time.
    """

    name = DOOR

    def __init__(self, services: Services, now: Callable[[], float] = time.time) -> None:
        self._services = services
        self._now = now

    def endpoints(self) -> Sequence[Endpoint]:
        return [*self._vertex(), *self._gemini(), *self._interactions()]

    def _vertex(self) -> list[Endpoint]:
        found = []
        for models in (f"/{version}{prefix}{_MODEL}" for version in ("v1", "v1beta1") for prefix in ("", _PROJECT)):
            found += [
                _post(f"{models}:predictLongRunning", "predict", partial(self._predict, _vertex_model)),
                _post(f"{models}:fetchPredictOperation", "fetch_operation", self._fetch),
                _post(f"{models}/operations/{{id}}:fetchPredictOperation", "fetch_operation", self._fetch),
            ]
        return found

    def _gemini(self) -> list[Endpoint]:
        return [
            _post("/v1beta/models/{model}:predictLongRunning", "predict", partial(self._predict, _gemini_model)),
            _get("/v1beta/models/{model}/operations/{id}", "get_operation", self._get_operation),
            _get("/v1/files/{name:path}", "get_file", self._file),  # where clients of generation 3 look
            _get("/v1beta/files/{name:path}", "get_file", self._file),
        ]

    def _interactions(self) -> list[Endpoint]:
        found = []
        for base in ("/v1/interactions", "/v1beta/interactions"):
            found += [
                _post(base, "create_interaction", self._create),
                _get(f"{base}/{{id}}", "get_interaction", self._get),
                _post(f"{base}/{{id}}/cancel", "cancel_interaction", self._cancel),
                Endpoint(path=f"{base}/{{id}}", method="DELETE", operation="delete_interaction", handler=self._delete),
            ]
        return found

    def refuse(self, failure: Failure) -> Response:
        return refusal(failure)

    # --- Vertex AI, and the Gemini API of generation 2.

    async def _predict(self, resource: Callable[[Mapping[str, str]], str], request: HttpRequest) -> Response:
        desk, problems = self._services.desk(), Problems()
        key = idempotency_key(request.raw, problems)
        model = request.raw.path_params["model"]
        new = await predictions.new_job(model, await request.json(), key, problems, self._services.intake)
        job = await desk.submit(request.principal, new)
        # Vertex's client polls at what stands before "/operations/", so that must be the path of the model.
        return JSONResponse({"name": f"{resource(request.raw.path_params)}/operations/{job.id}"})

    async def _fetch(self, request: HttpRequest) -> Response:
        problems = Problems()
        name = Given(await request.json(), problems).text("operationName", required=True)
        problems.check()
        job = await self._job(request, predictions.job_id(name))
        if job.status is not JobStatus.COMPLETED:
            return JSONResponse(predictions.operation(name, job, None))
        content = await self._content(request, job)
        mp4 = await content_bytes(content)
        return await _rendered(lambda: predictions.operation(name, job, predictions.vertex_response(mp4, _store_url(request, content))))

    async def _get_operation(self, request: HttpRequest) -> Response:
        job = await self._job(request, request.raw.path_params["id"])
        name = f"{_gemini_model(request.raw.path_params)}/operations/{job.id}"
        return JSONResponse(predictions.operation(name, job, predictions.gemini_response(_uri(request, job))))

    async def _file(self, request: HttpRequest) -> Response:
        found = _FILE.fullmatch(request.raw.path_params["name"])
        if found is None:
            raise JobNotFound("there is no such file")
        job = await self._job(request, found[1])
        content = await self._content(request, job)
        if request.raw.query_params.get("alt", "").startswith("media"):
            return await content_response(content, f"{job.id}.mp4")
        times = {"createTime": iso(job.created_at), "updateTime": iso(job.updated_at)}
        if job.expires_at is not None:
            times["expirationTime"] = iso(job.expires_at)
        uri = _uri(request, job)
        return JSONResponse({
            "name": f"files/{job.id}", "mimeType": content.media_type, "sizeBytes": str(content.size_bytes), "state": "ACTIVE",
            "source": "GENERATED", "uri": uri.partition(":download")[0], "downloadUri": uri, **times,
        })  # fmt: skip

    # --- Interactions.

    async def _create(self, request: HttpRequest) -> Response:
        problems = Problems()
        key = idempotency_key(request.raw, problems)
        wanted = await asked(await request.json(), problems, self._services.intake)
        if wanted.stream:
            return self._stream(request, wanted)
        desk = self._services.desk()
        job = await desk.submit(request.principal, wanted.new_job(key))
        if wanted.background:
            return JSONResponse(answers.interaction(job))
        job = await desk.until_over(request.principal, job.id, _MAX_WAIT_S)
        return await self._interaction(request, job)

    def _stream(self, request: HttpRequest, wanted: Asked) -> Response:
        order = wanted.order(self._services.intake)
        events = answers.StreamedInteraction(order.request.session_id, wanted.request.model, self._now(), request.request_id)
        return streamed(self._services.runner, order, request.call, events.encode, answers.MEDIA_TYPE, failed=events.failed)

    async def _get(self, request: HttpRequest) -> Response:
        if request.raw.query_params.get("stream", "false").lower() == "true":
            raise InvalidRequest((FieldViolation("stream", "must be false or unset: an interaction is fetched whole; got true"),))
        return await self._interaction(request, await self._job(request, request.raw.path_params["id"]))

    async def _interaction(self, request: HttpRequest, job: Job) -> Response:
        if job.status is not JobStatus.COMPLETED:
            return JSONResponse(answers.interaction(job))
        if job.shown.get("by_uri"):
            return JSONResponse(answers.interaction(job, {"uri": _uri(request, job)}))
        content = await self._content(request, job)
        mp4 = await content_bytes(content)
        url = _store_url(request, content)
        return await _rendered(lambda: answers.interaction(job, {"uri": url} if mp4 is None else answers.inline(mp4)))

    async def _cancel(self, request: HttpRequest) -> Response:
        job = await self._services.desk().cancel(request.principal, request.raw.path_params["id"])
        return JSONResponse(answers.interaction(job))

    async def _delete(self, request: HttpRequest) -> Response:
        await self._services.desk().delete(request.principal, request.raw.path_params["id"])
        return JSONResponse({})

    async def _job(self, request: HttpRequest, job_id: str) -> Job:
        return await self._services.desk().get(request.principal, job_id)

    async def _content(self, request: HttpRequest, job: Job) -> Content:
        return await self._services.desk().content(request.principal, job.id)


def _post(path: str, operation: str, handler: Handler) -> Endpoint:
    return Endpoint(path=path, method="POST", operation=operation, handler=handler)


def _get(path: str, operation: str, handler: Handler) -> Endpoint:
    return Endpoint(path=path, method="GET", operation=operation, handler=handler)


def _vertex_model(params: Mapping[str, str]) -> str:
    """The model's path, with its project where the caller has one."""
    project = f"projects/{params['project']}/locations/{params['location']}/" if "project" in params else ""
    return f"{project}publishers/google/models/{params['model']}"


def _gemini_model(params: Mapping[str, str]) -> str:
    return f"models/{params['model']}"


def _uri(request: HttpRequest, job: Job) -> str:
    """Where the caller fetches the video, with its key."""
    return f"{request.base_url}/v1beta/files/{job.id}:download?alt=media"


def _store_url(request: HttpRequest, content: Content) -> str:
    """Where whoever holds the address fetches the video, until it expires."""
    return content.url or f"{request.base_url}{content.link}"


async def _rendered(make: Callable[[], Mapping[str, Any]]) -> Response:
    """An answer that holds a video, which takes a while to encode."""
    return Response(await asyncio.to_thread(lambda: json.dumps(make()).encode()), media_type="application/json")
