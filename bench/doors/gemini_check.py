"""`google-genai` of generation 2 with an API key, whose `generate_videos` speaks the Gemini API's own dialect.

`python -m bench.doors.gemini_check --url http://127.0.0.1:8080`. Its environment is `requirements-gemini.txt`.
"""

from __future__ import annotations

import urllib.request
import warnings
from typing import Any

from google import genai
from google.genai import errors, types

from bench.doors.cases import Cases, Skipped, Target, check, raises
from bench.doors.mp4 import played
from bench.doors.predictions import PROMPT, Predictions

VEO = "veo-3.1-generate-preview"


def main() -> None:
    warnings.simplefilter("ignore")
    target, cases = Target.of_arguments(), Cases("gemini")
    run = Check(target)
    for name in ("create", "wait", "fetch", "fetch_by_url", "image", "list", "cancel", "delete", "wrong_key", "over_quota", "bad_input"):
        cases.run(name.replace("_", " "), getattr(run, name))
    cases.end()


class Check(Predictions):
    """What a caller does, with a sound key and without one."""

    def __init__(self, target: Target) -> None:
        self.target = target
        super().__init__(self._connected(target.key), VEO)

    def fetch(self) -> str:
        self.fetch_size(192, 1280, 720)
        return f"{self.made().uri}"

    def fetch_by_url(self) -> None:
        """As Google's samples for curl do."""
        headers = {"x-goog-api-key": self.target.key}
        request = urllib.request.Request(self.made().uri, headers=headers)  # noqa: S310 - the server under test
        with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310 - the same
            check(played(answer.read()) == (192, 1280, 720), "another video")

    def image(self) -> None:
        self.of_an_image(duration_seconds=4)
        self.fetch_size(96, 720, 1280)

    def fetch_size(self, *size: int) -> None:
        data = self.client.files.download(file=self.made())
        check(played(data) == size, f"{played(data)}")

    def list(self) -> None:
        raise Skipped("Google's client has no list of operations")

    def cancel(self) -> None:
        raise Skipped("Google's client cannot cancel an operation")

    def delete(self) -> None:
        raise Skipped("Google's client cannot delete an operation")

    def wrong_key(self) -> None:
        if not self.target.wrong_key:
            raise Skipped("the server takes any key")
        wrong = self._connected(self.target.wrong_key)
        error: Any = raises(errors.ClientError, lambda: wrong.models.generate_videos(model=VEO, prompt=PROMPT))
        check((error.code, error.status) == (401, "UNAUTHENTICATED"), f"{error}")

    def over_quota(self) -> str:
        if not self.target.spent_key:
            raise Skipped("no key whose quota is used up")
        spent = self._connected(self.target.spent_key)
        error: Any = raises(errors.ClientError, lambda: spent.models.generate_videos(model=VEO, prompt=PROMPT))
        check((error.code, error.status) == (429, "RESOURCE_EXHAUSTED"), f"{error}")
        return f"{error.message}"

    def bad_input(self) -> str:
        return self.refused()

    def _connected(self, key: str) -> Any:
        return genai.Client(api_key=key, http_options=types.HttpOptions(base_url=self.target.url))


if __name__ == "__main__":
    main()
