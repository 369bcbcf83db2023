"""The OpenAPI document of our own API. Bodies are written from the classes that check them, so the document cannot fall behind."""

from __future__ import annotations

from typing import Any, get_args

from doors.http.own.batches import MEDIA_TYPE as JSON_LINES
from doors.http.own.batches import PREFIX as BATCH_PREFIX
from doors.http.own.hls import PLAYLIST_TYPE, SEGMENT_TYPE
from doors.http.own.jobs import MOST_LISTED, PREFIX
from doors.http.own.schemas import Body, JobBody, ReplayBody, StreamBody, StreamFormat, WebhookEndpointBody
from doors.http.own.webhooks import PREFIX as WEBHOOK_PREFIX
from service.jobs.job import JobStatus, Variant

VERSION = "1"
_SCHEMAS = "#/components/schemas/"
_JSON = "application/json"

Node = dict[str, Any]


def document(public_url: str = "") -> Node:
    """The document; `public_url` as callers reach the server, or empty."""
    job_id = _parameter("id", "path", {"type": "string", "pattern": f"^{PREFIX}[a-z0-9]{{12}}$"}, "As the job was answered.")
    batch_id = _parameter("id", "path", {"type": "string", "pattern": f"^{BATCH_PREFIX}[a-z0-9]{{12}}$"}, "As the batch was answered.")
    hook = {"type": "string", "pattern": f"^{WEBHOOK_PREFIX}[a-z0-9]{{12}}$"}
    endpoint_id = _parameter("id", "path", hook, "As the endpoint was answered.")
    job = _answer("The job.", "Job")
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Headrace", "version": VERSION, "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
            "description": "Video that is made while it is watched, and jobs that make video for later.",
        },
        "servers": [{"url": public_url or "/"}],
        "security": [{"bearer": []}, {"key": []}],
        "paths": {
            "/v1/stream": {"post": _operation("stream", "Make a video, and send it while it is made.", {
                "200": {"description": "The video.", "content": {
                    "video/mp4": {"schema": _binary()},
                    "multipart/x-mixed-replace": {"schema": _binary()},
                    "text/event-stream": {"schema": {"type": "string"}},
                }},
            }, parameters=[_parameter("format", "query", {"enum": list(get_args(StreamFormat))}, "Of the answer.")], body=StreamBody)},
            "/v1/replays": {"post": _operation("replay", "See the last seconds of a session again, slowed down.", {
                "200": {"description": "The replay.", "content": {
                    "video/mp4": {"schema": _binary()},
                    "multipart/x-mixed-replace": {"schema": _binary()},
                    "text/event-stream": {"schema": {"type": "string"}},
                }},
                "404": _refused("No session has the token."),
            }, parameters=[_parameter("format", "query", {"enum": list(get_args(StreamFormat))}, "Of the answer.")], body=ReplayBody)},
            "/v1/tickets": {"post": _operation("create_ticket", "What a page offers as `ticket.TICKET` when it asks for a WebSocket.", {
                "201": _answer("The ticket.", "Ticket"),
            })},
            "/v1/watch/{token}": {"get": _operation("watch", "See a session that somebody else runs.", {
                "200": {"description": "The session, from its newest chunk on.", "content": {
                    "video/mp4": {"schema": _binary()},
                    "multipart/x-mixed-replace": {"schema": _binary()},
                    "text/event-stream": {"schema": {"type": "string"}},
                }},
                "404": _refused("No session that runs has the token."),
            }, parameters=[
                _parameter("token", "path", {"type": "string"}, "`watch_token` of the session's `started`."),
                _parameter("format", "query", {"enum": list(get_args(StreamFormat))}, "Of the answer, as the session's codec allows."),
            ])},
            "/v1/watch/{token}/hls/{name}": {"get": _operation("watch_hls", "See a session that somebody else runs, in a player of HLS.", {
                "200": {"description": "A playlist, or what one names. Begin with `index.m3u8`.", "content": {
                    PLAYLIST_TYPE: {"schema": {"type": "string"}}, SEGMENT_TYPE: {"schema": _binary()},
                }},
                "404": _refused("No session that runs has the token, or its playlist does not name this."),
            }, parameters=[
                _parameter("token", "path", {"type": "string"}, "`watch_token` of the session's `started`."),
                _parameter("name", "path", {"type": "string"}, "`index.m3u8`, or as a playlist has it."),
                _parameter("_HLS_msn", "query", {"type": "integer", "minimum": 0}, "Wait until the playlist has this segment,"),
                _parameter("_HLS_part", "query", {"type": "integer", "minimum": 0}, "or this part of it."),
            ])},
            "/v1/models": {"get": _operation("list_models", "All models.", {"200": _answer("The models.", "Models")})},
            "/v1/models/{model}": {"get": _operation(
                "get_model", "One of the models.", {"200": _answer("The model.", "Model"), "404": _refused("No such model.")},
                parameters=[_parameter("model", "path", {"type": "string"}, "Its name, or an alias.")],
            )},
            "/v1/watch/{token}/whep": {"post": _operation("whep", "The same over WebRTC, by WHEP: the offer is the body, in SDP.", {
                "201": _sdp(), "404": _refused("No session that runs has the token."), "501": _refused("No WebRTC is served."),
            }, parameters=[_parameter("token", "path", {"type": "string"}, "`watch_token` of the session's `started`.")])},
            "/v1/whip": {"post": _operation("whip", "Video in over WebRTC, by WHIP, restyled while it comes: the offer is the body.", {
                "201": _sdp(), "501": _refused("No WebRTC is served."),
            }, parameters=[
                _parameter("prompt", "query", {"type": "string"}, "What to make of the video."),
                _parameter("strength", "query", {"type": "number"}, "How much may change: above 0, at most 1."),
            ])},
            "/v1/jobs": {
                "post": _operation("create_job", "Put a job into the queue.", {"201": job}, body=JobBody, parameters=[
                    _parameter("Idempotency-Key", "header", {"type": "string", "maxLength": 256}, "The same key makes no second job."),
                ]),
                "get": _operation("list_jobs", "Your jobs, newest first.", {"200": _answer("A page of jobs.", "Jobs")}, parameters=[
                    _parameter("after", "query", {"type": "string"}, "`last_id` of the page before."),
                    _parameter("limit", "query", {"type": "integer", "minimum": 1, "maximum": MOST_LISTED}, "Jobs a page; 20 if left out."),
                    _parameter("order", "query", {"enum": ["asc", "desc"]}, "By the time they were made."),
                    _parameter("status", "query", {"type": "array", "items": {"enum": [s.value for s in JobStatus]}}, "All if left out."),
                ]),
            },
            "/v1/batches": {"post": _operation("create_batch", "Put many jobs into the queue, all or none: a line of JSON each.", {
                "201": _answer("The batch.", "Batch"),
            }, lines=True)},
            "/v1/batches/{id}": {"get": _operation("get_batch", "How far a batch is.", {
                "200": _answer("The batch.", "Batch"), "404": _refused("No such batch."),
            }, parameters=[batch_id])},
            "/v1/batches/{id}/manifest": {"get": _operation("get_manifest", "What became of each row, a line of JSON each.", {
                "200": {"description": "The manifest.", "content": {JSON_LINES: {"schema": {"type": "string"}}}},
                "404": _refused("No such batch."),
            }, parameters=[batch_id])},
            "/v1/webhook_endpoints": {
                "post": _operation("create_webhook_endpoint", "Have every end of a job of yours reported; the secret is shown once.", {
                    "201": _answer("The endpoint, with its secret.", "WebhookEndpoint"), "409": _refused("It is registered already."),
                }, body=WebhookEndpointBody),
                "get": _operation("list_webhook_endpoints", "All of yours, the oldest first.", {
                    "200": _answer("The endpoints, without secrets.", "WebhookEndpoints"),
                }),
            },
            "/v1/webhook_endpoints/{id}": {"delete": _operation("delete_webhook_endpoint", "Report nothing there any more.", {
                "200": _answer("It is gone.", "DeletedEndpoint"), "404": _refused("No such endpoint."),
            }, parameters=[endpoint_id])},
            "/v1/jobs/{id}": {
                "get": _operation("get_job", "One job.", {"200": job, "404": _refused("No such job.")}, parameters=[job_id]),
                "delete": _operation("delete_job", "Cancel a job, and remove its files.", {
                    "200": _answer("It is gone.", "Deleted"), "404": _refused("No such job."),
                }, parameters=[job_id]),
            },
            "/v1/jobs/{id}/cancel": {"post": _operation("cancel_job", "Ask for the end of a job.", {
                "200": job, "404": _refused("No such job."),
            }, parameters=[job_id])},
            "/v1/jobs/{id}/content": {"get": _operation("get_content", "The file of a completed job, or a range of it.", {
                "200": {"description": "The file.", "content": {"video/mp4": {"schema": _binary()}}},
                "206": {"description": "A part of it.", "content": {"video/mp4": {"schema": _binary()}}},
                "302": {"description": "The way to the store that serves it."},
                "404": _refused("No such job."), "409": _refused("The job is not completed."),
            }, parameters=[job_id, _parameter("variant", "query", {"enum": [v.value for v in Variant]}, "What to fetch.")])},
        },
        "components": {
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "key": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
            },
            "schemas": _schemas(),
        },
    }  # fmt: skip


def _operation(
    name: str, summary: str, answers: Node, *, parameters: list[Node] | None = None, body: type[Body] | None = None,
    lines: bool = False,
) -> Node:  # fmt: skip
    made: Node = {"operationId": name, "summary": summary, "responses": {**answers, "default": _refused("What went wrong.")}}
    if parameters:
        made["parameters"] = parameters
    if body is not None:
        schema = {"$ref": f"{_SCHEMAS}{body.__name__}"}
        made["requestBody"] = {"required": True, "content": {_JSON: {"schema": schema}}}
    if lines:
        made["requestBody"] = {"required": True, "content": {JSON_LINES: {"schema": {"type": "string"}}}}
    return made


def _parameter(name: str, place: str, schema: Node, text: str) -> Node:
    return {"name": name, "in": place, "schema": schema, "description": text, **({"required": True} if place == "path" else {})}


def _answer(text: str, schema: str) -> Node:
    return {"description": text, "content": {_JSON: {"schema": {"$ref": f"{_SCHEMAS}{schema}"}}}}


def _sdp() -> Node:
    return {"description": "The answer. Location says where DELETE ends it.", "content": {"application/sdp": {"schema": _binary()}}}


def _refused(text: str) -> Node:
    return _answer(text, "Refused")


def _binary() -> Node:
    return {"type": "string", "format": "binary"}


def _object(required: tuple[str, ...], **properties: Node) -> Node:
    return {"type": "object", "required": list(required), "properties": properties}


def _schemas() -> Node:
    found: Node = {}
    for body in (StreamBody, ReplayBody, JobBody, WebhookEndpointBody):
        schema = body.model_json_schema(ref_template=f"{_SCHEMAS}{{model}}")
        found |= schema.pop("$defs", {})
        found[body.__name__] = schema
    text, number, moment = {"type": "string"}, {"type": "number"}, {"type": ["number", "null"]}
    violation = _object(("field", "description"), field=text, description=text)
    found["Refused"] = _object(("error",), error=_object(
        ("code", "message", "request_id"), code=text, message=text, request_id=text,
        violations={"type": "array", "items": violation}, retry_after_seconds=number,
    ))  # fmt: skip
    found["Ticket"] = _object(("ticket", "expires_at"), ticket=text, expires_at=number)
    found["Model"] = _object(("id", "object", "created", "owned_by"), id=text, object={"const": "model"}, created=number, owned_by=text)
    found["Models"] = _object(("object", "data"), object={"const": "list"}, data={"type": "array", "items": {"$ref": f"{_SCHEMAS}Model"}})
    found["Job"] = _object(
        ("id", "object", "status", "progress"), id=text, object={"const": "job"}, status={"enum": [s.value for s in JobStatus]},
        progress={"type": "number", "minimum": 0, "maximum": 1}, created_at=number, updated_at=number, started_at=moment,
        ended_at=moment, expires_at=moment, model=text, prompt=text, seconds=number,
        quality={"type": ["object", "null"], "description": "Measures of the finished video, proxies among them; null if not measured."},
    )  # fmt: skip
    found["Jobs"] = _object(
        ("object", "data", "has_more"), object={"const": "list"}, has_more={"type": "boolean"},
        data={"type": "array", "items": {"$ref": f"{_SCHEMAS}Job"}},
    )  # fmt: skip
    found["Batch"] = _object(
        ("id", "object", "status", "total", "counts"), id=text, object={"const": "batch"}, status={"enum": ["running", "completed"]},
        created_at=number, total=number, counts={"type": "object", "additionalProperties": number},
    )  # fmt: skip
    found["WebhookEndpoint"] = _object(
        ("id", "object", "url", "created_at"), id=text, object={"const": "webhook_endpoint"}, url=text, created_at=number, secret=text,
    )  # fmt: skip
    found["WebhookEndpoints"] = _object(
        ("object", "data"), object={"const": "list"}, data={"type": "array", "items": {"$ref": f"{_SCHEMAS}WebhookEndpoint"}}
    )
    gone = {"const": "webhook_endpoint.deleted"}
    found["DeletedEndpoint"] = _object(("id", "object", "deleted"), id=text, object=gone, deleted={"const": True})
    found["Deleted"] = _object(("id", "object", "deleted"), id=text, object={"const": "job.deleted"}, deleted={"const": True})
    return found
