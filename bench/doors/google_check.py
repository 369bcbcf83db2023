"""`google-genai` of generation 3 against a server: Vertex AI, with a key and with a project, and Interactions.

`python -m bench.doors.google_check --url http://127.0.0.1:8080`. Its environment is `requirements-google.txt`.
"""

from __future__ import annotations

import base64
import time
import warnings
from functools import partial
from typing import Any

from google import genai
from google.genai import types
from google.oauth2.credentials import Credentials

from bench.doors import pictures
from bench.doors.cases import Cases, Skipped, Target, check, raises
from bench.doors.mp4 import played
from bench.doors.predictions import PROMPT, Predictions

VEO, OMNI = "veo-3.1-generate-001", "gemini-omni-1.1-flash"
SHORT = {"type": "video", "duration": "2s"}


def main() -> None:
    warnings.simplefilter("ignore")  # the client calls half of itself experimental
    target, cases = Target.of_arguments(), Cases("google")
    options = types.HttpOptions(base_url=target.url)
    by_key = Vertex(genai.Client(vertexai=True, api_key=target.key, http_options=options), VEO)
    credentials = Credentials(token=target.key)
    by_project = Vertex(
        genai.Client(vertexai=True, project="p1", location="us-central1", credentials=credentials, http_options=options), VEO
    )
    for means, run in (("key", by_key), ("project", by_project)):
        for name in ("create", "wait", "fetch", "image", "bad_input"):
            cases.run(f"{name.replace('_', ' ')}, Vertex by {means}", getattr(run, name))
    interactions = Interactions(target)
    for name in (
        "create", "wait", "fetch", "waits", "by_uri", "image", "stream", "list", "cancel", "delete", "wrong_key", "over_quota", "bad_input",
    ):  # fmt: skip
        cases.run(f"{name.replace('_', ' ')}, Interactions", getattr(interactions, name))
    cases.end()


class Vertex(Predictions):
    """Long-running predictions."""

    def fetch(self) -> str:
        data = self.made().video_bytes
        check(played(data) == (192, 1280, 720), f"{played(data)}")
        return f"{len(data)} bytes"

    def image(self) -> None:
        self.of_an_image(duration_seconds=2, seed=7)
        data = self.made().video_bytes
        check(played(data) == (48, 720, 1280), f"{played(data)}")

    def bad_input(self) -> str:
        return self.refused([({"output_gcs_uri": "gs://a/b"}, ("parameters.storageUri", "gs://a/b"))])


class Interactions:
    """Interactions, by a key."""

    def __init__(self, target: Target) -> None:
        self.target = target
        self.client = self._connected(target.key)
        self.interaction: Any = None

    def create(self) -> str:
        self.interaction = self._new(background=True)
        check(self.interaction.status == "in_progress", f"{self.interaction.status}")
        return str(self.interaction.id)

    def wait(self) -> None:
        while self.interaction.status == "in_progress":
            time.sleep(0.5)
            self.interaction = self.client.interactions.get(self.interaction.id)
        check(self.interaction.status == "completed", f"{self.interaction}")

    def fetch(self) -> None:
        check(played(_video(self.interaction)) == (48, 1280, 720), f"{played(_video(self.interaction))}")

    def waits(self) -> str:
        """As Google's pages call it: the answer has the video."""
        interaction = self.client.interactions.create(model=OMNI, input=PROMPT)
        check(played(_video(interaction)) == (192, 1280, 720), f"{played(_video(interaction))}")
        return f"{interaction.usage}"

    def by_uri(self) -> None:
        interaction = self._new(response_format={**SHORT, "delivery": "uri"})
        data = self.client.files.download(file=interaction.output_video.uri)
        check(played(data) == (48, 1280, 720), f"{played(data)}")

    def image(self) -> None:
        image = {"type": "image", "mime_type": "image/png", "data": base64.b64encode(pictures.png()).decode()}
        form = {**SHORT, "aspect_ratio": "9:16", "resolution": "360p"}
        interaction = self._new(input=[{"type": "text", "text": PROMPT}, image], response_format=form)
        check(played(_video(interaction)) == (48, 360, 640), f"{played(_video(interaction))}")

    def stream(self) -> str:
        began, first, media, kinds = time.monotonic(), 0.0, b"", []
        for event in self._new(stream=True):
            kinds.append(event.event_type)
            if event.event_type == "step.delta":
                first = first or time.monotonic() - began
                media += base64.b64decode(event.delta.data)
        check(kinds[0] == "interaction.created" and kinds[-1] == "interaction.completed", f"{kinds}")
        check(played(media)[0] == 48, f"{played(media)}")
        return f"first video after {first:.3f} s of {time.monotonic() - began:.3f} s"

    def list(self) -> None:
        raise Skipped("Google's client has no list of interactions")

    def cancel(self) -> None:
        interaction = self._new(background=True, response_format={**SHORT, "duration": "60s"})
        self.client.interactions.cancel(interaction.id)
        end = time.monotonic() + 60
        while (status := self.client.interactions.get(interaction.id).status) == "in_progress" and time.monotonic() < end:
            time.sleep(0.2)
        check(status == "cancelled", status)

    def delete(self) -> None:
        self.client.interactions.delete(self.interaction.id)
        self._raises(404, lambda: self.client.interactions.get(self.interaction.id))

    def wrong_key(self) -> None:
        if not self.target.wrong_key:
            raise Skipped("the server takes any key")
        wrong = self._connected(self.target.wrong_key)  # a client that nobody holds closes its connection
        self._raises(401, lambda: wrong.interactions.create(model=OMNI, input=PROMPT))

    def over_quota(self) -> str:
        if not self.target.spent_key:
            raise Skipped("no key whose quota is used up")
        spent = self._connected(self.target.spent_key)
        return self._raises(429, lambda: spent.interactions.create(model=OMNI, input=PROMPT))

    def bad_input(self) -> str:
        told = []
        for fields, parts in (
            ({"input": " "}, ("input", "white space")),
            ({"model": "nobody-1"}, ("model", "nobody-1")),
            ({"response_format": {**SHORT, "duration": "3600s"}}, ("response_format.duration", "3600")),
            ({"generation_config": {"video_config": {"task": "extend"}}}, ("generation_config.video_config.task", "video")),
            ({"previous_interaction_id": "x"}, ("previous_interaction_id",)),
        ):
            told.append(self._raises(400, partial(self._new, **fields), *parts))
        return " | ".join(told)

    def _new(self, **fields: Any) -> Any:
        return self.client.interactions.create(**{"model": OMNI, "input": PROMPT, "response_format": SHORT, **fields})

    def _raises(self, status: int, call: Any, *told: str) -> str:
        """The client's classes for these errors have no public name."""
        error: Any = raises(Exception, call, *told)
        check(getattr(error, "status_code", getattr(error, "code", None)) == status, f"{type(error).__name__}: {error}")
        return f"{type(error).__name__}: {error}"

    def _connected(self, key: str) -> Any:
        return genai.Client(api_key=key, http_options=types.HttpOptions(base_url=self.target.url))


def _video(interaction: Any) -> bytes:
    return base64.b64decode(interaction.output_video.data)


if __name__ == "__main__":
    main()
