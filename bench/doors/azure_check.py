"""`AzureOpenAI` of the `openai` package against a server, by both ways of naming it: `python -m bench.doors.azure_check --url …`.

Its environment is `requirements-openai.txt`.
"""

from __future__ import annotations

import warnings
from typing import Any

import openai

from bench.doors.cases import Cases, Target, check, raises
from bench.doors.mp4 import played
from bench.doors.openai_check import SHORT, STOCK, refusals

VERSION = "preview"


def main() -> None:
    warnings.simplefilter("ignore", DeprecationWarning)
    target, cases = Target.of_arguments(), Cases("azure")

    def connect(key: str) -> Any:
        return openai.AzureOpenAI(azure_endpoint=target.url, api_key=key, api_version=VERSION)

    Check(connect(target.key)).run(cases, "azure_endpoint")
    by_base_url = openai.AzureOpenAI(base_url=f"{target.url}/openai/v1", api_key=target.key, api_version=VERSION)
    Check(by_base_url).run(cases, "base_url")
    refusals(cases, target, connect)
    cases.end()


class Check:
    """What a caller with a sound key does."""

    def __init__(self, client: Any) -> None:
        self.client = client
        self.video: Any = None

    def run(self, cases: Cases, means: str) -> None:
        for name in ("create", "wait", "fetch", "list", "cancel", "delete", "models", "bad_input"):
            cases.run(f"{name.replace('_', ' ')}, by {means}", getattr(self, name))

    def create(self) -> str:
        self.video = self.client.videos.create(**STOCK)
        return str(self.video.id)

    def wait(self) -> None:
        self.video = self.client.videos.poll(self.video.id)
        check(self.video.status == "completed", f"{self.video}")

    def fetch(self) -> None:
        found = played(self.client.videos.download_content(self.video.id).read())
        check(found == (96, 1280, 720), f"{found}")

    def list(self) -> None:
        check(self.video.id in [video.id for video in self.client.videos.list(limit=100)], "the video is not in the list")

    def cancel(self) -> None:
        video = self.client.videos.create(**{**SHORT, "extra_body": {"num_frames": 1440}})
        check(self.client.videos.delete(video.id).deleted, "not deleted")
        raises(openai.NotFoundError, lambda: self.client.videos.retrieve(video.id))

    def delete(self) -> None:
        check(self.client.videos.delete(self.video.id).deleted, "not deleted")
        raises(openai.NotFoundError, lambda: self.client.videos.retrieve(self.video.id))

    def models(self) -> None:
        check(self.client.models.list().data, "no models")

    def bad_input(self) -> str:
        error = raises(openai.BadRequestError, lambda: self.client.videos.create(prompt="a", size="7x7"), "size", "16", "7")
        return f"{error}"


if __name__ == "__main__":
    main()
