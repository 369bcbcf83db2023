"""Links to results, over the folder that makes them."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from doors.http.links.room import LinksRoom
from service.jobs.files.artifacts import result_key
from service.jobs.files.folder import FolderArtifacts
from service.jobs.job import Variant
from tests.core import core
from tests.unit.doors.http.fake_edge import door, services

KEY = result_key("abcdefgh0123", "5f" * 32, Variant.VIDEO)


class Clock:
    now = 1_700_000_000.0

    def __call__(self) -> float:
        return self.now


@asynccontextmanager
async def linked(folder: Path, clock: Clock) -> AsyncGenerator[tuple[httpx.AsyncClient, str], None]:
    """A client without a key, and a link to a file that is good for a minute."""
    files = FolderArtifacts(folder / "files", clock)
    await files.put(KEY, b"an MP4")
    link = (await files.locate(KEY, "video/mp4", 60.0)).link
    async with core() as made, door(LinksRoom(replace(services(made, None), links=files)), made, None) as found:
        del found.client.headers["authorization"]
        yield found.client, link


async def test_whoever_holds_a_link_gets_the_file(tmp_path: Path) -> None:
    async with linked(tmp_path, Clock()) as (client, link):
        answer = await client.get(link)
        assert (answer.status_code, answer.content, answer.headers["content-type"]) == (200, b"an MP4", "video/mp4")
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert (await client.get(link, headers={"range": "bytes=0-1"})).content == b"an"


@pytest.mark.parametrize(
    ("old", "new"), [("video%2Fmp4", "text%2Fhtml"), ("signature=", "signature=0"), ("abcdefgh", "bbcdefgh"), ("expires=", "x=")]
)
async def test_a_link_that_was_changed_is_refused(tmp_path: Path, old: str, new: str) -> None:
    async with linked(tmp_path, Clock()) as (client, link):
        assert old in link
        answer = await client.get(link.replace(old, new))
        assert (answer.status_code, answer.json()["error"]["code"]) == (403, "forbidden")


async def test_a_link_ends(tmp_path: Path) -> None:
    clock = Clock()
    async with linked(tmp_path, clock) as (client, link):
        clock.now += 61
        answer = await client.get(link)
        assert (answer.status_code, answer.json()["error"]["message"]) == (403, "the link has expired")


async def test_a_file_that_is_gone_is_not_found(tmp_path: Path) -> None:
    async with linked(tmp_path, Clock()) as (client, link):
        await FolderArtifacts(tmp_path / "files", Clock()).delete([KEY])
        assert (await client.get(link)).status_code == 404


async def test_a_server_that_keeps_no_files_says_so() -> None:
    async with core() as made, door(LinksRoom(services(made, None)), made, None) as found:
        answer = await found.client.get("/v1/headrace/files/a/b")
        assert (answer.status_code, answer.json()["error"]["code"]) == (501, "not_served")
