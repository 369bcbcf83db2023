"""Settings of jobs: read, bounded, and refused by name."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from deployments.config.application import AppConfig
from deployments.config.jobs import ArtifactSettings, JobSettings
from tests.documents import ROOT, named_by


def test_the_settings_of_the_page_are_read() -> None:
    [block] = named_by("tests/unit/deployments/test_job_settings.py::test_the_settings_of_the_page_are_read", [ROOT / "docs/jobs.md"])
    config = AppConfig.model_validate(yaml.safe_load(block.text))
    assert config.artifacts.s3 is not None
    assert (config.artifacts.s3.bucket, config.artifacts.s3.prefix) == ("videos", "headrace/")
    assert config.jobs.destinations is not None
    assert config.jobs.webhooks.allowed_networks == ("10.1.0.0/16",)


def test_the_settings_of_quality_are_read() -> None:
    [block] = named_by("tests/unit/deployments/test_job_settings.py::test_the_settings_of_quality_are_read", [ROOT / "docs/quality.md"])
    settings = AppConfig.model_validate(yaml.safe_load(block.text)).jobs.quality
    assert (settings.share, settings.within_seconds, settings.max_frames) == (0.1, 30.0, 1200)
    assert JobSettings().quality.share == 0  # nobody is measured without having asked for it


def test_without_a_database_there_are_no_jobs_and_nothing_to_set() -> None:
    config = AppConfig()
    assert config.state.url == ""
    assert (config.artifacts, config.jobs) == (ArtifactSettings(), JobSettings())


@pytest.mark.parametrize(
    ("args", "said"),
    [
        ({"artifacts": {"folder": "/a", "s3": {"bucket": "videos"}}}, "folder must be empty where s3 is given"),
        ({"artifacts": {"s3": {"bucket": "Bad_Name"}}}, "artifacts.s3.bucket"),
        ({"artifacts": {"s3": {"bucket": "videos", "prefix": "no-slash"}}}, "artifacts.s3.prefix"),
        ({"artifacts": {"s3": {"bucket": "videos", "endpoint_url": "http://"}}}, "must name a host"),
        ({"artifacts": {"link_seconds": 0}}, "artifacts.link_seconds"),
        ({"jobs": {"webhooks": {"allowed_networks": ["10.1.2.3/16"]}}}, "must be networks such as 10.1.0.0/16"),
        ({"jobs": {"ttl_seconds": 10, "max_ttl_seconds": 5}}, "ttl_seconds must be at most max_ttl_seconds, 5; got 10"),
        ({"jobs": {"max_seconds": 0}}, "jobs.max_seconds"),
        ({"jobs": {"max_seconds": float("inf")}}, "jobs.max_seconds"),
        ({"jobs": {"lease_seconds": 1}}, "jobs.lease_seconds"),
        ({"jobs": {"at_once": True}}, "must not be true or false"),
        ({"jobs": {"unknown": 1}}, "jobs.unknown"),
        ({"jobs": {"quality": {"share": 1.1}}}, "jobs.quality.share"),
        ({"jobs": {"quality": {"share": False}}}, "must not be true or false"),
        ({"jobs": {"quality": {"within_seconds": 0}}}, "jobs.quality.within_seconds"),
        ({"jobs": {"quality": {"max_frames": 39}}}, "jobs.quality.max_frames"),
    ],
)
def test_what_is_wrong_is_refused_by_name(args: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError) as caught:
        AppConfig.model_validate(args)
    told = " ".join(f"{'.'.join(str(part) for part in error['loc'])} {error['msg']}" for error in caught.value.errors())
    assert said in told
