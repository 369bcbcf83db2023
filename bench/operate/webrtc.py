"""WebRTC in a real Chromium and between processes, against a real cluster: `python -m bench.operate.webrtc` (`make webrtc`).

Two front doors and two replicas of each stage. A client over gRPC steers a session, and Chromium watches it by WHEP:

    join      from the offer to the first picture that the browser painted
    switch    from a new prompt, asked for by the client, to the first picture of it that the browser painted
    denoiser  a replica of the denoiser is killed under the session: pictures painted, and the longest time for which one stood
    viewers   processor time of the front doors, a viewer, with several that take packets and decode nothing
    push      `headrace whip`, another process, sends the session on to `POST /v1/whip` of the same server: frames that were restyled
    publish   Chromium codes a video of its own and sends it by WHIP: pictures of the restyled session that a second page painted

Times of a switch are by the clock of the machine, from pixels. The exit code is 1 if anything of it was not seen.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import httpx

from bench.kit.browsing import BrowserFailed, Browsing, browsing
from bench.kit.harness import FaultCluster
from bench.kit.nodes import LocalNodes, with_cluster_environment
from bench.kit.tally import quantile
from bench.operate.live_page import ENVIRONMENT, PROMPTS, Cluster, colour
from deployments.cluster.local import free_port
from headrace.client import HeadraceClient, LiveSession, Reconnect
from headrace.v1 import video_pb2 as pb

_FPS = 24
_APART_S = 3.0
_CONNECTS_WITHIN_MS = 15_000
_SEEN_WITHIN_MS = 20_000


class Steered:
    """A session in a loop and a thread of its own, so that a browser may be waited for beside it."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._started: asyncio.Future[pb.Started] | None = None
        self._session: LiveSession | None = None
        self._task: asyncio.Task[None] | None = None
        self.frames = 0

    def __enter__(self) -> Self:
        self._thread.start()
        self.token = self.do(self._begin()).watch_token
        return self

    def __exit__(self, *_: object) -> None:
        self.do(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    def do(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(60)

    def ask(self, prompt: str) -> float:
        """Milliseconds since 1970 when it was asked for."""
        if self._session is None:
            raise RuntimeError("enter the session first")
        now = 1000 * time.time()
        self.do(self._session.set_prompt(prompt))
        return now

    async def _begin(self) -> pb.Started:
        self._started = asyncio.get_running_loop().create_future()
        self._task = asyncio.create_task(self._play())
        return await self._started

    async def _play(self) -> None:
        async with (
            HeadraceClient(self._address) as client,
            client.live(PROMPTS[0][0], codec=pb.CODEC_FMP4_H264, reconnect=Reconnect()) as self._session,
        ):
            async for event in self._session:
                if isinstance(event, pb.Started) and self._started is not None and not self._started.done():
                    self._started.set_result(event)
                elif isinstance(event, pb.Frames):
                    self.frames += event.frame_count

    async def _end(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)


class Report:
    """What was measured, and whether all of it was seen."""

    def __init__(self) -> None:
        self.values: dict[str, Any] = {}
        self.lines: list[str] = []
        self.passed = True

    def part(self, name: str, measure: Callable[[], tuple[dict[str, Any], str]]) -> None:
        """One part, which may fail without the others."""
        try:
            values, line = measure()
        except (BrowserFailed, RuntimeError, TimeoutError, httpx.HTTPError) as error:
            self.passed, values, line = False, {"failed": str(error)}, f"FAILED: {error}"
        self.values[name] = values
        self.lines.append(f"{name:10}{line}")
        print(self.lines[-1], flush=True)


def watched(browser: Browsing, url: str, token: str) -> float:
    """Another page that watches; milliseconds to its first picture."""
    browser.do("open", url=url)
    took: float = browser.do("webrtc", name="watch", given=[f"/v1/watch/{token}/whep", _CONNECTS_WITHIN_MS])
    return took


def left(browser: Browsing) -> None:
    browser.do("webrtc", name="end", given=[])
    browser.do("close")


def joins(browser: Browsing, url: str, token: str, count: int) -> tuple[dict[str, Any], str]:
    found = []
    for _ in range(count):
        found.append(watched(browser, url, token))
        left(browser)
    return {"ms": found}, f"{quantile(found, 0.5):.0f} ms p50, {max(found):.0f} ms at most, of {count}"


def switches(browser: Browsing, session: Steered, count: int) -> tuple[dict[str, Any], str]:
    found: list[float] = []
    for turn in range(1, count + 1):
        prompt, background = PROMPTS[turn % len(PROMPTS)]
        asked = session.ask(prompt)
        took = browser.do("webrtc", name="until", given=[colour(background), asked, _SEEN_WITHIN_MS])
        if took is None:
            raise RuntimeError(f"not seen: {prompt}")
        found.append(took)
        time.sleep(_APART_S)
    about = browser.do("webrtc", name="statistics", given=[])
    line = f"{quantile(found, 0.5):.0f} ms p50, {max(found):.0f} ms at most, of {count}; the browser's buffer {about['bufferMs']:.0f} ms"
    return {"ms": found, "browser": about}, line


def killed(browser: Browsing, cluster: Cluster) -> tuple[dict[str, Any], str]:
    browser.do("webrtc", name="seen", given=[])
    time.sleep(1.0)
    cluster.kill_denoiser()
    time.sleep(6.0)
    seen = browser.do("webrtc", name="seen", given=[])
    about = browser.do("webrtc", name="statistics", given=[])
    if not seen["painted"]:
        raise RuntimeError("nothing was painted after the kill")
    line = f"{seen['painted']} pictures painted in {seen['seconds']:.1f} s, one stood for {seen['frozenMs']:.0f} ms at most"
    return {**seen, "browser": about}, f"{line}; packets lost: {about['lost']}"


def cpu_s(pids: list[int]) -> float:
    """Processor time of processes so far."""
    ticks = [sum(map(int, Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13])) for pid in pids]
    return sum(ticks) / os.sysconf("SC_CLK_TCK")


def viewers(cluster: FaultCluster, runner: asyncio.Runner, url: str, token: str, count: int, seconds: float) -> tuple[dict[str, Any], str]:
    """Of the front doors, with no viewer and with `count` that are in this process."""
    from bench.operate.webrtc_viewers import taking  # noqa: PLC0415 - aiortc is wanted here alone

    pids = [report.process.pid for report in runner.run(cluster.front_doors()) if report.process]
    before = cpu_s(pids)
    time.sleep(seconds)
    alone = (cpu_s(pids) - before) / seconds

    async def with_viewers() -> tuple[float, int]:
        async with taking(f"{url}v1/watch/{token}/whep", count) as found:
            before = cpu_s(pids)
            began = time.monotonic()
            await asyncio.sleep(seconds)
            return (cpu_s(pids) - before) / (time.monotonic() - began), found.pictures

    together, pictures = asyncio.run(with_viewers())
    each = (together - alone) / count
    values = {"viewers": count, "alone_cores": alone, "with_viewers_cores": together, "each_cores": each, "pictures": pictures}
    line = f"{100 * alone:.1f} % of a core without, {100 * together:.1f} % with {count}: {100 * each:.2f} % each"
    return values, f"{line}; {pictures} pictures came"


@contextmanager
def pushing(address: str, token: str, to: str) -> Iterator[Any]:
    command = [sys.executable, "-m", "headrace", "whip", token, "--to", to, "--address", address]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.terminate()
        process.wait(20)


def pushed(cluster: FaultCluster, runner: asyncio.Runner, url: str, token: str, seconds: float) -> tuple[dict[str, Any], str]:
    """The front doors have one more session while the other process sends."""

    def sessions() -> int:
        return sum(report.open for report in runner.run(cluster.front_doors()))

    before = sessions()
    with pushing(cluster.address, token, f"whip+{url}v1/whip?prompt=a+green+square&strength=0.5") as process:
        until = time.monotonic() + 20.0
        while sessions() <= before:
            if time.monotonic() > until or process.poll() is not None:
                raise RuntimeError("no session began")
            time.sleep(0.5)
        time.sleep(seconds)
        alive = process.poll() is None and sessions() > before
    if not alive:
        raise RuntimeError("the session that the other process fed has ended")
    return {"seconds": seconds}, f"another process fed a session by WHIP for {seconds:.0f} s"


def published(browser: Browsing, url: str) -> tuple[dict[str, Any], str]:
    browser.do("open", url=url)
    given = ["/v1/whip?prompt=a+large+yellow+star+on+a+navy+background&strength=0.75", "beige", _CONNECTS_WITHIN_MS]
    token = browser.do("webrtc", name="publish", given=given)
    took = watched(browser, url, token)
    time.sleep(4.0)
    seen = browser.do("webrtc", name="seen", given=[])
    left(browser)
    left(browser)
    if not seen["painted"]:
        raise RuntimeError("nothing of the restyled session was painted")
    return {**seen, "first_ms": took}, f"{seen['painted']} pictures of it painted in {seen['seconds']:.1f} s, colour {seen['colour']}"


def run(a: argparse.Namespace, folder: Path) -> Report:
    port = free_port()
    args = {
        "front_door": {"http": {"host": "127.0.0.1", "port": port}, "webrtc": {"enabled": True}},
        "state": {"url": f"sqlite:///{folder / 'state.sqlite'}"},
        "artifacts": {"folder": str(folder / "files")},
    }
    report, url = Report(), f"http://127.0.0.1:{port}/"
    with (
        browsing(ENVIRONMENT) as browser, LocalNodes(namespaces=False) as nodes, FaultCluster(nodes, a.fps, 2, args) as faults,
        asyncio.Runner() as runner,
    ):  # fmt: skip
        cluster = Cluster(faults, url, runner)
        cluster.until_whole()
        with Steered(faults.address) as session:
            report.part("join", lambda: joins(browser, url, session.token, a.joins))
            watched(browser, url, session.token)
            report.part("switch", lambda: switches(browser, session, a.switches))
            for _ in range(a.kills):
                report.part("denoiser", lambda: killed(browser, cluster))
                cluster.until_whole()
            left(browser)
            report.part("viewers", lambda: viewers(faults, runner, url, session.token, a.viewers, a.seconds))
            report.part("push", lambda: pushed(faults, runner, url, session.token, a.seconds))
        report.part("publish", lambda: published(browser, url))
        print(f"Chromium {browser.do('version')}; complaints: {browser.do('errors') or 'none'}")
    return report


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--joins", type=int, default=5)
    parser.add_argument("--switches", type=int, default=20)
    parser.add_argument("--kills", type=int, default=2)
    parser.add_argument("--viewers", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=10.0, help="that viewers are measured for, and another process sends")
    parser.add_argument("--fps", type=int, default=_FPS)
    parser.add_argument("--json", type=Path)
    a = parser.parse_args()
    with_cluster_environment()
    with tempfile.TemporaryDirectory(prefix="headrace-webrtc-") as name:
        report = run(a, Path(name))
    if a.json:
        a.json.write_text(json.dumps(report.values, indent=1) + "\n")
    sys.exit(0 if report.passed else 1)


if __name__ == "__main__":
    main()
