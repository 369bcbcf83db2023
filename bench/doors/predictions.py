"""What Google's clients do alike in both of their generations: a video as an operation that is asked for until it is done."""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import partial
from typing import Any

from google.genai import errors, types

from bench.doors import pictures
from bench.doors.cases import check, raises

PROMPT = "a red circle moving right"


class Predictions:
    """Makes videos of `model` with a client of `google-genai`."""

    def __init__(self, client: Any, model: str) -> None:
        self.client = client
        self.model = model
        self.operation: Any = None

    def create(self) -> str:
        self.operation = self.client.models.generate_videos(model=self.model, prompt=PROMPT)
        return str(self.operation.name)

    def wait(self) -> str:
        while not self.operation.done:
            time.sleep(0.5)
            self.operation = self.client.operations.get(self.operation)
        check(not self.operation.error, f"{self.operation.error}")
        return f"{(self.operation.metadata or {}).get('usage')}"

    def made(self) -> Any:
        """The one video of the operation."""
        [made] = self.operation.response.generated_videos
        return made.video

    def of_an_image(self, **config: Any) -> None:
        """Upright, from a picture."""
        image = types.Image(image_bytes=pictures.png(), mime_type="image/png")
        settings = types.GenerateVideosConfig(aspect_ratio="9:16", **config)
        self.operation = self.client.models.generate_videos(model=self.model, prompt=PROMPT, image=image, config=settings)
        self.wait()

    def refused(self, more: Sequence[tuple[dict[str, Any], tuple[str, ...]]] = ()) -> str:
        """Bad parameters, and what each is told; `more` has some of one generation alone."""
        told = []
        bad: list[tuple[dict[str, Any], tuple[str, ...]]] = [
            ({"duration_seconds": 3600}, ("parameters.durationSeconds", "3600")),
            ({"aspect_ratio": "wide"}, ("parameters.aspectRatio", "wide")),
            ({"number_of_videos": 2}, ("parameters.sampleCount", "2")),
            *more,
        ]
        for config, parts in bad:
            asked: Any = types.GenerateVideosConfig(**config)
            generate = partial(self.client.models.generate_videos, model=self.model, prompt=PROMPT, config=asked)
            error: Any = raises(errors.ClientError, generate, *parts)
            check((error.code, error.status) == (400, "INVALID_ARGUMENT"), f"{error}")
            told.append(f"{error.message}")
        return " | ".join(told)
