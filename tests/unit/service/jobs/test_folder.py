"""Files of jobs in a folder: whole or not at all, nowhere else, and reached by links that cannot be made up."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from model_core.errors import StageUnavailable
from service.jobs.files.artifacts import ArtifactFiles, ArtifactMissing, checked_key, result_key, working_key
from service.jobs.files.folder import LINK_PATH, FolderArtifacts, LinkRefused
from service.jobs.job import Job, JobNotReady, JobStatus, Variant

KEY = "jobs/abc/1/part-0"
JOB = Job(
    id="abcdefgh0123", tenant="", door="own", status=JobStatus.COMPLETED, model="m", prompt="p", seconds=1.0, seed=1, steps=4, width=64,
    height=64, fps=24, created_at=0.0, updated_at=0.0, sha256="ab" * 32,
)  # fmt: skip


class Time:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


async def test_what_is_put_is_read_and_deleted_and_leaves_no_folder(tmp_path: Path) -> None:
    store = FolderArtifacts(tmp_path, Time())
    file = tmp_path / "elsewhere"
    file.write_bytes(b"from a file")
    await store.put(KEY, b"bytes")
    await store.put("jobs/abc/2/whole", file)
    await store.put(KEY, b"again")
    assert (await store.read(KEY), await store.read("jobs/abc/2/whole")) == (b"again", b"from a file")
    assert [(found.key, found.size_bytes) for found in await store.listed("jobs/abc/")] == [(KEY, 5), ("jobs/abc/2/whole", 11)]
    await store.delete([KEY, "jobs/abc/2/whole", "jobs/abc/never/there"])
    assert await store.listed("jobs/") == []
    assert [path.name for path in (tmp_path / "jobs").rglob("*")] == []
    with pytest.raises(ArtifactMissing):
        await store.read(KEY)
    with pytest.raises(ArtifactMissing):
        await store.locate(KEY, "video/mp4", 60.0)


@pytest.mark.parametrize(
    "key", ["", "/", "jobs//a", "/jobs/a", "jobs/a/", "jobs/.", "jobs/.hidden", "Jobs/a", "jobs/a\n", "jobs/a b", "a/" * 9 + "a"]
)
def test_what_is_no_key_is_refused(key: str) -> None:
    with pytest.raises(ValueError, match="must be plain names"):
        checked_key(key)


async def test_no_key_leads_out_of_the_folder(tmp_path: Path) -> None:
    store = FolderArtifacts(tmp_path / "store", Time())
    up = os.pardir
    for key in (f"jobs/{up}/{up}/x", f"{up}/x", f"jobs/a{os.sep}{up}{os.sep}x"):
        with pytest.raises(ValueError, match="must be plain names"):
            await store.put(key, b"x")
        with pytest.raises(ValueError, match="must be plain names"):
            await store.read(key)
    assert not (tmp_path / "x").exists()


async def test_a_full_disk_is_no_defect_and_leaves_no_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = FolderArtifacts(tmp_path, Time())

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        with pytest.raises(StageUnavailable, match="has no room"):
            await store.put(KEY, b"x")
    assert await store.listed("jobs/") == []


async def test_what_a_dead_process_left_is_found_and_removed(tmp_path: Path) -> None:
    store = FolderArtifacts(tmp_path, Time())
    await store.put(KEY, b"x")
    (tmp_path / "jobs/abc/1/unfinished-00ff").write_bytes(b"half")
    files = ArtifactFiles(store)
    await files.remove("abc")
    assert await store.listed("jobs/") == []


async def test_only_the_owner_may_enter_and_all_front_doors_share_one_secret(tmp_path: Path) -> None:
    one, two = FolderArtifacts(tmp_path / "a/b", Time()), FolderArtifacts(tmp_path / "a/b", Time())
    assert (tmp_path / "a/b").stat().st_mode & 0o077 == 0
    assert [path.stat().st_mode & 0o777 for path in (tmp_path / "a/b").iterdir()] == [0o600]
    await one.put(KEY, b"x")
    assert (await one.locate(KEY, "video/mp4", 60.0)).link == (await two.locate(KEY, "video/mp4", 60.0)).link


def parts(link: str) -> dict[str, str]:
    url = urlsplit(link)
    assert url.path.startswith(LINK_PATH)
    query = {name: values[0] for name, values in parse_qs(url.query, strict_parsing=True).items()}
    return {
        "key": url.path.removeprefix(LINK_PATH), "media_type": query["type"], "expires": query["expires"], "signature": query["signature"],
    }  # fmt: skip


async def test_a_link_is_good_for_one_file_and_until_it_expires(tmp_path: Path) -> None:
    time = Time()
    store = FolderArtifacts(tmp_path, time)
    await store.put(KEY, b"four")
    link = parts((await store.locate(KEY, "video/mp4", 60.0)).link)
    content = await store.linked(**link)
    assert (content.media_type, content.size_bytes, content.path) == ("video/mp4", 4, tmp_path / KEY)
    for name, value in (
        ("key", "jobs/abc/1/part-1"), ("media_type", "text/html"), ("expires", "9999"), ("expires", "-1"), ("expires", "١٢"),
        ("signature", "0" * 64), ("signature", ""), ("signature", "é"), ("key", f"{os.pardir}/x"),
    ):  # fmt: skip
        with pytest.raises(LinkRefused, match="not one of this server's"):
            await store.linked(**{**link, name: value})
    time.now += 61
    with pytest.raises(LinkRefused, match="expired"):
        await store.linked(**link)
    time.now -= 61
    await store.delete([KEY])
    with pytest.raises(ArtifactMissing):
        await store.linked(**link)


async def test_the_table_asks_by_job(tmp_path: Path) -> None:
    store = FolderArtifacts(tmp_path, Time())
    files = ArtifactFiles(store)
    upload = await files.put_upload(JOB.id, b"image")
    assert await store.read(upload) == b"image"
    for variant in Variant:
        await store.put(result_key(JOB.id, JOB.sha256, variant), variant.value.encode())
    stale = result_key(JOB.id, "cd" * 32, Variant.VIDEO)
    for key in (stale, working_key(JOB.id, 1, "part-0")):
        await store.put(key, b"x")
    await files.remove(JOB.id, keep_result=True)
    assert len(await store.listed("jobs/")) == 4
    await files.keep_only(JOB.id, JOB.sha256)
    assert [file.key for file in await store.listed("jobs/")] == sorted(result_key(JOB.id, JOB.sha256, variant) for variant in Variant)
    found: dict[Variant, Any] = {variant: await files.content(JOB, variant) for variant in Variant}
    assert found[Variant.VIDEO].media_type == "video/mp4"
    assert found[Variant.VIDEO].link.startswith(LINK_PATH)
    assert len({content.etag for content in found.values()}) == 3
    await files.remove(JOB.id)
    with pytest.raises(JobNotReady):
        await files.content(JOB, Variant.VIDEO)


async def test_jobs_whose_files_have_not_changed_for_long_are_named(tmp_path: Path) -> None:
    store = FolderArtifacts(tmp_path, Time())
    for job, times in (("old", (10, 20)), ("mixed", (10, 200)), ("new", (200,))):
        for number, changed in enumerate(times):
            await store.put(f"jobs/{job}/1/{number}", b"x")
            os.utime(tmp_path / f"jobs/{job}/1/{number}", (changed, changed))
    assert list(await ArtifactFiles(store).unchanged_since(100.0)) == ["old"]
