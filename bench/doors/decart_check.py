"""The `decart` package, as anybody installs it, against a server: `python -m bench.doors.decart_check --url http://127.0.0.1:8080`.

Its environment is `requirements-decart.txt`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from decart import DecartClient, models
from decart.errors import DecartSDKError, ProcessingError, QueueResultError, QueueStatusError, QueueSubmitError
from decart.models import ModelDefinition

from bench.doors import pictures
from bench.doors.cases import Cases, Skipped, Target, check, raises
from bench.doors.mp4 import played

PROMPT = "a red circle moving right"
WORDS = {"pending", "processing", "completed", "failed"}


def main() -> None:
    target, cases = Target.of_arguments(), Cases("decart")
    run = Check(target)
    cases.run_all(
        (
            ("create", run.create),
            ("wait", run.wait),
            ("fetch", run.fetch),
            ("submit and poll", run.submit_and_poll),
            ("a model by its own name", run.custom),
            ("client token", run.token),
            ("list", run.unknown),
            ("cancel", run.unknown),
            ("delete", run.unknown),
            ("wrong key", run.wrong_key),
            ("over quota", run.over_quota),
            ("bad input", run.bad_input),
            ("image model", run.image_model),
        )
    )
    cases.end()


class Check:
    """What a caller does, with a sound key and without one."""

    def __init__(self, target: Target) -> None:
        self.target = target
        self.clip = pictures.mp4()
        self.job_id = ""

    def create(self) -> str:
        job = self._asked(lambda client: client.queue.submit(self._stock()))
        check(job.status == "pending", f"{job}")
        self.job_id = job.job_id
        return self.job_id

    def wait(self) -> None:
        seen = asyncio.run(self._waited())
        check(seen <= WORDS and "completed" in seen, f"{seen}")

    async def _waited(self) -> set[str]:
        seen: set[str] = set()
        async with DecartClient(api_key=self.target.key, base_url=self.target.url) as client:
            while not seen & {"completed", "failed"}:
                seen.add((await client.queue.status(self.job_id)).status)
                await asyncio.sleep(0.2)
        return seen

    def fetch(self) -> str:
        data = self._asked(lambda client: client.queue.result(self.job_id))
        frames, width, height = played(data)
        check((width, height) == (1280, 720), f"{frames} frames of {width}x{height}")
        return f"{frames} frames, {len(data)} bytes"

    def submit_and_poll(self) -> str:
        seen: list[str] = []
        asked = {**self._stock(), "seed": 7, "resolution": "480p", "on_status_change": lambda job: seen.append(job.status)}
        result = self._asked(lambda client: client.queue.submit_and_poll(asked))
        check(result.status == "completed", f"{result.status}")
        check(played(result.data)[1:] == (854, 480), f"{played(result.data)}")
        return " → ".join(seen)

    def custom(self) -> None:
        """Text to video: the client's own models all edit a video."""
        model = ModelDefinition(name="millrace-64", url_path="/v1/jobs/millrace-64", fps=24, width=64, height=64)
        asked = {"model": model, "prompt": PROMPT, "duration": 2}
        result = self._asked(lambda client: client.queue.submit_and_poll(asked))
        check(played(result.data)[0] == 48, f"{played(result.data)}")

    def token(self) -> str:
        made = self._asked(lambda client: client.tokens.create(expires_in=120, allowed_models=["lucy-2.1"]))
        job = self._asked(lambda client: client.queue.submit(self._stock()), made.api_key)
        check(job.status == "pending", f"{job}")
        raises(DecartSDKError, lambda: self._asked(lambda client: client.tokens.create(expires_in=7200)), "expiresIn", "3600", "7200")
        return f"until {made.expires_at}"

    def unknown(self) -> None:
        raise Skipped("Decart's client cannot")

    def wrong_key(self) -> None:
        if not self.target.wrong_key:
            raise Skipped("the server takes any key")
        error: Any = raises(QueueStatusError, lambda: self._asked(lambda client: client.queue.status("x"), self.target.wrong_key))
        check(error.data == {"status": 401}, f"{error.data}")

    def over_quota(self) -> str:
        if not self.target.spent_key:
            raise Skipped("no key whose quota is used up")
        asked = self._stock()
        error: Any = raises(QueueSubmitError, lambda: self._asked(lambda client: client.queue.submit(asked), self.target.spent_key))
        check(error.data == {"status": 429}, f"{error.data}")
        return f"{error}"

    def bad_input(self) -> str:
        told = []
        for fields, parts in (
            ({"prompt": ""}, ("prompt", "white space")),
            ({"seed": -1}, ("seed", "-1")),
            ({"resolution": "9p"}, ("resolution", "9p")),
            ({"data": b"no video"}, ("data", "MP4")),
            ({"reference_image": pictures.png()}, ("reference_image",)),
        ):
            asked = {**self._stock(), **fields}
            error: Any = raises(QueueSubmitError, partial(self._submitted, asked), *parts)
            check(error.data == {"status": 400}, f"{error.data}")
            told.append(f"{error}")
        raises(QueueStatusError, lambda: self._asked(lambda client: client.queue.status("unknown")), "404")
        raises(QueueResultError, lambda: self._asked(lambda client: client.queue.result("unknown")), "404")
        return " | ".join(told)

    def image_model(self) -> str:
        asked = {"model": models.image("lucy-image-2"), "prompt": PROMPT, "data": pictures.png()}
        return f"{raises(ProcessingError, lambda: self._asked(lambda client: client.process(asked)), '501', 'lucy-image-2')}"

    def _submitted(self, asked: dict[str, Any]) -> Any:
        return self._asked(lambda client: client.queue.submit(asked))

    def _stock(self) -> dict[str, Any]:
        return {"model": models.video("lucy-2.1"), "prompt": PROMPT, "data": self.clip}

    def _asked(self, ask: Callable[[Any], Awaitable[Any]], key: str = "") -> Any:
        async def run() -> Any:
            async with DecartClient(api_key=key or self.target.key, base_url=self.target.url) as client:
                return await ask(client)

        return asyncio.run(run())


if __name__ == "__main__":
    main()
