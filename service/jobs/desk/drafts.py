"""Checks new jobs, and makes rows of them. Pure, but for the random seed that a request without one gets."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any
from urllib.parse import urlsplit

from service.checks import Problems, Validator
from service.identity.principal import Forbidden, Principal
from service.jobs.job import JobStatus, NewJob
from service.jobs.table.rows import as_text, maybe_text, request_text
from service.jobs.work import JobPolicy, UploadRef
from service.orders import Doorway, Mode, Order, VideoRequest

_MAX_KEY_CHARS = 256
_MAX_LABELS_CHARS = 16 * 1024  # as JSON
_MAX_SHOWN_CHARS = 64 * 1024
_MAX_URL_CHARS = 2048
_NOT_ASKED = ("footage", "codec", "max_lead_seconds", "enhance")

JobCheck = Callable[[Principal, NewJob, Problems], None]
"""Adds what is wrong with a new job, by the caller's names of the fields, or raises Forbidden."""


@dataclass(frozen=True, slots=True)
class Draft:
    """A new job that may be queued."""

    id: str
    principal: Principal
    new: NewJob
    order: Order
    policy: JobPolicy

    @property
    def upload(self) -> bytes | None:
        """What is to be stored before the row is written."""
        return None if self.new.request.footage is None else self.new.request.footage[1]

    @property
    def seconds(self) -> float:
        """The length of the video."""
        return self._frames / self.order.config.fps

    @property
    def _frames(self) -> int:
        frames = self.order.request.num_frames
        assert frames is not None  # noqa: S101 - a file has an end
        return frames

    def row(self, now: float, request_hash: str, upload_key: str | None, batch: str | None = None, batch_row: int = 0) -> dict[str, Any]:
        """All columns that do not begin empty."""
        new, config, made = self.new, self.order.config, self.order.request
        away = None if made.guidance == 1 else made.negative_prompt  # which is of no use then, and refused
        request = VideoRequest(
            prompt=made.prompt, model=config.name, seconds=new.request.seconds, seed=made.seed, steps=made.num_steps,
            guidance=made.guidance, negative_prompt=away, later_prompts=new.request.later_prompts,
            enhance=made.enhance,
        )  # fmt: skip
        upload = None if new.request.footage is None or upload_key is None else UploadRef(new.request.footage[0], upload_key)
        shape = new.presentation
        return {
            "id": self.id, "tenant": self.principal.tenant, "door": new.door, "status": JobStatus.QUEUED.value, "tier": new.tier.value,
            "created_at": now, "updated_at": now, "model": config.name, "prompt": made.prompt, "seconds": self.seconds,
            "seed": str(made.seed), "steps": made.num_steps, "width": shape.width or config.width, "height": shape.height or config.height,
            "fps": config.fps, "request": request_text(request, new.doorway, shape, upload), "shown": as_text(new.shown),
            "labels": as_text(new.labels), "idempotency_key": new.idempotency_key or None, "request_hash": request_hash,
            "frames_total": self._frames, "parent": new.parent, "maker": self.principal.maker, "batch": batch, "batch_row": batch_row,
            "destination": maybe_text(new.destination), "webhook": maybe_text(new.webhook),
            "ttl_s": self.policy.ttl_s if new.ttl_s is None else new.ttl_s, "files": "none" if upload is None else "all",
            "due_at": now + self.policy.max_queued_s,
        }  # fmt: skip


class JobChecks:
    """Checks what callers ask for.

    Args:
        validator: of the front door's intake.
        policy: how long jobs may stay.
        new_seed: an unsigned 64-bit number.
        also: what else new jobs must pass.
    """

    def __init__(self, validator: Validator, policy: JobPolicy, new_seed: Callable[[], int], also: Sequence[JobCheck] = ()) -> None:
        self._validator = validator
        self._policy = policy
        self._new_seed = new_seed
        self._also = also

    def draft(self, principal: Principal, new: NewJob, job_id: str) -> Draft:
        """What `new` comes to.

        Raises:
            InvalidRequest: with everything that is wrong.
            Forbidden: the model, or the destination's bucket, is not for this caller.
        """
        doorway = replace(new.doorway, mode=Mode.JOB)
        new = replace(new, doorway=doorway, request=replace(new.request, max_lead_seconds=0.0))
        problems = Problems()
        self._validator.presentation(new.presentation.width, new.presentation.height, doorway, problems)
        _check_sizes(new, doorway, problems)
        if new.ttl_s is not None and not 0 < new.ttl_s <= self._policy.max_ttl_s:
            problems.add(doorway.path("ttl_s"), f"must be more than 0 and at most {self._policy.max_ttl_s:g} seconds; got {new.ttl_s:g}")
        longest = principal.max_seconds
        if longest is not None and new.request.seconds > longest:
            problems.add(doorway.path("seconds"), f"must be at most {longest:g} with this credential; got {new.request.seconds:g}")
        _check_destination(principal, new, problems)
        for check in self._also:
            check(principal, new, problems)
        order = self._validator.order(new.request, doorway, job_id, self._new_seed(), problems)
        principal.check_model(order.config.name)
        return Draft(job_id, principal, new, order, self._policy)


def request_hash(new: NewJob) -> str:
    """The same for requests that an idempotency key may stand for. What a door shows, and a webhook's secret, do not count."""
    asked: dict[str, Any] = {each.name: getattr(new.request, each.name) for each in fields(new.request) if each.name not in _NOT_ASKED}
    if new.request.footage is not None:
        kind, data = new.request.footage
        asked["footage"] = [kind, hashlib.sha256(data).hexdigest()]
    if new.request.enhance:  # else it is as the version before had it
        asked["enhance"] = [new.request.enhance.frames, new.request.enhance.size]
    asked["presentation"] = [new.presentation.width, new.presentation.height]
    asked["labels"] = dict(new.labels)
    asked["webhook"] = None if new.webhook is None else [new.webhook.url, dict(new.webhook.metadata)]
    asked["destination"] = None if new.destination is None else [new.destination.uri, new.destination.owner, new.destination.layout]
    asked["rest"] = [new.tier.value, new.parent, new.ttl_s]
    return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()


def _check_sizes(new: NewJob, doorway: Doorway, problems: Problems) -> None:
    key = new.idempotency_key
    if len(key) > _MAX_KEY_CHARS or not key.isprintable():
        sentence = f"must be at most {_MAX_KEY_CHARS} printable characters; got {len(key)}: {key[:64]!a}"
        problems.add(doorway.path("idempotency_key"), sentence)
    if new.webhook is not None and len(new.webhook.url) > _MAX_URL_CHARS:
        problems.add(doorway.path("webhook"), f"must be at most {_MAX_URL_CHARS} characters; got {len(new.webhook.url)}")
    _check_json("labels", new.labels, _MAX_LABELS_CHARS, doorway, problems)
    _check_json("shown", new.shown, _MAX_SHOWN_CHARS, doorway, problems)


def _check_json(name: str, value: Mapping[str, Any], most: int, doorway: Doorway, problems: Problems) -> None:
    if (size := len(as_text(value))) > most:
        problems.add(doorway.path(name), f"must be at most {most} characters of JSON; got {size}")


def _check_destination(principal: Principal, new: NewJob, problems: Problems) -> None:
    """The server writes with its own credentials: a caller may name no bucket but those of its credential, or its tenant."""
    if new.destination is None:
        return
    uri, path = new.destination.uri, new.doorway.path("destination")
    try:
        parts = urlsplit(uri)
    except ValueError:
        parts = urlsplit("")
    if parts.scheme != "s3" or not parts.netloc or parts.query or parts.fragment or len(uri) > _MAX_URL_CHARS:
        problems.add(path, f"must be s3://BUCKET/PREFIX, at most {_MAX_URL_CHARS} characters; got {uri[:64]!a}")
    elif parts.netloc not in principal.buckets:
        raise Forbidden(f"{path} must be in a bucket of this credential; got {parts.netloc[:64]}")
