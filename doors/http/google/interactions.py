"""Interactions: requests to videos. Names of fields in errors are Google's own."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from doors.http.given import MAX_SEED, Given, check_all
from doors.http.google.shapes import DOOR, SECONDS, presentation
from model_core.config import Media
from model_core.types import Codec
from service.checks import Problems
from service.intake import Intake
from service.jobs.job import NewJob, Presentation, Tier
from service.orders import Doorway, Mode, Order, VideoRequest

_MAX_PARTS = 64
# One that is not to be stored is stored until its answer is read, and long enough for a store's link to be followed.
_UNSTORED_S = 600.0
_MAX_LABELS, _MAX_LABEL_CHARS = 64, 63
_DURATION = re.compile(r"([0-9]{1,6}(?:\.[0-9]{1,6})?)s", re.ASCII)
_MEDIA: dict[str, Media] = {"image": "image", "video": "video"}
# What each task needs besides its prompt.
_TASKS: dict[str, Media | None] = {"text_to_video": None, "image_to_video": "image", "edit": "video", "extend": "video"}
_TIERS = {"priority": Tier.PRIORITY, "standard": Tier.DEFAULT, "default": Tier.DEFAULT, "flex": Tier.FLEX}

_CANNOT = {
    "agent": "this server has no agents; name a model",
    "cached_content": "this server caches no content",
    "previous_interaction_id": "this server does not go on from an earlier interaction; send its video in input",
    "system_instruction": "no model here takes one",
    "tools": "no model here uses tools",
    "webhook_config": "this server reports the ends of interactions to nobody; ask for them",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What a caller wants.

    Attributes:
        request: the video.
        doorway: how errors name the fields.
        background: answer at once.
        stream: answer with the video while it is made.
        store: keep the interaction for more than ten minutes.
        by_uri: answer where the video is, and not with the video itself.
    """

    request: VideoRequest
    doorway: Doorway
    presentation: Presentation
    background: bool
    stream: bool
    store: bool
    by_uri: bool
    labels: Mapping[str, str]
    tier: Tier

    def new_job(self, key: str) -> NewJob:
        """As a job. `key` is of idempotency."""
        return NewJob(
            door=DOOR, request=self.request, doorway=self.doorway, presentation=self.presentation,
            shown={"model": self.request.model, "by_uri": self.by_uri}, idempotency_key=key, labels=self.labels, tier=self.tier,
            ttl_s=None if self.store else _UNSTORED_S,
        )  # fmt: skip

    def order(self, intake: Intake) -> Order:
        """Of a stream. Raises InvalidRequest."""
        return intake.order(self.request, self.doorway)


async def asked(body: Mapping[str, Any], problems: Problems, intake: Intake) -> Asked:
    """Read `body`.

    Args:
        problems: what is wrong with the headers.

    Raises:
        InvalidRequest: with everything that is wrong.
    """
    given = Given(body, problems)
    for name, why in _CANNOT.items():
        if given.value(name) not in ("", [], {}):
            given.unset(name, why)
    form = _response_format(given, problems)
    stream, background, by_uri, store = _manner(given, form)
    prompt, names, footage = await _input(given, problems)
    config = given.inner("generation_config")
    task = config.inner("video_config").choice("task", tuple(_TASKS))
    if task and (needed := _TASKS[task]) is not None and (footage is None or footage[0] != needed):
        config.inner("video_config").refuse("task", f"must be text_to_video, or input must hold a part of type {needed}")
    request = VideoRequest(
        prompt=prompt,
        model=given.text("model", required=True),
        seconds=_seconds(form),
        seed=config.integer("seed", 0, MAX_SEED),
        footage=footage,
        codec=Codec.FMP4_H264,
    )
    names |= {
        "prompt": "input", "seconds": form.path("duration"), "width": form.path("aspect_ratio"), "height": form.path("resolution"),
    }  # fmt: skip
    doorway = Doorway(Mode.STREAM if stream else Mode.JOB, names=names)
    wanted = Asked(
        request=request, doorway=doorway, presentation=presentation(form, "aspect_ratio", "resolution"), background=background,
        stream=stream, store=store, by_uri=by_uri, labels=given.labels("labels", most=_MAX_LABELS, chars=_MAX_LABEL_CHARS),
        tier=_TIERS[given.choice("service_tier", tuple(_TIERS)) or "default"],
    )  # fmt: skip
    check_all(problems, intake, request, doorway)
    return wanted


def _manner(given: Given, form: Given) -> tuple[bool, bool, bool, bool]:
    """How the caller wants its answer: stream, background, by URI, stored."""
    stream, background, store = (given.flag(name) for name in ("stream", "background", "store"))
    by_uri = form.choice("delivery", ("inline", "uri")) == "uri"
    if stream and background:
        given.refuse("background", "must be false or unset with stream")
    if stream and store:
        given.refuse("store", "must be false or unset with stream: a stream is a live session, which is not kept")
    if stream and by_uri:
        form.refuse("delivery", "must be inline or unset with stream")
    if store is False and background:
        given.refuse("store", "must be true or unset with background")
    if store is False and by_uri:
        given.refuse("store", "must be true or unset with delivery uri")
    return bool(stream), bool(background), by_uri, store is not False


def _response_format(given: Given, problems: Problems) -> Given:
    """The one format that is asked for; an empty one where there is none."""
    if not isinstance(given.value("response_format"), list):
        return given.inner("response_format")
    forms = given.items("response_format", most=1)
    return forms[0] if forms else Given({}, problems, "response_format.")


def _seconds(form: Given) -> float:
    form.choice("type", ("video",))
    form.unset("gcs_uri", "this server does not write to Google Cloud Storage")
    text = form.text("duration")
    if not text:
        return SECONDS
    found = _DURATION.fullmatch(text)
    if found is None:
        form.refuse("duration", "must be seconds, as 4s")
        return SECONDS
    return float(found[1])


async def _input(given: Given, problems: Problems) -> tuple[str, dict[str, str], tuple[Media, bytes] | None]:
    """The prompt, the names of the fields that hold pictures, and what the one given holds."""
    value = given.value("input")
    if isinstance(value, str):
        return given.text("input"), {}, None
    if value is None:
        given.refuse("input", "is required")
        return "", {}, None
    parts = [given.inner("input")] if isinstance(value, dict) else _flat(given.items("input", most=_MAX_PARTS), problems)
    texts: list[str] = []
    names: dict[str, str] = {}
    footage: tuple[Media, bytes] | None = None
    for part in parts:
        kind = part.choice("type", ("text", *_MEDIA))
        if kind == "text":
            texts.append(part.text("text"))
        elif kind in _MEDIA:
            if names:
                part.refuse("type", "must be text: this server takes one image or video, for the beginning")
                continue
            names[kind] = part.path("data")
            part.unset("uri", "this server fetches nothing from elsewhere; send data")
            if not part.has("uri"):
                part.text("data", required=True)
            data = await part.media("data")
            footage = None if data is None else (_MEDIA[kind], data)
        elif not part.has("type"):
            part.refuse("type", f"must be one of text, {', '.join(_MEDIA)}")
    return "\n".join(text for text in texts if text), names, footage


def _flat(items: list[Given], problems: Problems) -> list[Given]:
    """Parts of content, whether they stand alone or in steps of the user's."""
    parts: list[Given] = []
    for item in items:
        if item.value("type") != "user_input" and not item.has("content"):
            parts.append(item)
            continue
        if item.has("type"):
            item.choice("type", ("user_input",))
        if item.has("role"):
            item.choice("role", ("user",))
        content = item.value("content")
        if isinstance(content, str):
            parts.append(Given({"type": "text", "text": content}, problems, item.path("content.")))
        elif isinstance(content, dict):
            parts.append(item.inner("content"))
        else:
            parts += item.items("content", most=_MAX_PARTS)
    return parts
