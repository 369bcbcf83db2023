"""`headrace jobs` and its client, against a server of the standard library that answers as our own API does."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from headrace.cli import app, jobs
from headrace.cli.console import conclude
from headrace.jobs import JobsClient, JobsError

MP4 = b"\x00\x00\x00\x18ftypmp42" + bytes(1000)


@dataclass(slots=True)
class Api:
    """What it was asked, and what it answers. Each look at a job that runs brings it a step on."""

    url: str = ""
    asked: list[tuple[str, str, dict[str, str], bytes]] = field(default_factory=list)
    jobs: dict[str, dict[str, Any]] = field(default_factory=dict)
    keys: dict[str, str] = field(default_factory=dict)
    failing: int = 0
    cut: bool = False
    elsewhere: str = ""

    def put(self, job_id: str, status: str = "queued", **more: Any) -> dict[str, Any]:
        self.jobs[job_id] = {"id": job_id, "object": "job", "status": status, "frames_done": 0, "frames_total": 48, "prompt": "x", **more}
        return self.jobs[job_id]

    def step(self, job: dict[str, Any]) -> dict[str, Any]:
        order = ("queued", "running", "completed")
        if job["status"] in order[:2]:
            job["status"] = order[order.index(job["status"]) + 1]
            job["frames_done"] = 48 if job["status"] == "completed" else 24
        return job


class Handler(BaseHTTPRequestHandler):
    def _api(self) -> Api:
        api: Api = self.server.api  # type: ignore[attr-defined]
        return api

    def _answer(self, status: int, told: Any, media: str = "application/json", **headers: str) -> None:
        body = told if isinstance(told, bytes) else json.dumps(told).encode()
        self.send_response(status)
        for name, value in {"content-type": media, "content-length": str(len(body)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body[: len(body) // 2] if self._api().cut and media == "video/mp4" else body)

    def _any(self) -> None:  # noqa: C901, PLR0911, PLR0912 - a table of routes
        api, url = self._api(), urlsplit(self.path)
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        api.asked.append((self.command, self.path, {name.lower(): value for name, value in self.headers.items()}, body))
        if api.failing:
            api.failing -= 1
            return self._answer(503, {"error": {"message": "the database does not answer"}}, retry_after="0")
        match [self.command, *url.path.strip("/").split("/")[1:]]:
            case ["POST", "jobs"]:
                wish = json.loads(body)
                if "refuse" in wish["prompt"]:
                    return self._answer(400, {"error": {"code": "invalid", "message": "seconds: must be at most 60; got 99"}})
                key = self.headers["idempotency-key"]
                job_id = api.keys.setdefault(key, f"job_{len(api.keys)}")
                return self._answer(201, api.jobs.get(job_id) or api.put(job_id, **{k: v for k, v in wish.items() if k == "prompt"}))
            case ["GET", "jobs"]:
                query = {name: values[0] for name, values in parse_qs(url.query).items()}
                found = [job for job in api.jobs.values() if query.get("status") in (None, job["status"])]
                first = 1 + [job["id"] for job in found].index(query["after"]) if "after" in query else 0
                page = found[first : first + int(query["limit"])]
                return self._answer(200, {"object": "list", "data": page, "has_more": first + len(page) < len(found)})
            case ["POST", "batches"]:
                rows = body.splitlines()
                for number, _ in enumerate(rows):
                    api.put(f"job_b{number}", "queued")
                return self._answer(201, {"id": "batch_1", "object": "batch", "counts": {"queued": len(rows)}})
            case ["GET", "batches", "batch_1"]:
                counts: dict[str, int] = {}
                for job in api.jobs.values():
                    status = api.step(job)["status"]
                    counts[status] = counts.get(status, 0) + 1
                return self._answer(200, {"id": "batch_1", "object": "batch", "counts": counts})
            case ["GET", "batches", "batch_1", "manifest"]:
                lines = [json.dumps({"row": n, "id": job["id"], "status": job["status"]}) for n, job in enumerate(api.jobs.values())]
                return self._answer(200, "\n".join(lines).encode(), "application/jsonl")
            case ["GET", "jobs", job_id, "content"] if job_id in api.jobs:
                if api.elsewhere:
                    return self._answer(302, b"", location=api.elsewhere)
                if api.jobs[job_id]["status"] != "completed":
                    return self._answer(409, {"error": {"message": f"job {job_id} must be completed"}})
                return self._answer(200, MP4, "video/mp4")
            case ["GET", "store"]:
                return self._answer(200, MP4, "video/mp4")
            case ["POST", "jobs", job_id, "cancel"] if job_id in api.jobs:
                api.jobs[job_id]["status"] = "cancelled"
                return self._answer(200, api.jobs[job_id])
            case ["GET", "jobs", job_id] if job_id in api.jobs:
                return self._answer(200, api.step(api.jobs[job_id]))
        return self._answer(404, {"error": {"message": "no such job"}})

    do_GET = do_POST = _any  # noqa: N815 - as the library calls them

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - as the library calls it
        """To nobody."""


@contextmanager
def serving() -> Iterator[Api]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    api = Api(f"http://127.0.0.1:{server.server_address[1]}")
    server.api = api  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield api
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> Iterator[Api]:
    monkeypatch.setattr(jobs, "_LOOK_EVERY_S", 0.0)
    monkeypatch.delenv(jobs.KEY_VARIABLE, raising=False)
    with serving() as made:
        yield made


Run = Callable[..., tuple[int, list[str], str]]


@pytest.fixture
def run(api: Api, capsys: pytest.CaptureFixture[str]) -> Run:
    def command(*arguments: str) -> tuple[int, list[str], str]:
        """Exit code, lines on stdout, and stderr."""
        code = conclude(lambda: app(["jobs", *arguments, "--url", api.url], standalone_mode=False))
        out, err = capsys.readouterr()
        return code, out.splitlines(), err

    return command


def test_a_job_is_put_into_the_queue_and_watched(api: Api, run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(jobs.KEY_VARIABLE, "hr_test")
    (tmp_path / "a.png").write_bytes(b"png")
    code, out, err = run(
        "submit", "a red circle", "--seconds", "2", "--seed", "7", "--size", "320x180", "--label", "a=b",
        "--image", str(tmp_path / "a.png"),
        "--watch",
    )  # fmt: skip
    assert (code, out) == (0, ["job_0"])
    assert "job_0: completed, 48 of 48" in err
    _, _, headers, body = api.asked[0]
    assert headers["authorization"] == "Bearer hr_test"
    assert json.loads(body) == {
        "prompt": "a red circle", "seconds": 2.0, "seed": 7, "width": 320, "height": 180, "labels": {"a": "b"}, "image": "cG5n",
    }  # fmt: skip


def test_what_is_wrong_with_a_request_is_one_line_and_exit_code_2(run: Run) -> None:
    code, out, err = run("submit", "refuse me")
    assert (code, out) == (2, [])
    assert "seconds: must be at most 60; got 99" in err
    for arguments, said in (
        ((), "PROMPT: must be given"),
        (("x", "--file", "y"), "PROMPT: must be given"),
        (("x", "--label", "a"), "--label: must be NAME=VALUE"),
        (("--file", "/nowhere"), "--file: must be a file that exists"),
    ):
        code, _, err = run("submit", *arguments)
        assert code == 2
        assert said in err


def test_a_server_that_is_away_for_a_moment_makes_no_second_job(api: Api, run: Run) -> None:
    api.failing = 2
    assert run("submit", "x")[:2] == (0, ["job_0"])
    assert len({headers["idempotency-key"] for _, _, headers, _ in api.asked}) == 1
    assert len(api.jobs) == 1


def test_no_server() -> None:
    client = JobsClient("http://127.0.0.1:1", sleep=lambda _: None)
    with pytest.raises(JobsError, match="does not answer"):
        client.get("job_0")


@pytest.mark.parametrize("url", ["ftp://a", "http://", "http://a/b?c", ""])
def test_what_is_no_server_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="must be http://HOST:PORT"):
        JobsClient(url)


def test_jobs_are_listed_over_several_pages(api: Api, run: Run) -> None:
    for number in range(5):
        api.put(f"job_{number}", "completed" if number % 2 else "failed")
    assert [line.split()[0] for line in run("list", "--limit", "4")[1]] == [f"job_{number}" for number in range(4)]
    code, out, _ = run("list", "--status", "failed", "--json")
    assert code == 0
    assert [json.loads(line)["id"] for line in out] == ["job_0", "job_2", "job_4"]


def test_a_job_that_fails_is_told_with_its_reason(api: Api, run: Run) -> None:
    api.put("job_0", "failed", error={"code": "unavailable", "message": "the stages stayed away"})
    api.put("job_1")
    code, _, err = run("watch", "job_0", "job_1")
    assert code == 1
    assert "job_0: failed: the stages stayed away" in err
    assert "job_1: running, 24 of 48" in err


def test_cancel(api: Api, run: Run) -> None:
    api.put("job_0")
    assert run("cancel", "job_0")[:2] == (0, ["job_0"])
    assert api.jobs["job_0"]["status"] == "cancelled"
    code, _, err = run("cancel", "job_9")
    assert code == 1
    assert "no such job" in err


def test_a_video_is_fetched_whole_or_not_at_all(api: Api, run: Run, tmp_path: Path) -> None:
    api.put("job_0", "completed")
    assert run("fetch", "job_0", "--out", str(tmp_path / "new/a.mp4"))[0] == 0
    assert (tmp_path / "new/a.mp4").read_bytes() == MP4
    api.cut = True
    assert run("fetch", "job_0", "--out", str(tmp_path / "b.mp4"))[0] == 1
    api.put("job_1", "running")
    assert run("fetch", "job_1", "--out", str(tmp_path / "b.mp4"))[0] == 1
    assert [path.name for path in tmp_path.iterdir()] == ["new"]


def test_a_store_that_serves_the_file_does_not_get_the_key(api: Api, run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(jobs.KEY_VARIABLE, "hr_test")
    with serving() as store:
        api.put("job_0", "completed")
        api.elsewhere = f"{store.url}/v1/store"
        assert run("fetch", "job_0", "--out", str(tmp_path / "a.mp4"))[0] == 0
        assert (tmp_path / "a.mp4").read_bytes() == MP4
        [(_, _, headers, _)] = store.asked
        assert "authorization" not in headers
        api.elsewhere = f"{api.url}/v1/jobs/job_0/content"
        code, _, err = run("fetch", "job_0", "--out", str(tmp_path / "b.mp4"))
    assert code == 1
    assert "from one place to the next" in err


def test_a_batch_is_put_watched_and_fetched_with_its_manifest(api: Api, run: Run, tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"prompt": "a"}\n{"prompt": "b"}\n')
    code, out, err = run("submit", "--file", str(rows), "--watch")
    assert (code, out) == (0, ["batch_1"])
    assert "2 completed" in err
    assert run("fetch", "batch_1", "--batch", "--out", str(tmp_path / "videos"))[0] == 0
    names = sorted(path.name for path in (tmp_path / "videos").iterdir())
    assert names == ["00000-job_b0.mp4", "00001-job_b1.mp4", "manifest.jsonl"]
    assert len((tmp_path / "videos/manifest.jsonl").read_text().splitlines()) == 2
    assert run("watch", "batch_1", "--batch")[0] == 0
    assert api.asked[0][3] == rows.read_bytes()
