"""curl and a WebSocket against a server's own API: `python -m bench.doors.own_check --url http://127.0.0.1:8080`.

Its environment is `requirements-own.txt`; curl is the machine's.
"""

from __future__ import annotations

import base64
import json
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

from websockets.sync.client import connect
from websockets.typing import Subprotocol

from bench.doors.cases import Cases, Skipped, Target, check
from bench.doors.mp4 import played

BODY = {"prompt": "a red circle moving right", "seconds": 2}
_WAIT_S, _POLL_S = 600.0, 0.5


def main() -> None:
    target, cases = Target.of_arguments(), Cases("own")
    with tempfile.TemporaryDirectory(prefix="headrace-check-") as folder:
        run = Check(target, Path(folder))
        cases.run_all(
            (
                ("stream an MP4", run.stream),
                ("stream JPEGs", run.jpegs),
                ("stream events", run.events),
                ("stream of a form", run.form),
                ("live", run.live),
                ("models", run.models),
                ("openapi", run.openapi),
                ("health", run.health),
                ("create", run.create),
                ("wait", run.wait),
                ("fetch", run.fetch),
                ("fetch a range", run.fetch_range),
                ("list", run.list),
                ("same idempotency key", run.idempotent),
                ("cancel", run.cancel),
                ("delete", run.delete),
                ("wrong key", run.wrong_key),
                ("over quota", run.over_quota),
                ("bad input", run.bad_input),
            )
        )
    cases.end()


class Check:
    """What a caller types."""

    def __init__(self, target: Target, folder: Path) -> None:
        self.target = target
        self.folder = folder
        self.job = ""

    def stream(self) -> str:
        frames, width, height = played(self._bytes("/v1/stream", "-d", json.dumps(BODY)))
        check(frames > 1, f"{frames} frames")
        return f"{frames} frames of {width}x{height}"

    def jpegs(self) -> str:
        parts = self._bytes("/v1/stream?format=mjpeg", "-d", json.dumps({**BODY, "seconds": 0.5})).split(b"--frame")
        check(len(parts) > 3 and parts[-1] == b"--\r\n", f"{len(parts)} parts")
        return f"{len(parts) - 2} frames"

    def events(self) -> str:
        text = self._bytes("/v1/stream?format=sse", "-N", "-d", json.dumps({**BODY, "seconds": 0.5})).decode()
        names = [line.removeprefix("event: ") for line in text.splitlines() if line.startswith("event: ")]
        check("started" in names and names[-1] == "ended", f"events {names}")
        return " ".join(names)

    def form(self) -> str:
        frames, _, _ = played(self._bytes("/v1/stream", "-F", f"prompt={BODY['prompt']}", "-F", "seconds=0.5", "-F", "seed=7"))
        return f"{frames} frames"

    def live(self) -> str:
        """As a page: with a ticket, and with another prompt while it plays."""
        ticket = self._json("/v1/tickets", "-X", "POST")["ticket"]
        offered = [Subprotocol("headrace.v1"), Subprotocol(f"ticket.{ticket}")]
        names, media = list[str](), b""
        url = f"ws{self.target.url.removeprefix('http')}/v1/live"
        with connect(url, subprotocols=offered, max_size=None, proxy=None, open_timeout=_WAIT_S) as ws:
            ws.send(json.dumps({"start": BODY}))
            for message in ws:
                if isinstance(message, bytes):
                    media += message
                    continue
                event = json.loads(message)
                names.append(event["event"])
                media += base64.b64decode(event.get("codec_header", ""))
                if names.count("frames") == 1 and event["event"] == "frames":
                    ws.send(json.dumps({"prompt": {"prompt": "a blue square", "request_id": 1}}))
        check(names[0] in ("started", "queue_position") and names[-1] == "ended" and "prompt_applied" in names, f"events {names}")
        frames, width, height = played(media)
        return f"{frames} frames of {width}x{height}"

    def models(self) -> str:
        listed = self._json("/v1/models")
        check(listed["object"] == "list" and listed["data"], "no models")
        return str(listed["data"][0]["id"])

    def openapi(self) -> str:
        return f"{len(self._json('/openapi.json')['paths'])} paths"

    def health(self) -> None:
        check(self._json("/healthz")["status"] == "ok", "not alive")
        check(self._json("/readyz")["ready"], "not ready")

    def create(self) -> str:
        status, made = self._call("/v1/jobs", "-d", json.dumps({**BODY, "width": 320, "height": 240}))
        if status == 501:
            raise Skipped("the server has no database")
        check(status == 201, f"{status}: {made}")
        self.job = made["id"]
        return self.job

    def wait(self) -> str:
        until = time.monotonic() + _WAIT_S
        while time.monotonic() < until:
            job = self._json(self._path())
            if job["status"] not in ("queued", "running"):
                check(job["status"] == "completed", f"{job['status']}: {job['error']}")
                return f"{job['size_bytes']} bytes, usage {job['usage']}"
            time.sleep(_POLL_S)
        raise AssertionError(f"not over after {_WAIT_S:g} s")

    def fetch(self) -> str:
        frames, width, height = played(self._bytes(f"{self._path()}/content", "-L"))
        check((width, height) == (320, 240), f"{width}x{height}")
        return f"{frames} frames of {width}x{height}"

    def fetch_range(self) -> str:
        part = self._bytes(f"{self._path()}/content", "-L", "-r", "4-7")
        check(part == b"ftyp", f"got {part!r}")
        return "bytes 4-7"

    def list(self) -> str:
        job_id, page = self._id(), self._json("/v1/jobs?limit=100")
        check(job_id in [job["id"] for job in page["data"]], "the job is not listed")
        return f"{len(page['data'])} jobs"

    def idempotent(self) -> None:
        self._id()
        key = ("-H", f"Idempotency-Key: {time.time_ns()}", "-d", json.dumps(BODY))
        first, again = self._json("/v1/jobs", *key), self._json("/v1/jobs", *key)
        check(first["id"] == again["id"], "a second job was made")
        status, _ = self._call("/v1/jobs", *key[:2], "-d", json.dumps({**BODY, "seconds": 1}))
        check(status == 409, f"{status} for another request with the same key")

    def cancel(self) -> str:
        self._id()
        job = self._json("/v1/jobs", "-d", json.dumps({**BODY, "seconds": 30}))
        self._json(f"/v1/jobs/{job['id']}/cancel", "-X", "POST")
        until = time.monotonic() + 60
        while (status := self._json(f"/v1/jobs/{job['id']}")["status"]) in ("queued", "running") and time.monotonic() < until:
            time.sleep(_POLL_S)
        check(status == "cancelled", f"it is {status}")
        return str(status)

    def delete(self) -> None:
        check(self._json(self._path(), "-X", "DELETE")["deleted"], "not deleted")
        status, _ = self._call(self._path())
        check(status == 404, f"{status} afterwards")

    def wrong_key(self) -> str:
        if not self.target.wrong_key:
            raise Skipped("the server takes any key")
        return self._refused(401, "unauthenticated", self.target.wrong_key)

    def over_quota(self) -> str:
        if not self.target.spent_key:
            raise Skipped("no key whose quota is used up")
        return self._refused(429, "quota", self.target.spent_key)

    def bad_input(self) -> str:
        status, told = self._call("/v1/stream", "-d", json.dumps({"prompt": "a", "seconds": -1}))
        violations = told["error"]["violations"]
        check(status == 400 and violations[0]["field"] == "seconds" and "got -1" in violations[0]["description"], f"{status}: {told}")
        return str(violations[0]["description"])

    def _refused(self, wanted: int, code: str, key: str) -> str:
        status, told = self._call("/v1/stream", "-d", json.dumps(BODY), key=key)
        check((status, told["error"]["code"]) == (wanted, code), f"{status}: {told}")
        return str(told["error"]["message"])

    def _id(self) -> str:
        if not self.job:
            raise Skipped("there is no job")
        return self.job

    def _path(self) -> str:
        return f"/v1/jobs/{self._id()}"

    def _json(self, path: str, *arguments: str) -> dict[str, Any]:
        status, told = self._call(path, *arguments)
        check(200 <= status < 300, f"{path}: {status}: {told}")
        return told

    def _call(self, path: str, *arguments: str, key: str = "") -> tuple[int, dict[str, Any]]:
        status, data = self._curl(path, *arguments, key=key)
        return status, json.loads(data)

    def _bytes(self, path: str, *arguments: str) -> bytes:
        status, data = self._curl(path, *arguments)
        check(status in (200, 206), f"{path}: {status}: {data[:300]!r}")
        return data

    def _curl(self, path: str, *arguments: str, key: str = "") -> tuple[int, bytes]:
        out = self.folder / "out"
        out.write_bytes(b"")
        head = ["-H", f"Authorization: Bearer {key or self.target.key}"]
        command = ["curl", "-sS", "--noproxy", "*", "-o", str(out), "-w", "%{http_code}", *head, *arguments, f"{self.target.url}{path}"]
        ran = subprocess.run(command, capture_output=True, text=True, timeout=_WAIT_S, check=False)
        check(ran.returncode == 0, f"curl exits with {ran.returncode}: {ran.stderr.strip()}")
        return int(ran.stdout), out.read_bytes()


if __name__ == "__main__":
    main()
