"""Files of jobs in a bucket of S3, or of whatever speaks its protocol. boto3 blocks, so every call is made in a thread."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, cast

import boto3
from boto3.exceptions import S3UploadFailedError
from boto3.s3.transfer import TransferConfig
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, HTTPClientError

from model_core.errors import StageUnavailable
from model_core.tasks import run_in_thread
from service.jobs.files.artifacts import ArtifactMissing, Located, Stored, checked_key, is_key

_MULTIPART_BYTES = 16 * 1024 * 1024
_DELETED_AT_ONCE = 1000  # the most that S3 takes in one request
_MISSING = {"NoSuchKey", "404"}
# One thread for each call: a transfer has none of its own.
TRANSFER = TransferConfig(multipart_threshold=_MULTIPART_BYTES, multipart_chunksize=_MULTIPART_BYTES, use_threads=False)


def s3_client(region: str = "", endpoint_url: str = "", *, tries: int = 4) -> Any:
    """A client with the credentials that boto3 finds: of the environment, a file, or the machine's role.

    Args:
        region: empty for boto3's own.
        endpoint_url: of another store than Amazon's; such stores name buckets in the path.
        tries: of each call, by boto3.
    """
    style = "path" if endpoint_url else "auto"
    config = Config(
        signature_version="s3v4", connect_timeout=5, read_timeout=30, retries={"mode": "standard", "max_attempts": tries},
        s3={"addressing_style": style},
    )  # fmt: skip
    return boto3.client("s3", region_name=region or None, endpoint_url=endpoint_url or None, config=config)


def s3_code(error: Exception) -> str:
    """What S3 calls the error; empty where it is none of S3's own."""
    found = error.__context__ if isinstance(error, S3UploadFailedError) else error
    return str(found.response.get("Error", {}).get("Code", "")) if isinstance(found, ClientError) else ""


S3_ERRORS = (BotoCoreError, ClientError, HTTPClientError, S3UploadFailedError)


class S3Artifacts:
    """Files under a prefix of one bucket.

    Args:
        client: of boto3, for S3.
        bucket: exists.
        prefix: of all keys; empty, or with a slash at its end.
    """

    def __init__(self, client: Any, bucket: str, prefix: str = "") -> None:
        self._client = client
        self._bucket = bucket
        self._prefix = prefix

    async def put(self, key: str, data: bytes | Path) -> None:
        name = self._prefix + checked_key(key)
        if isinstance(data, bytes):
            await self._call(key, partial(self._client.put_object, Bucket=self._bucket, Key=name, Body=data))
        else:
            await self._call(key, partial(self._client.upload_file, str(data), self._bucket, name, Config=TRANSFER))

    async def read(self, key: str) -> bytes:
        return bytes(await self._call(key, partial(self._read, self._prefix + checked_key(key))))

    async def locate(self, key: str, media_type: str, seconds: float) -> Located:
        return cast("Located", await self._call(key, partial(self._located, key, media_type, max(1, int(seconds)))))

    async def listed(self, prefix: str) -> list[Stored]:
        return cast("list[Stored]", await self._call(prefix, partial(self._listed, checked_key(prefix.removesuffix("/")) + "/")))

    async def delete(self, keys: Collection[str]) -> None:
        names = [self._prefix + checked_key(key) for key in keys]
        for first in range(0, len(names), _DELETED_AT_ONCE):
            some = [{"Key": name} for name in names[first : first + _DELETED_AT_ONCE]]
            remove = partial(self._client.delete_objects, Bucket=self._bucket, Delete={"Objects": some, "Quiet": True})
            refused = (await self._call("", remove)).get("Errors") or ()
            if refused:
                raise StageUnavailable(f"the store of files did not delete {len(refused)} of {len(some)}: {refused[0].get('Code')}")

    async def aclose(self) -> None:
        await run_in_thread(self._client.close)

    def _read(self, name: str) -> bytes:
        return bytes(self._client.get_object(Bucket=self._bucket, Key=name)["Body"].read())

    def _located(self, key: str, media_type: str, seconds: int) -> Located:
        file = {"Bucket": self._bucket, "Key": self._prefix + checked_key(key)}
        size = int(self._client.head_object(**file)["ContentLength"])
        wanted = file | {"ResponseContentType": media_type}
        return Located(size, url=str(self._client.generate_presigned_url("get_object", Params=wanted, ExpiresIn=seconds)))

    def _listed(self, prefix: str) -> list[Stored]:
        pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=self._bucket, Prefix=self._prefix + prefix)
        found = [entry for page in pages for entry in page.get("Contents", ())]
        names = [(str(entry["Key"]).removeprefix(self._prefix), entry) for entry in found]
        return [Stored(key, int(entry["Size"]), entry["LastModified"].timestamp()) for key, entry in names if is_key(key)]

    async def _call(self, key: str, call: partial[Any]) -> Any:
        with _answering(key):
            return await run_in_thread(call)


@contextmanager
def _answering(key: str) -> Iterator[None]:
    try:
        yield
    except S3_ERRORS as error:
        if s3_code(error) in _MISSING:
            raise ArtifactMissing(f"there is no file {key}") from None
        # Its own words may hold the address that was signed.
        raise StageUnavailable(f"the store of files does not answer as it should: {s3_code(error) or type(error).__name__}") from error
