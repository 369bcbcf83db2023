"""`GET /v1/watch/{token}/hls/…` over a real socket: what a player of HLS fetches, in its order."""

from __future__ import annotations

import asyncio
import io
import re

import av
import pytest

from tests.fakes import eventually
from tests.unit.doors.http.test_own_watch import CHUNK, playing


async def test_a_player_fetches_a_session_part_by_part_to_its_end() -> None:
    async with playing("fmp4", seconds=2.0, made=2) as (served, owner, gate):
        base = f"/v1/watch/{await owner.token()}/hls/"
        first = await served.client.get(base + "index.m3u8")
        assert (first.status_code, first.headers["content-type"]) == (200, "application/vnd.apple.mpegurl")
        assert 'CODECS="avc1.' in first.text
        media = await served.client.get(base + first.text.splitlines()[-1])
        hint = re.search(r'PRELOAD-HINT:TYPE=PART,URI="(part-16\.m4s)"', media.text)
        assert hint is not None, media.text
        header = await served.client.get(base + "init.mp4")
        assert header.headers["content-type"] == "video/mp4"
        waiting = [asyncio.create_task(served.client.get(base + name)) for name in (hint[1], "media.m3u8?_HLS_msn=0&_HLS_part=1")]
        await eventually(lambda: served.hub.watchers == 1)
        gate.release()
        part, playlist = [await task for task in waiting]
        assert 'URI="part-16.m4s"' in playlist.text
        with av.open(io.BytesIO(header.content + part.content), "r") as container:
            assert len(list(container.decode(video=0))) == CHUNK
        for _ in range(3):
            gate.release()
        await eventually(owner.task.done)
        last = await served.client.get(base + "media.m3u8?_HLS_msn=1")
        assert "#EXT-X-ENDLIST" in last.text
        assert served.hub.watchers == 0
        segment = await served.client.get(base + "segment-0.m4s")
        with av.open(io.BytesIO(header.content + segment.content), "r") as container:
            assert len(list(container.decode(video=0))) >= 5 * CHUNK


async def test_players_of_one_session_are_one_viewer() -> None:
    async with playing("fmp4") as (served, owner, _):
        base = f"/v1/watch/{await owner.token()}/hls/"
        answers = await asyncio.gather(*(served.client.get(base + "media.m3u8") for _ in range(10)))
        assert {answer.status_code for answer in answers} == {200}
        assert served.hub.watchers == 1


@pytest.mark.parametrize(
    ("name", "status", "told"),
    [
        ("media.m3u8?_HLS_msn=1000", 400, "_HLS_msn: must be at most"),
        ("media.m3u8?_HLS_msn=x", 400, "_HLS_msn: must be a whole number from 0"),
        ("media.m3u8?_HLS_part=1", 400, "_HLS_part: must come with _HLS_msn"),
        ("segment-99.m4s", 404, "the playlist does not list it"),
        ("part-999.m4s", 404, "the playlist does not list it"),
        ("other.ts", 404, "there is no such file"),
    ],
)
async def test_what_is_not_there_is_refused(name: str, status: int, told: str) -> None:
    async with playing("fmp4") as (served, owner, _):
        answer = await served.client.get(f"/v1/watch/{await owner.token()}/hls/{name}")
    assert answer.status_code == status, answer.text
    assert told in answer.text


async def test_other_codecs_and_unknown_tokens_are_refused() -> None:
    async with playing("jpeg") as (served, owner, _):
        answer = await served.client.get(f"/v1/watch/{await owner.token()}/hls/index.m3u8")
        assert answer.status_code == 400
        assert "codec: must be fmp4 for a session that is broadcast; got jpeg" in answer.text
        unknown = await served.client.get("/v1/watch/nobody/hls/index.m3u8")
        assert unknown.status_code == 404
        assert served.hub.watchers == 0
