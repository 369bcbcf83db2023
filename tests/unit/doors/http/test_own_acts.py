"""`GET /v1/live` steers a world: keys go in, and frames say which were held."""

from __future__ import annotations

import asyncio

from model_core.presets import millrace_64_world
from tests.fakes import FakeDenoiser, FakeStages
from tests.http_served import http_serving
from tests.live_socket import live
from tests.unit.doors.http.test_own_live import PROMPT, begun


async def test_keys_move_a_world_and_its_frames_say_which_were_held() -> None:
    gate, config = asyncio.Semaphore(1), millrace_64_world()
    stages = FakeStages(FakeDenoiser(config, gate=gate), keep_chunks=6, config=config)
    async with http_serving(stages) as served:
        async with live(served.port) as caller:
            token = (await begun(caller, codec="raw", max_lead_seconds=30))["resume_token"]
            assert "keys" not in await caller.until("frames")
            await caller.say(act={"keys": ["left"], "request_id": 3})
            gate.release()
            gate.release()
            applied = await caller.until("prompt_applied")
            assert (applied["prompt"], applied["keys"], applied["request_id"]) == (PROMPT, ["left"], 3)
            frames = await caller.until("frames")
            assert (frames["first_frame"], frames["keys"]) == (applied["first_frame"], ["left"])
        async with live(served.port) as again:
            end = frames["first_frame"] + frames["frame_count"]
            await again.say(start={"resume": {"token": token, "next_frame": end, "acknowledged": [applied]}})
            gate.release()
            gate.release()
            assert (await again.until("frames"))["keys"] == ["left"]
            await again.say(act={"keys": ["fire"]})
            assert await again.rest() == 4400
            assert again.events[-1]["error"]["message"].startswith("act.keys: must be among: up, down, left, right; got 'fire'")
        async with live(served.port) as held:
            await begun(held, codec="raw", keys=["up", "down"])
            gate.release()
            assert (await held.until("frames"))["keys"] == ["up", "down"]
