"""OpenAI's video API, and the same on Azure's paths. Each handler translates, and asks the service."""

from __future__ import annotations

import mimetypes
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from starlette.datastructures import UploadFile
from starlette.responses import JSONResponse, Response

from doors.http.contents import content_response
from doors.http.given import Given, check_all, idempotency_key, shown
from doors.http.openai.bodies import members, unfold
from doors.http.openai.refusals import refusal
from doors.http.openai.requests import DOOR, Requests, parent_id
from doors.http.openai.videos import job_id, page, poll_after_ms, video, video_id
from doors.http.polled import Polled
from doors.http.room import Endpoint, Handler, HttpRequest, Services
from model_core.errors import FieldViolation, InvalidRequest
from service.checks import Problems
from service.failures import Failure
from service.jobs.files.presentation import placement
from service.jobs.job import Job, JobNotFound, JobQuery, NewJob, Variant
from service.orders import Mode

# OpenAI's clients take a base URL that ends in /v1; Azure's add the rest to one without. Both ignore the query `api-version`.
PREFIXES = ("/v1", "/openai", "/openai/v1")

_MAX_PAGE = 100
_DEFAULT_PAGE = 20
# Of a video that is answered with at once: it is in memory, once.
_MAX_SYNC_BYTES = 128 * 1024 * 1024
# Of a prompt, a webhook and their names, in JSON that may write each byte as six.
_ROOM_BYTES = 64 * 1024


class OpenAiRoom:
    """See `doors.http.room.Room`."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._requests = Requests(services.intake)
        self._limits = services.intake.limits
        self._polled = Polled(self._video)

    @property
    def name(self) -> str:
        return DOOR

    def endpoints(self) -> Sequence[Endpoint]:
        routes: tuple[tuple[str, str, str, Handler], ...] = (
            ("POST", "/videos", "videos.create", self.create),
            ("GET", "/videos", "videos.list", self.list),
            ("POST", "/videos/sync", "videos.sync", self.sync),
            ("POST", "/videos/edits", "videos.edit", self.edit),
            ("POST", "/videos/extensions", "videos.extend", self.extend),
            ("GET", "/videos/{video_id}", "videos.retrieve", self.retrieve),
            ("DELETE", "/videos/{video_id}", "videos.delete", self.delete),
            ("GET", "/videos/{video_id}/content", "videos.content", self.content),
            ("POST", "/videos/{video_id}/remix", "videos.remix", self.remix),
        )
        found = [
            Endpoint(path=prefix + path, method=method, operation=operation, handler=handler)
            for prefix in PREFIXES
            for method, path, operation, handler in routes
        ]
        # Under /v1 the list of models belongs to the server's own API, which has the same shape.
        azure = [Endpoint(path=f"{prefix}/models", method="GET", operation="models.list", handler=self.models) for prefix in PREFIXES[1:]]
        return [*found, *azure]

    def refuse(self, failure: Failure) -> Response:
        return refusal(failure)

    async def create(self, request: HttpRequest) -> Response:
        problems = Problems()
        fields = await self._fields(request, problems)
        key = idempotency_key(request.raw, problems)
        return await self._submit(request, await self._requests.creation(fields, problems, key), problems)

    async def sync(self, request: HttpRequest) -> Response:
        """The MP4 itself, without a job."""
        began = time.monotonic()
        problems = Problems()
        fields = await members(request, self._limits.max_request_bytes, problems)
        new = await self._requests.creation(fields, problems, "")
        order = self._services.intake.order(new.request, replace(new.doorway, mode=Mode.FILE), problems)
        file = await self._services.runner.make_file(order, request.call, _MAX_SYNC_BYTES, placement(new.presentation, order.config))
        headers = {
            "x-request-id": request.request_id,
            "x-model": order.config.name,
            "x-inference-time-s": f"{time.monotonic() - began:.3f}",
            "x-headrace-seed": f"{order.request.seed}",
            "x-headrace-frames": f"{file.ended.usage.frames}",
            "x-headrace-rendered": f"{order.config.width}x{order.config.height}",
        }
        return Response(file.mp4, media_type="video/mp4", headers=headers)

    async def retrieve(self, request: HttpRequest) -> Response:
        return self._polled.answer(await self._mine(request))

    async def list(self, request: HttpRequest) -> Response:
        problems = Problems()
        given = Given(dict(request.raw.query_params), problems)
        limit, after = given.integer("limit", 1, _MAX_PAGE), given.text("after")
        ascending = given.choice("order", ("asc", "desc")) == "asc"
        problems.check()
        try:
            query = JobQuery(after=job_id(after) if after else "", limit=limit or _DEFAULT_PAGE, ascending=ascending, door=DOOR)
            found = await self._services.desk().list(request.principal, query)
        except JobNotFound:
            raise InvalidRequest((FieldViolation("after", f"must be the id of one of your videos; got {shown(after)}"),)) from None
        return JSONResponse(page(found, [self._shown(job) for job in found.jobs]))

    async def delete(self, request: HttpRequest) -> Response:
        job = await self._mine(request)
        await self._services.desk().delete(request.principal, job.id)
        return JSONResponse({"id": video_id(job.id), "object": "video.deleted", "deleted": True})

    async def content(self, request: HttpRequest) -> Response:
        problems = Problems()
        variant = Given(dict(request.raw.query_params), problems).choice("variant", [each.value for each in Variant])
        problems.check()
        job = await self._mine(request)
        found = await self._services.desk().content(request.principal, job.id, Variant(variant or Variant.VIDEO.value))
        return await content_response(found, f"{video_id(job.id)}{mimetypes.guess_extension(found.media_type) or ''}")

    async def remix(self, request: HttpRequest) -> Response:
        problems, parent = Problems(), await self._mine(request)
        fields = await members(request, _ROOM_BYTES + 6 * self._limits.max_prompt_bytes, problems)
        key = idempotency_key(request.raw, problems)
        return await self._submit(request, await self._requests.remix(fields, parent, problems, key), problems)

    async def edit(self, request: HttpRequest) -> Response:
        problems = Problems()
        fields = await self._fields(request, problems)
        await unfold(fields, "video", problems)
        if isinstance(fields.get("video"), UploadFile):
            why = 'must be an object {"id": …}: no model here changes a video that this server did not make; got a file'
            raise InvalidRequest((FieldViolation("video", why),))
        parent = await self._job(request, parent_id(fields.get("video")))
        key = idempotency_key(request.raw, problems)
        return await self._submit(request, await self._requests.edit(fields, parent, problems, key), problems)

    async def extend(self, request: HttpRequest) -> Response:
        problems = Problems()
        fields = await self._fields(request, problems)
        await unfold(fields, "video", problems)
        source, key = fields.get("video"), idempotency_key(request.raw, problems)
        if isinstance(source, UploadFile):
            new = await self._requests.extension_of_file(fields, await source.read(), problems, key)
        else:
            parent = await self._job(request, parent_id(source))
            new = await self._requests.extension(fields, parent, problems, key)
        return await self._submit(request, new, problems)

    async def models(self, request: HttpRequest) -> Response:
        names = sorted(self._services.intake.catalogue.models)
        data = [{"id": name, "object": "model", "created": 0, "owned_by": "headrace"} for name in names]
        return JSONResponse({"object": "list", "data": data})

    async def _fields(self, request: HttpRequest, problems: Problems) -> dict[str, Any]:
        """Of a request for a job. Raises NotServed before it reads any."""
        self._services.desk()
        return await members(request, self._limits.max_request_bytes, problems)

    async def _submit(self, request: HttpRequest, new: NewJob, problems: Problems) -> Response:
        jobs = self._services.desk()
        check_all(problems, self._services.intake, new.request, new.doorway)
        return self._video(await jobs.submit(request.principal, new))

    async def _mine(self, request: HttpRequest) -> Job:
        """The job that the path names."""
        return await self._job(request, job_id(request.raw.path_params["video_id"]))

    async def _job(self, request: HttpRequest, wanted: str) -> Job:
        """One of this door's: those of others have other things in `shown`. Raises JobNotFound."""
        try:
            job = await self._services.desk().get(request.principal, wanted)
        except JobNotFound:
            job = None
        if job is None or job.door != DOOR:
            raise JobNotFound(f"there is no video {video_id(wanted)}")
        return job

    def _video(self, job: Job) -> Response:
        return JSONResponse(self._shown(job), headers={"openai-poll-after-ms": f"{poll_after_ms(job)}"})

    def _shown(self, job: Job) -> dict[str, Any]:
        return video(job, self._services.intake.catalogue.models.get(job.model))
