"""Settings of jobs: where their files are kept, and the work on them.

Like `application`, this module is imported by the controller, so it stays light.
"""

from __future__ import annotations

import ipaddress
from typing import Annotated, Self

from pydantic import Field, field_validator, model_validator

from deployments.config.addresses import url_parts
from deployments.config.settings import Settings
from service.checks import MAX_JOB_SECONDS

Seconds = Annotated[float, Field(gt=0)]


class S3Settings(Settings):
    """A store that speaks the protocol of Amazon S3. Credentials are those that boto3 finds: the environment's, a file's, or a role's.

    Attributes:
        region: empty for boto3's own.
        endpoint_url: of another store than Amazon's.
    """

    region: str = ""
    endpoint_url: Annotated[str, Field(pattern=r"^$|^https?://")] = ""

    @field_validator("endpoint_url")
    @classmethod
    def _names_a_host(cls, url: str) -> str:
        if url and not url_parts(url).hostname:
            raise ValueError(f"must name a host; got {url!r}")
        return url


class BucketSettings(S3Settings):
    """A bucket for files of jobs, and what their keys begin with: empty, or a path that ends in a slash."""

    bucket: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$")]
    prefix: Annotated[str, Field(pattern=r"^$|^[^/].*/$")] = ""


class ArtifactSettings(Settings):
    """Where files of jobs are kept.

    Attributes:
        folder: on a disk of the one node that runs front doors, or on a file system that all of them share.
        s3: a bucket instead.
        link_seconds: how long a link to a file is good.
    """

    folder: str = ""
    s3: BucketSettings | None = None
    link_seconds: Seconds = 3600.0

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        if self.folder and self.s3 is not None:
            raise ValueError(f"folder must be empty where s3 is given; got {self.folder!r}")
        return self


class WebhookSettings(Settings):
    """Where ends of jobs may be reported, besides public addresses: networks such as `10.1.0.0/16`. The machine's own may be http."""

    allowed_networks: tuple[str, ...] = ()

    @field_validator("allowed_networks")
    @classmethod
    def _networks(cls, networks: tuple[str, ...]) -> tuple[str, ...]:
        for network in networks:
            try:
                ipaddress.ip_network(network)
            except ValueError as error:
                raise ValueError(f"must be networks such as 10.1.0.0/16; {error}") from None
        return networks


class QualitySettings(Settings):
    """Measures of finished videos, which come with the job and into the metrics. docs/quality.md says what they mean.

    Attributes:
        share: of the jobs, from 0 to 1; 0: none is measured. Of several front doors that share a database, all should have the same.
        within_seconds: for one video; one that takes longer has no numbers. Its job is completed so much later, at most.
        max_frames: of a longer video, so many are looked at, in runs all over it.
    """

    share: Annotated[float, Field(ge=0, le=1)] = 0.0
    within_seconds: Annotated[float, Field(gt=0, le=600)] = 30.0
    max_frames: Annotated[int, Field(ge=40, le=100_000)] = 1200


class JobSettings(Settings):
    """Work on jobs, in each front door.

    Attributes:
        at_once: jobs of one front door, however many slots admission has; 0: it accepts jobs, and works on none.
        encoders: threads that encode at once.
        lease_seconds: after so long without a word of its worker, a job is another one's.
        checkpoint_seconds: what a job may lose with its worker.
        max_lost: workers that may die over one job, one after the other and without progress, before it fails.
        ttl_seconds, max_ttl_seconds: how long a finished job's files stay, unless the caller says, and the most that it may say.
        max_queued_seconds: a job that no worker has begun by then fails.
        max_seconds: of video in one job. Streams and files that a caller waits for have limits of their own, `front_door.limits`.
        destinations: for callers' own buckets; null: this server writes into none.
        webhooks, quality: see there.
    """

    at_once: Annotated[int, Field(ge=0, le=4096)] = 16
    encoders: Annotated[int, Field(ge=1, le=64)] = 1
    lease_seconds: Annotated[float, Field(ge=2)] = 20.0
    checkpoint_seconds: Seconds = 5.0
    max_lost: Annotated[int, Field(ge=1)] = 5
    ttl_seconds: Seconds = 24 * 3600.0
    max_ttl_seconds: Seconds = 30 * 24 * 3600.0
    max_queued_seconds: Seconds = 3 * 24 * 3600.0
    max_seconds: Seconds = MAX_JOB_SECONDS
    destinations: S3Settings | None = None
    webhooks: WebhookSettings = WebhookSettings()
    quality: QualitySettings = QualitySettings()

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.ttl_seconds > self.max_ttl_seconds:
            raise ValueError(f"ttl_seconds must be at most max_ttl_seconds, {self.max_ttl_seconds:g}; got {self.ttl_seconds:g}")
        return self
