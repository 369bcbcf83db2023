"""The `runwayml` package, as anybody installs it, against a server: `python -m bench.doors.runway_check --url http://127.0.0.1:8080`.

Its environment is `requirements-runway.txt`.
"""

from __future__ import annotations

import asyncio
import base64
import urllib.request
import uuid
from functools import partial
from typing import Any

import runwayml

from bench.doors import pictures
from bench.doors.cases import Cases, Skipped, Target, check, raises
from bench.doors.mp4 import played

STOCK: dict[str, Any] = {"model": "gen4.5", "prompt_text": "a red circle moving right", "ratio": "1280:720", "duration": 2}


def main() -> None:
    target, cases = Target.of_arguments(), Cases("runway")
    run = Check(target)
    cases.run_all(
        (
            ("create", run.create),
            ("wait", run.wait),
            ("fetch", run.fetch),
            ("list", run.list),
            ("image to video", run.image),
            ("video to video", run.video),
            ("same idempotency key", run.idempotent),
            ("cancel", run.cancel),
            ("cancelled elsewhere", run.cancelled_elsewhere),
            ("delete", run.delete),
            ("wrong key", run.wrong_key),
            ("over quota", run.over_quota),
            ("bad input", run.bad_input),
        )
    )
    cases.end()


class Check:
    """What a caller does, with a sound key and without one."""

    def __init__(self, target: Target) -> None:
        self.target = target
        self.client = self._connected(target.key)
        self.task: Any = None
        self.done: Any = None

    def create(self) -> str:
        self.task = self.client.text_to_video.create(**STOCK)
        estimated = getattr(self.task, "estimated_cost", None)
        return f"{self.task.id}, estimated {estimated}"

    def wait(self) -> str:
        self.done = self.task.wait_for_task_output()
        check(self.done.status == "SUCCEEDED", f"{self.done}")
        check(self.done.cost.credits == 2, f"cost {self.done.cost}")
        return f"{self.done.cost}"

    def fetch(self) -> str:
        data = _opened(self.done.output[0])
        check(played(data) == (48, 1280, 720), f"{played(data)}")
        return f"{len(data)} bytes, without a key"

    def list(self) -> None:
        raise Skipped("Runway's API has no list of tasks")

    def image(self) -> None:
        uri = f"data:image/png;base64,{base64.b64encode(pictures.png()).decode()}"
        for image in (uri, [{"uri": uri, "position": "first"}]):
            done = self.client.image_to_video.create(**STOCK, prompt_image=image).wait_for_task_output()
            check(played(_opened(done.output[0])) == (48, 1280, 720), f"{done}")

    def video(self) -> None:
        uri = f"data:video/mp4;base64,{base64.b64encode(pictures.mp4()).decode()}"
        asked = {"model": "aleph2", "prompt_text": STOCK["prompt_text"], "video_uri": uri, "extra_body": {"duration": 2}}
        done = self.client.video_to_video.create(**asked).wait_for_task_output()
        check(done.status == "SUCCEEDED", f"{done}")

    def idempotent(self) -> None:
        headers = {"Idempotency-Key": uuid.uuid4().hex}
        made = {self.client.text_to_video.create(**STOCK, extra_headers=headers).id for _ in range(2)}
        check(len(made) == 1, f"two tasks: {made}")

    def cancel(self) -> None:
        task = self.client.text_to_video.create(**{**STOCK, "duration": 60})
        self.client.tasks.delete(task.id)
        raises(runwayml.NotFoundError, lambda: self.client.tasks.retrieve(task.id))
        raises(runwayml.NotFoundError, task.wait_for_task_output)

    def cancelled_elsewhere(self) -> str:
        """The synchronous client would wait until its time is over if it were told that the task is cancelled."""
        task = self.client.text_to_video.create(**{**STOCK, "duration": 60})
        path = f"{self.target.url}/v1/jobs/job_{task.id}/cancel"
        cancel = urllib.request.Request(path, method="POST")  # noqa: S310 - the server under test
        cancel.add_header("Authorization", f"Bearer {self.target.key}")
        with urllib.request.urlopen(cancel, timeout=30):  # noqa: S310 - the server under test
            pass
        error: Any = raises(runwayml.TaskFailedError, lambda: task.wait_for_task_output(timeout=60))
        check(error.task_details.status == "FAILED", f"{error.task_details}")
        check(error.task_details.cost.credits == 0, f"{error.task_details}")
        details: Any = asyncio.run(self._retrieved(task.id))
        check(details.status == "CANCELLED", f"{details}")
        return f"{error.task_details.failure}"

    async def _retrieved(self, task_id: str) -> object:
        async with runwayml.AsyncRunwayML(api_key=self.target.key, base_url=self.target.url) as client:
            return await client.tasks.retrieve(task_id)

    def delete(self) -> None:
        self.client.tasks.delete(self.task.id)
        raises(runwayml.NotFoundError, lambda: self.client.tasks.retrieve(self.task.id))

    def wrong_key(self) -> None:
        if not self.target.wrong_key:
            raise Skipped("the server takes any key")
        raises(runwayml.AuthenticationError, lambda: self._connected(self.target.wrong_key).text_to_video.create(**STOCK))

    def over_quota(self) -> str:
        if not self.target.spent_key:
            raise Skipped("no key whose quota is used up")
        return f"{raises(runwayml.RateLimitError, lambda: self._connected(self.target.spent_key).text_to_video.create(**STOCK))}"

    def bad_input(self) -> str:
        told = []
        for fields, parts in (
            ({"ratio": "wide"}, ("ratio", "wide")),
            ({"duration": 3600}, ("duration", "3600")),
            ({"model": "nobody-1"}, ("model", "nobody-1")),
            ({"prompt_text": " "}, ("promptText", "white space")),
            ({"extra_body": {"audio": True}}, ("audio", "no sound")),
        ):
            asked: dict[str, Any] = {**STOCK, **fields}
            told.append(f"{raises(runwayml.BadRequestError, partial(self.client.text_to_video.create, **asked), *parts)}")
        uri = "https://example.com/a.png"
        error = raises(runwayml.BadRequestError, lambda: self.client.image_to_video.create(**STOCK, prompt_image=uri), "promptImage")
        return " | ".join([*told, f"{error}"])

    def _connected(self, key: str) -> Any:
        return runwayml.RunwayML(api_key=key, base_url=self.target.url)


def _opened(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=60) as answer:  # noqa: S310 - the server under test
        data: bytes = answer.read()
    return data


if __name__ == "__main__":
    main()
