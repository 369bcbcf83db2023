"""Files of jobs in S3, and copies in callers' buckets, against a server that speaks its protocol."""

from __future__ import annotations

import asyncio
import json
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from boto3.s3.transfer import TransferConfig
from moto.server import ThreadedMotoServer

from model_core.errors import StageUnavailable
from service.jobs.files import s3
from service.jobs.files.artifacts import ArtifactFiles, ArtifactMissing
from service.jobs.files.destinations import DestinationRefused, bucket_of
from service.jobs.files.render import RenderedFile
from service.jobs.files.s3 import S3Artifacts, s3_client
from service.jobs.files.s3_destinations import S3Destinations
from service.jobs.job import Destination, Job, JobStatus

KEY = "jobs/abc/1/part-0"
JOB = Job(
    id="abcdefgh0123", tenant="", door="bedrock", status=JobStatus.RUNNING, model="m", prompt="p", seconds=1.0, seed=1, steps=4, width=64,
    height=64, fps=24, created_at=0.0, updated_at=0.0,
)  # fmt: skip


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def client(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    made = s3_client("us-east-1", endpoint)
    urllib.request.urlopen(urllib.request.Request(f"{endpoint}/moto-api/reset", method="POST")).close()  # noqa: S310 - on this machine
    for bucket in ("own", "callers"):
        made.create_bucket(Bucket=bucket)
    yield made
    made.close()


async def test_what_is_put_is_read_listed_and_deleted(client: Any, tmp_path: Path) -> None:
    store = S3Artifacts(client, "own", "headrace/")
    (tmp_path / "file").write_bytes(b"from a file")
    await store.put(KEY, b"bytes")
    await store.put("jobs/abc/2/whole", tmp_path / "file")
    client.put_object(Bucket="own", Key="elsewhere/x", Body=b"not ours")
    assert (await store.read(KEY), await store.read("jobs/abc/2/whole")) == (b"bytes", b"from a file")
    assert [(found.key, found.size_bytes) for found in await store.listed("jobs/abc/")] == [(KEY, 5), ("jobs/abc/2/whole", 11)]
    assert await store.listed("jobs/ab/") == []
    await store.delete([KEY, "jobs/abc/2/whole", "jobs/abc/never/there"])
    assert await store.listed("jobs/") == []
    assert client.list_objects_v2(Bucket="own")["KeyCount"] == 1
    for missing in (store.read(KEY), store.locate(KEY, "video/mp4", 60.0)):
        with pytest.raises(ArtifactMissing):
            await missing


def fetched(url: str) -> tuple[bytes, str]:
    with urllib.request.urlopen(url) as answer:  # noqa: S310 - on this machine
        return answer.read(), answer.headers["content-type"]


async def test_a_link_needs_no_key_and_says_what_it_leads_to(client: Any) -> None:
    store = S3Artifacts(client, "own")
    await store.put(KEY, b"four")
    located = await store.locate(KEY, "video/mp4", 60.0)
    assert await asyncio.to_thread(fetched, located.url) == (b"four", "video/mp4")
    assert (located.size_bytes, located.path, located.link) == (4, None, "")


async def test_a_large_file_goes_in_parts(client: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    size = 5 * 1024 * 1024  # the least that S3 takes as a part
    monkeypatch.setattr(s3, "TRANSFER", TransferConfig(multipart_threshold=size, multipart_chunksize=size, use_threads=False))
    (tmp_path / "file").write_bytes(bytes(size + 10))
    store = S3Artifacts(client, "own")
    await store.put(KEY, tmp_path / "file")
    assert client.head_object(Bucket="own", Key=KEY)["ETag"].endswith('-2"')
    assert len(await store.read(KEY)) == size + 10


async def test_a_bucket_that_is_not_there_is_no_defect(client: Any, tmp_path: Path) -> None:
    store = S3Artifacts(client, "missing")
    (tmp_path / "file").write_bytes(b"x")
    for data in (b"x", tmp_path / "file"):
        with pytest.raises(StageUnavailable, match="NoSuchBucket"):
            await store.put(KEY, data)
    away = S3Artifacts(s3_client("us-east-1", "http://127.0.0.1:1", tries=1), "own")
    with pytest.raises(StageUnavailable, match="does not answer"):
        await away.read(KEY)


async def test_files_of_a_job_are_removed_together(client: Any) -> None:
    store = S3Artifacts(client, "own")
    files = ArtifactFiles(store)
    for number in range(3):
        await store.put(f"jobs/abc/{number}/x", b"x")
    await store.put("jobs/abcd/1/x", b"x")
    await files.remove("abc")
    assert [file.key for file in await store.listed("jobs/")] == ["jobs/abcd/1/x"]


def rendered(folder: Path) -> RenderedFile:
    (folder / "video.mp4").write_bytes(b"video")
    return RenderedFile(folder / "video.mp4", 5, "ab" * 32)


async def test_a_callers_bucket_gets_what_amazon_bedrock_writes(client: Any, tmp_path: Path) -> None:
    await S3Destinations(client).deliver(JOB, Destination("s3://callers/videos/"), rendered(tmp_path))
    found = {
        entry["Key"]: client.get_object(Bucket="callers", Key=entry["Key"])
        for entry in client.list_objects_v2(Bucket="callers")["Contents"]
    }
    below = f"videos/{JOB.id}/"
    assert all(key.startswith(below) for key in found)
    assert found[f"{below}output.mp4"]["Body"].read() == b"video"
    assert found[f"{below}output.mp4"]["ContentType"] == "video/mp4"
    assert json.loads(found[f"{below}generation-status.json"]["Body"].read())["fullVideo"]["location"] == f"s3://callers/{below}output.mp4"
    assert f"{below}manifest.json" in found


async def test_another_layout_is_the_video_alone(client: Any, tmp_path: Path) -> None:
    await S3Destinations(client).deliver(JOB, Destination("s3://callers", layout="plain"), rendered(tmp_path))
    assert [entry["Key"] for entry in client.list_objects_v2(Bucket="callers")["Contents"]] == [f"{JOB.id}/output.mp4"]


async def test_a_bucket_that_does_not_take_the_file_fails_the_job_and_s3_away_does_not(client: Any, tmp_path: Path) -> None:
    for uri in ("s3://missing/x", "https://callers/x", "s3:///x"):
        with pytest.raises(DestinationRefused):
            await S3Destinations(client).deliver(JOB, Destination(uri), rendered(tmp_path))
    with pytest.raises(StageUnavailable):
        await S3Destinations(s3_client("us-east-1", "http://127.0.0.1:1", tries=1)).deliver(
            JOB, Destination("s3://callers/x"), rendered(tmp_path)
        )


async def test_s3_is_told_who_must_own_the_bucket(client: Any, tmp_path: Path) -> None:
    told: list[Any] = []
    client.meta.events.register(
        "before-send.s3.PutObject", lambda request, **_: told.append(request.headers["x-amz-expected-bucket-owner"])
    )
    await S3Destinations(client).deliver(JOB, Destination("s3://callers/x", owner="123456789012"), rendered(tmp_path))
    assert len(told) >= 3
    assert {value.decode() if isinstance(value, bytes) else value for value in told} == {"123456789012"}


@pytest.mark.parametrize("uri", ["", "s3://", "s3:///a", "https://b/a", "s3://b/a?x=y", "s3://b/a#c"])
def test_what_is_no_folder_of_a_bucket_is_refused(uri: str) -> None:
    with pytest.raises(ValueError, match="must be s3://BUCKET/PREFIX"):
        bucket_of(uri)
    assert bucket_of("s3://b/a/c/") == ("b", "a/c")
