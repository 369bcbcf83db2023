"""A request as rooms see it; `doors.http.room.HttpRequest` says what each part is."""

from __future__ import annotations

from contextlib import aclosing
from typing import Any

from starlette.requests import Request

from doors.http import json_body
from doors.http.bodies import Body
from doors.http.form_body import MULTIPART, URL_ENCODED, MultipartForm, kind_of, url_encoded
from doors.http.room import Form
from doors.http.workers import Workers
from model_core.errors import FieldViolation, InvalidRequest
from service.call import Call
from service.identity.principal import Principal

# Parsing less than this takes less time than a thread does.
_AT_ONCE_BYTES = 64 * 1024
# A form goes to its thread in parts of this size.
_BATCH_BYTES = 512 * 1024


class ServedRequest:
    """One request whose caller is known.

    Args:
        raw: without a way to its body, which is read through this alone.
        body: its body.
        call: for the service.
        request_id: names it in logs.
        base_url: how callers reach this server.
        workers: parse large bodies.
    """

    def __init__(self, raw: Request, body: Body, call: Call, request_id: str, base_url: str, workers: Workers) -> None:
        self.raw = raw
        self.call = call
        self.request_id = request_id
        self.base_url = base_url
        self._body = body
        self._workers = workers
        self._form: MultipartForm | None = None

    @property
    def principal(self) -> Principal:
        return self.call.principal

    async def body(self, max_bytes: int | None = None) -> bytes:
        return await self._body.read(max_bytes)

    async def json(self, max_bytes: int | None = None) -> dict[str, Any]:
        data = await self._body.read(max_bytes)
        return json_body.parsed(data) if len(data) <= _AT_ONCE_BYTES else await self._workers.run(json_body.parsed, data)

    async def form(self, max_bytes: int | None = None) -> Form:
        kind, boundary = kind_of(self.raw.headers.get("content-type", ""))
        if kind == URL_ENCODED:
            data = await self._body.read(max_bytes)
            return url_encoded(data) if len(data) <= _AT_ONCE_BYTES else await self._workers.run(url_encoded, data)
        if kind != MULTIPART:
            must = f"must be {MULTIPART} or {URL_ENCODED}"
            raise InvalidRequest((FieldViolation("Content-Type", f"{must}; got {ascii(kind[:64]) if kind else 'none'}"),))
        self._form = form = MultipartForm(boundary)
        batch: list[bytes] = []
        small = True
        async with aclosing(self._body.parts(max_bytes)) as parts:
            async for part in parts:
                batch.append(part)
                if sum(map(len, batch)) >= _BATCH_BYTES:
                    await self._workers.run(_feed, form, batch)
                    batch, small = [], False
        if small and sum(map(len, batch)) <= _AT_ONCE_BYTES:
            _feed(form, batch)
        else:
            await self._workers.run(_feed, form, batch)
        return form.form()

    async def close(self) -> None:
        """The answer is given: files of a form are let go."""
        if self._form is None:
            return
        if self._form.on_disk:
            await self._workers.run(self._form.close)
        else:
            self._form.close()


def _feed(form: MultipartForm, batch: list[bytes]) -> None:
    form.feed(b"".join(batch))
