from pathlib import Path

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from doors.http.contents import content_bytes, content_response
from service.jobs.job import Content, JobNotFound


async def fetched(content: Content, **headers: str) -> httpx.Response:
    async def answer(request: Request) -> Response:
        return await content_response(content, "abc.mp4")

    app = Starlette(routes=[Route("/", answer)])
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://test") as client:
        return await client.get("/", headers=headers)


async def test_a_file_comes_whole_or_in_part(tmp_path: Path) -> None:
    path = tmp_path / "video"
    path.write_bytes(b"0123456789")
    content = Content("video/mp4", 10, "e1", path=path)
    whole = await fetched(content)
    assert (whole.status_code, whole.content, whole.headers["etag"], whole.headers["content-type"]) == (
        200,
        b"0123456789",
        '"e1"',
        "video/mp4",
    )
    assert whole.headers["content-disposition"] == 'inline; filename="abc.mp4"'
    part = await fetched(content, range="bytes=2-4")
    assert (part.status_code, part.content, part.headers["content-range"]) == (206, b"234", "bytes 2-4/10")
    assert await content_bytes(content) == b"0123456789"


async def test_a_store_serves_its_files_itself() -> None:
    content = Content("video/mp4", 10, "e1", url="https://store.test/video?signature=x")
    answer = await fetched(content)
    assert (answer.status_code, answer.headers["location"]) == (302, content.url)
    assert await content_bytes(content) is None


async def test_a_file_that_was_just_deleted_is_not_found(tmp_path: Path) -> None:
    content = Content("video/mp4", 10, "e1", path=tmp_path / "gone")
    with pytest.raises(JobNotFound):
        await content_response(content, "abc.mp4")
    with pytest.raises(JobNotFound):
        await content_bytes(content)
