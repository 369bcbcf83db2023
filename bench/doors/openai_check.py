"""The `openai` package, as anybody installs it, against a server: `python -m bench.doors.openai_check --url http://127.0.0.1:8080`.

Its environment is `requirements-openai.txt`.
"""

from __future__ import annotations

import base64
import io
import os
import queue
import secrets
import uuid
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread
from typing import Any

import openai

from bench.doors import pictures
from bench.doors.cases import Cases, Skipped, Target, check, raises
from bench.doors.mp4 import played

# Set by whoever starts a server that may post to this machine.
WEBHOOKS = "HEADRACE_CHECK_WEBHOOKS"

STOCK: dict[str, Any] = {"prompt": "a red circle moving right", "model": "sora-2", "seconds": "4", "size": "1280x720"}
SHORT: dict[str, Any] = {"prompt": "a blue square", "extra_body": {"num_frames": 12, "seed": 7}}


def main() -> None:
    warnings.simplefilter("ignore", DeprecationWarning)  # the client says that its own server has shut down
    target = Target.of_arguments()
    run(Cases("openai"), target, lambda key: openai.OpenAI(base_url=f"{target.url}/v1", api_key=key))


def run(cases: Cases, target: Target, connect: Callable[[str], Any]) -> None:
    """All cases, with clients that `connect` makes of a key. Exits with 1 if one has failed."""
    Check(connect(target.key)).run(cases)
    refusals(cases, target, connect)
    cases.end()


class Check:
    """What a caller with a sound key does."""

    def __init__(self, client: Any) -> None:
        self.client = client
        self.video: Any = None

    def run(self, cases: Cases) -> None:
        cases.run_all(
            (
                ("create", self.create),
                ("wait", self.wait),
                ("fetch", self.fetch),
                ("fetch a range", self.fetch_range),
                ("fetch pictures", self.fetch_pictures),
                ("list", self.list),
                ("extras of open servers", self.extras),
                ("image to video", self.image),
                ("remix", self.remix),
                ("extend a file", self.extend),
                ("objects in JSON", self.objects),
                ("same idempotency key", self.idempotent),
                ("content that is not ready", self.not_ready),
                ("cancel", self.cancel),
                ("delete", self.delete),
                ("synchronous", self.synchronous),
                ("models", self.models),
                ("signed webhook", self.webhook),
                ("bad input", self.bad_input),
            )
        )

    def create(self) -> str:
        self.video = self.client.videos.create(**STOCK)
        check(self.video.status in {"queued", "in_progress"}, f"status {self.video.status}")
        check((self.video.model, self.video.seconds, self.video.size) == ("sora-2", "4", "1280x720"), f"{self.video}")
        return str(self.video.id)

    def wait(self) -> str:
        self.video = self.client.videos.poll(self.video.id)
        check((self.video.status, self.video.progress) == ("completed", 100), f"{self.video}")
        usage = self.video.usage
        check(usage["scaled_to"] == "1280x720", f"usage {usage}")
        return f"usage {usage}"

    def fetch(self) -> str:
        data = self.client.videos.download_content(self.video.id).read()
        frames, width, height = played(data)
        check((frames, width, height) == (96, 1280, 720), f"{frames} frames of {width}x{height}")
        return f"{len(data)} bytes"

    def fetch_range(self) -> None:
        whole = self.client.videos.download_content(self.video.id).read()
        part = self.client.videos.download_content(self.video.id, extra_headers={"Range": "bytes=4-7"})
        check(part.read() == whole[4:8] == b"ftyp", "the range is another part of the file")

    def fetch_pictures(self) -> None:
        for variant in ("thumbnail", "spritesheet"):
            data = self.client.videos.download_content(self.video.id, variant=variant).read()
            known = data.startswith((b"\xff\xd8\xff", b"\x89PNG")) or data[8:12] == b"WEBP"
            check(known, f"{variant} begins with {data[:12]!r}")

    def list(self) -> str:
        more = [self.client.videos.create(**SHORT).id for _ in range(3)]
        found = [video.id for video in self.client.videos.list(limit=2)]  # the client asks for page after page
        check(found[:3] == more[::-1], f"the newest are {found[:3]}, not {more[::-1]}")
        check(self.video.id in found, "the first video is not in the list")
        check(len(set(found)) == len(found), "a video is listed twice")
        return f"{len(found)} videos"

    def extras(self) -> None:
        video = self._made(**SHORT)
        frames, width, height = played(self.client.videos.download_content(video.id).read())
        check((frames, width, height) == (12, 64, 64), f"{frames} frames of {width}x{height}")

    def image(self) -> None:
        video = self._made(prompt="a red circle", input_reference=("red.png", io.BytesIO(pictures.png()), "image/png"), **_frames(24))
        check(video.status == "completed", f"{video}")

    def remix(self) -> None:
        video = self.client.videos.poll(self.client.videos.remix(self.video.id, prompt="a green star").id)
        check((video.status, video.remixed_from_video_id, video.size) == ("completed", self.video.id, "1280x720"), f"{video}")

    def extend(self) -> str:
        source = self._made(**SHORT)
        data = self.client.videos.download_content(source.id).read()
        video = self.client.videos.extend(prompt="a green star", seconds="1", video=("a.mp4", io.BytesIO(data), "video/mp4"))
        video = self.client.videos.poll(video.id)
        check(video.status == "completed", f"{video}")
        return f"{video.seconds} s"

    def objects(self) -> None:
        """What the client's own methods take and cannot send."""
        source = self._made(**SHORT)
        image = "data:image/png;base64," + base64.b64encode(pictures.png()).decode()
        for path, body, frames in (
            ("/videos", {"prompt": "a red circle", "num_frames": 24, "input_reference": {"image_url": image}}, 24),
            ("/videos/edits", {"prompt": "a green star", "video": {"id": source.id}}, 12),
            ("/videos/extensions", {"prompt": "a green star", "seconds": "1", "video": {"id": source.id}}, 36),
        ):
            video = self.client.videos.poll(self.client.post(path, body=body, cast_to=openai.types.Video).id)
            check(video.status == "completed", f"{path}: {video}")
            found = played(self.client.videos.download_content(video.id).read())
            check(found == (frames, 64, 64), f"{path}: {found}")

    def idempotent(self) -> None:
        headers = {"Idempotency-Key": uuid.uuid4().hex}
        made = {self.client.videos.create(**SHORT, extra_headers=headers).id for _ in range(2)}
        check(len(made) == 1, f"two videos: {made}")
        raises(openai.ConflictError, lambda: self.client.videos.create(prompt="another", extra_headers=headers))

    def not_ready(self) -> None:
        video = self.client.videos.create(prompt="a red circle", seconds="60")
        raises(openai.NotFoundError, lambda: self.client.videos.download_content(video.id))
        self.client.videos.delete(video.id)

    def cancel(self) -> None:
        video = self.client.videos.create(prompt="a red circle", seconds="60")
        check(self.client.videos.delete(video.id).deleted, "not deleted")
        raises(openai.NotFoundError, lambda: self.client.videos.retrieve(video.id))

    def delete(self) -> None:
        check(self.client.videos.delete(self.video.id).deleted, "not deleted")
        raises(openai.NotFoundError, lambda: self.client.videos.download_content(self.video.id))

    def synchronous(self) -> None:
        data = self.client.post("/videos/sync", body={**STOCK, "seconds": "1"}, cast_to=openai.HttpxBinaryResponseContent).read()
        check(played(data) == (24, 1280, 720), f"{played(data)}")

    def models(self) -> None:
        check(self.client.models.list().data, "no models")

    def webhook(self) -> str:
        if not os.environ.get(WEBHOOKS):
            raise Skipped("the server posts to no address of this machine")
        secret = "whsec_" + base64.b64encode(secrets.token_bytes(32)).decode()
        with receiver() as (url, received):
            video = self.client.videos.create(prompt="a star", extra_body={"num_frames": 6, "webhook": {"url": url, "secret": secret}})
            headers, body = received.get(timeout=120)
        event = self.client.webhooks.unwrap(body, headers, secret=secret)
        check((event.type, event.data.id) == ("video.completed", video.id), f"{event}")
        return f"{event.type} {event.id}"

    def bad_input(self) -> str:
        told = []
        for fields, parts in (
            ({"size": "7x7"}, ("size", "16", "7")),
            ({"seconds": "3600"}, ("seconds", "3600")),
            ({"model": "nobody-1"}, ("model", "nobody-1")),
            ({"prompt": " "}, ("prompt", "white space")),
            ({"input_reference": ("a.png", io.BytesIO(b"no image"), "image/png")}, ("input_reference", "PNG")),
        ):
            asked = partial(self.client.videos.create, **{"prompt": "a", **fields})
            error: Any = raises(openai.BadRequestError, asked, *parts)
            check(error.param == next(iter(fields)), f"param {error.param}")
            check(error.request_id, "no request id")
            told.append(error.body["message"])
        edit = {"prompt": "a", "video": ("a.mp4", io.BytesIO(b"\0\0\0\x18ftypisom"), "video/mp4")}
        raises(openai.BadRequestError, lambda: self.client.videos.edit(**edit), "video")
        return " | ".join(told)

    def _made(self, **fields: Any) -> Any:
        return self.client.videos.poll(self.client.videos.create(**fields).id)


def refusals(cases: Cases, target: Target, connect: Callable[[str], Any]) -> None:
    """What a caller without a sound key gets."""

    def wrong_key() -> None:
        if not target.wrong_key:
            raise Skipped("the server takes any key")
        raises(openai.AuthenticationError, connect(target.wrong_key).videos.list)

    def over_quota() -> str:
        if not target.spent_key:
            raise Skipped("no key whose quota is used up")
        return f"{raises(openai.RateLimitError, lambda: connect(target.spent_key).videos.create(**STOCK))}"

    cases.run("wrong key", wrong_key)
    cases.run("over quota", over_quota)


@contextmanager
def receiver() -> Iterator[tuple[str, queue.Queue[tuple[Mapping[str, str], bytes]]]]:
    """An address of this machine, and what was posted there."""
    received: queue.Queue[tuple[Mapping[str, str], bytes]] = queue.Queue()

    class Receiver(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            self.send_response(204)
            self.end_headers()
            received.put((dict(self.headers.items()), body))

        def log_message(self, *_: object) -> None: ...

    server = HTTPServer(("127.0.0.1", 0), Receiver)
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/hook", received
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _frames(count: int) -> dict[str, Any]:
    return {"extra_body": {"num_frames": count}}


if __name__ == "__main__":
    main()
