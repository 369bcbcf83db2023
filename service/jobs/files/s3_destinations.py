"""Copies finished videos into buckets of S3, with the server's own credentials.

S3 is told who must own a bucket where the caller says so; a bucket that changed hands then takes nothing.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from model_core.errors import StageUnavailable
from model_core.tasks import run_in_thread
from service.jobs.files import bedrock_layout
from service.jobs.files.destinations import DestinationRefused, bucket_of
from service.jobs.files.render import RenderedFile
from service.jobs.files.s3 import S3_ERRORS, TRANSFER, s3_code
from service.jobs.job import Destination, Job

# What only the caller, or whoever owns the bucket, can mend.
_REFUSALS = {
    "AccessDenied", "AllAccessDisabled", "AuthorizationHeaderMalformed", "InvalidBucketName", "MethodNotAllowed", "NoSuchBucket",
    "PermanentRedirect", "403", "404",
}  # fmt: skip


class S3Destinations:
    """`service.jobs.files.destinations.Destinations`. `client` is boto3's, for S3."""

    def __init__(self, client: Any) -> None:
        self._client = client

    async def deliver(self, job: Job, destination: Destination, file: RenderedFile) -> None:
        """See there."""
        try:
            bucket, prefix = bucket_of(bedrock_layout.folder(destination, job.id))
        except ValueError as error:
            raise DestinationRefused(f"the destination {error}") from None
        owner = {"ExpectedBucketOwner": destination.owner} if destination.owner else {}
        key, kind = f"{prefix}/{bedrock_layout.VIDEO}", {**owner, "ContentType": "video/mp4"}
        await self._call(bucket, partial(self._client.upload_file, str(file.path), bucket, key, kind, Config=TRANSFER))
        if destination.layout == "bedrock":
            for name, body in bedrock_layout.documents(job, destination, file.size_bytes, file.sha256).items():
                put = partial(
                    self._client.put_object, Bucket=bucket, Key=f"{prefix}/{name}", Body=body, ContentType="application/json", **owner
                )
                await self._call(bucket, put)

    async def aclose(self) -> None:
        """Free its connections."""
        await run_in_thread(self._client.close)

    async def _call(self, bucket: str, call: partial[Any]) -> None:
        try:
            await run_in_thread(call)
        except S3_ERRORS as error:
            code = s3_code(error)
            if code in _REFUSALS:
                raise DestinationRefused(f"the bucket {bucket} does not take the files: {code}") from error
            raise StageUnavailable(f"the bucket {bucket} cannot be written to just now: {code or type(error).__name__}") from error
