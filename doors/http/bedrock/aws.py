"""Names and times as Amazon Web Services writes them. Pure."""

from __future__ import annotations

import math
import re
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime

_ARN = re.compile(r"arn:aws[a-z-]{0,16}:bedrock:[a-z0-9-]{1,20}:\d{12}:async-invoke/(?P<job>[a-z0-9]{12})", re.ASCII)
_BUCKET = re.compile(r"s3://[a-z0-9][.\-a-z0-9]{1,61}[a-z0-9](/.*)?", re.ASCII | re.DOTALL)
_ACCOUNT = re.compile(r"\d{12}", re.ASCII)
_MAX_URI_CHARS = 1024


@dataclass(frozen=True, slots=True)
class Arns:
    """The ARNs that this server gives. It has neither regions nor accounts, so these two only fill their places.

    Attributes:
        region: of all ARNs.
        account: 12 digits.
    """

    region: str = "us-east-1"
    account: str = "000000000000"

    def invocation(self, job_id: str) -> str:
        return f"arn:aws:bedrock:{self.region}:{self.account}:async-invoke/{job_id}"

    def model(self, name: str) -> str:
        return f"arn:aws:bedrock:{self.region}::foundation-model/{name}"


def job_of(arn: str) -> str | None:
    """The job that an invocation's ARN names, in whatever region and account; None where it is no such ARN."""
    match = _ARN.fullmatch(arn)
    return None if match is None else match["job"]


def model_of(model_id: str) -> str:
    """The name in a model's id, which may be an ARN that ends with it."""
    return model_id.rpartition("/")[2] if model_id.startswith("arn:") else model_id


def is_folder(uri: str) -> bool:
    """Whether it names a bucket, and perhaps a folder of it."""
    return len(uri) <= _MAX_URI_CHARS and _BUCKET.fullmatch(uri) is not None


def is_account(text: str) -> bool:
    return _ACCOUNT.fullmatch(text) is not None


def seconds_of(text: str) -> float | None:
    """Unix time of an ISO 8601 time, or of a number of seconds; None where it is neither."""
    with suppress(ValueError):
        seconds = float(text)
        return seconds if math.isfinite(seconds) else None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
