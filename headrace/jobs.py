"""A client of a server's jobs, over its own HTTP API. It needs nothing but the standard library, and blocks.

jobs = JobsClient("http://127.0.0.1:8080")
job = jobs.submit({"prompt": "a red circle", "seconds": 4})
while not job.over: ...
"""

from __future__ import annotations

import http.client
import json
import ssl
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

_OVER = frozenset({"completed", "failed", "cancelled", "expired"})
_TIMEOUT_S = 30.0
_TRIES = 4
_RETRIED = frozenset({408, 429, 500, 502, 503, 504})
_LONGEST_WAIT_S = 30.0
_READ_BYTES = 1024 * 1024
_MOST_JSON = 64 * 1024 * 1024
_REDIRECTS = frozenset({301, 302, 303, 307, 308})


class JobsError(Exception):
    """A call failed.

    Attributes:
        status: of HTTP; 0 where nobody answered.
        retry_after_s: the server's advice; None where it gave none.
    """

    def __init__(self, message: str, status: int = 0, retry_after_s: float | None = None) -> None:
        self.status = status
        self.retry_after_s = retry_after_s
        super().__init__(message)


@dataclass(frozen=True, slots=True)
class RemoteJob:
    """A job as the server tells it; `told` is all that it tells."""

    id: str
    status: str
    frames_done: int = 0
    frames_total: int = 0
    told: Mapping[str, Any] = field(default_factory=dict)

    @property
    def over(self) -> bool:
        return self.status in _OVER

    @property
    def error(self) -> str:
        """Why it failed; empty where it did not."""
        told = self.told.get("error") or {}
        return str(told.get("message", "")) if isinstance(told, Mapping) else str(told)


class JobsClient:
    """Calls one server.

    Args:
        url: of the server, as `http://127.0.0.1:8080`.
        key: of the caller; empty where the server asks for none.
        sleep: seconds, between tries.

    Raises:
        ValueError: that is no URL of a server.
    """

    def __init__(self, url: str, key: str = "", sleep: Callable[[float], None] = time.sleep) -> None:
        parts = urlsplit(url if "://" in url else f"http://{url}")
        if parts.scheme not in {"http", "https"} or not parts.hostname or parts.query or parts.fragment:
            raise ValueError(f"must be http://HOST:PORT or https://HOST:PORT; got {url[:256]!a}")
        self.url = f"{parts.scheme}://{parts.netloc}{parts.path.rstrip('/')}"
        self._key = key
        self._sleep = sleep

    def submit(self, request: Mapping[str, Any], idempotency_key: str = "") -> RemoteJob:
        """Put a job into the queue. A try whose answer is lost does not make a second one."""
        headers = {"idempotency-key": idempotency_key or uuid.uuid4().hex, "content-type": "application/json"}
        return _job(self._json("POST", "/v1/jobs", json.dumps(request).encode(), headers))

    def submit_batch(self, lines: bytes, idempotency_key: str = "") -> dict[str, Any]:
        """Put a job into the queue for each line of JSON: all of them or none. Returns the batch."""
        headers = {"idempotency-key": idempotency_key or uuid.uuid4().hex, "content-type": "application/jsonl"}
        return self._json("POST", "/v1/batches", lines, headers)

    def get(self, job_id: str) -> RemoteJob:
        return _job(self._json("GET", f"/v1/jobs/{quote(job_id, safe='')}"))

    def batch(self, batch_id: str) -> dict[str, Any]:
        """How far a batch is."""
        return self._json("GET", f"/v1/batches/{quote(batch_id, safe='')}")

    def manifest(self, batch_id: str) -> list[dict[str, Any]]:
        """What became of each row of a batch."""
        answer = self._answer("GET", f"/v1/batches/{quote(batch_id, safe='')}/manifest")
        return [json.loads(line) for line in answer.splitlines() if line.strip()]

    def list(self, *, status: str = "", after: str = "", limit: int = 20) -> tuple[list[RemoteJob], bool]:
        """A page, newest first, and whether there are more."""
        query = {"limit": str(limit)} | ({"status": status} if status else {}) | ({"after": after} if after else {})
        told = self._json("GET", f"/v1/jobs?{urlencode(query)}")
        return [_job(each) for each in told.get("data", ())], bool(told.get("has_more"))

    def cancel(self, job_id: str) -> RemoteJob:
        return _job(self._json("POST", f"/v1/jobs/{quote(job_id, safe='')}/cancel"))

    def fetch(self, job_id: str, out: Path) -> int:
        """Write the video to `out`, which is there whole or not at all. Returns its size."""
        unfinished = out.with_name(f".{out.name}.{uuid.uuid4().hex[:8]}")
        try:
            with unfinished.open("xb") as file:
                size = sum(file.write(block) for block in self._content(f"{self.url}/v1/jobs/{quote(job_id, safe='')}/content"))
            unfinished.replace(out)
        finally:
            unfinished.unlink(missing_ok=True)
        return size

    def _content(self, url: str) -> Iterator[bytes]:
        """A store may serve the file: the way there is followed once, without the key."""
        for headers in (self._headers(), {}):
            connection, answer = _asked("GET", url, None, headers)
            try:
                if answer.status in _REDIRECTS and (place := answer.getheader("location")):
                    url = place if "://" in place else f"{self.url}{place}"
                    continue
                if answer.status != 200:
                    raise _refused(answer)
                expected, size = answer.length, 0
                while block := answer.read(_READ_BYTES):
                    size += len(block)
                    yield block
                if expected is not None and size != expected:
                    raise JobsError(f"the file broke off after {size} of {expected} bytes")
                return
            finally:
                connection.close()
        raise JobsError("the server sends from one place to the next")

    def _json(self, method: str, path: str, body: bytes | None = None, headers: Mapping[str, str] | None = None) -> dict[str, Any]:
        answer = self._answer(method, path, body, headers)
        try:
            read = json.loads(answer)
        except ValueError:
            read = None
        if not isinstance(read, dict):
            raise JobsError(f"{self.url}{path.partition('?')[0]} answers with no JSON object; is it a Headrace server?")
        return read

    def _answer(self, method: str, path: str, body: bytes | None = None, headers: Mapping[str, str] | None = None) -> bytes:
        for left in range(_TRIES - 1, -1, -1):
            try:
                connection, answer = _asked(method, f"{self.url}{path}", body, {**self._headers(), **(headers or {})})
                try:
                    if 200 <= answer.status < 300:
                        return answer.read(_MOST_JSON)
                    raise _refused(answer)
                finally:
                    connection.close()
            except JobsError as error:
                if not left or (error.status and error.status not in _RETRIED):
                    raise
                wait_s = 2.0 ** (_TRIES - 1 - left) / 2 if error.retry_after_s is None else error.retry_after_s
                if wait_s > _LONGEST_WAIT_S:
                    raise
                self._sleep(wait_s)
        raise AssertionError("unreachable")

    def _headers(self) -> dict[str, str]:
        return {"authorization": f"Bearer {self._key}"} if self._key else {}


def _asked(
    method: str, url: str, body: bytes | None, headers: Mapping[str, str]
) -> tuple[http.client.HTTPConnection, http.client.HTTPResponse]:
    """Raises JobsError: nobody answers."""
    parts = urlsplit(url)
    connection: http.client.HTTPConnection
    if parts.scheme == "https":
        connection = http.client.HTTPSConnection(parts.netloc, timeout=_TIMEOUT_S, context=ssl.create_default_context())
    else:
        connection = http.client.HTTPConnection(parts.netloc, timeout=_TIMEOUT_S)
    try:
        connection.request(method, f"{parts.path or '/'}{'?' + parts.query if parts.query else ''}", body, dict(headers))
        return connection, connection.getresponse()
    except (OSError, http.client.HTTPException) as error:
        connection.close()
        raise JobsError(f"{parts.scheme}://{parts.netloc} does not answer: {str(error) or type(error).__name__}") from None


def _refused(answer: http.client.HTTPResponse) -> JobsError:
    """What an answer that is no success says, in whatever shape."""
    retry = answer.getheader("retry-after", "")
    text = answer.read(64 * 1024)
    try:
        told = json.loads(text).get("error", {})
        message = str(told.get("message", "")) if isinstance(told, Mapping) else str(told)
    except (ValueError, AttributeError):
        message = ""
    return JobsError(message or f"HTTP {answer.status} {answer.reason}", answer.status, float(retry) if retry.isdecimal() else None)


def _job(told: Mapping[str, Any]) -> RemoteJob:
    if "id" not in told or "status" not in told:
        raise JobsError("the server answers with no job; is it a Headrace server?")
    return RemoteJob(str(told["id"]), str(told["status"]), int(told.get("frames_done") or 0), int(told.get("frames_total") or 0), told)
