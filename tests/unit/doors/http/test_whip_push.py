"""Our WHIP client: it sends to a server that takes WHIP, says why one does not, and leaves nothing behind."""

from __future__ import annotations

import asyncio

import pytest

from doors.http.webrtc.push import PushRefused, Target, pushing
from doors.http.webrtc.track import UnitTrack
from tests.fakes import eventually
from tests.http_served import http_serving
from tests.unit.doors.http.test_whip import ASKED, CHUNK, FPS, peers, units
from tests.webrtc_peers import OPTIONS


async def test_what_is_put_into_the_track_arrives_and_the_end_is_told() -> None:
    async with http_serving(webrtc=OPTIONS) as served:
        track = UnitTrack(FPS)
        async with pushing(Target.of(f"whip+http://127.0.0.1:{served.port}{ASKED}"), track, OPTIONS) as connection:
            await connection.until_begun()
            assert not connection.ended.is_set()

            async def send() -> None:
                for first in range(0, 100 * CHUNK, CHUNK):
                    await track.put(first, units(first))

            sending = asyncio.create_task(send())
            await eventually(lambda: served.metric("video_seconds_total") > 0)
            sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)
        assert peers(served) == 0
        await served.nothing_left()


async def test_a_server_that_refuses_is_quoted_and_one_that_is_not_there_may_come_back() -> None:
    async with http_serving(webrtc=OPTIONS) as served:
        with pytest.raises(PushRefused, match=r"400.*prompt") as refused:
            async with pushing(Target.of(f"http://127.0.0.1:{served.port}/v1/whip"), UnitTrack(FPS), OPTIONS):
                raise AssertionError
        assert refused.value.lasting
        port = served.port
    with pytest.raises(PushRefused, match="cannot be asked") as gone:
        async with pushing(Target.of(f"http://127.0.0.1:{port}/v1/whip"), UnitTrack(FPS), OPTIONS):
            raise AssertionError
    assert not gone.value.lasting


@pytest.mark.parametrize("url", ["rtmp://a/b", "whip+https://", "whip+http://a/b#c", "whip+http://a/\u00e4", "nothing"])
def test_an_address_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="must be whip"):
        Target.of(url)
