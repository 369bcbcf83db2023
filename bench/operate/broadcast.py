"""A session on its way to real receivers, while a denoiser is killed: `python -m bench.operate.broadcast` (`make broadcast`).

`headrace broadcast` pushes one session, and the HTTP door serves it to a player:

    rtmp   Debian's nginx with libnginx-mod-rtmp, and a reader of what it plays
    srt    Debian's srt-live-transmit, and a reader of the MPEG-TS that comes out of it
    udp    a reader of MPEG-TS
    hls    hls.js of npm in Debian's Chromium, with low latency

Everything is read from pixels. A switch is the time from sending a prompt to the first picture of it at the receiver: the delay from glass
to glass, with the time to make the picture in it. A picture is missing where the stream's times leave it out. `waited` is the longest time
without a new picture, of which the kill is a part. The exit code is 1 if a picture is missing, or a prompt was not seen.
"""

from __future__ import annotations

import argparse
import asyncio
import http.server
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from bench.kit.browsing import Browsing, browsing
from bench.kit.harness import FaultCluster
from bench.kit.nodes import LocalNodes, with_cluster_environment
from bench.kit.tally import quantile
from bench.operate.live_page import ENVIRONMENT, PROMPTS, Cluster, colour
from deployments.cluster.local import ROOT, free_port

HLS_JS = "hls.js@1.7.4"
MODULES = ROOT / "build" / "broadcast"
PAGE = Path(__file__).with_name("hls.html")
_FPS = 24
_NEAR = 60.0
_SEEN_WITHIN_S = 20.0
_NGINX = """daemon off; worker_processes 1; pid {folder}/nginx.pid; error_log {folder}/error.log;
load_module {module}; events {{ }}
rtmp {{ server {{ listen 127.0.0.1:{port}; chunk_size 4096; application live {{ live on; wait_key on; sync 10ms; access_log off; }} }} }}
"""
_MODULE = Path("/usr/lib/nginx/modules/ngx_rtmp_module.so")


@dataclass(frozen=True, slots=True)
class Picture:
    """When it arrived, and its time in the stream, in seconds; and its background."""

    at: float
    time: float
    colour: tuple[float, ...]


@dataclass(slots=True)
class Receiver:
    """A process that reads, and what it has read."""

    name: str
    process: subprocess.Popen[str]
    pictures: list[Picture] = field(default_factory=list)
    switches_ms: list[float] = field(default_factory=list)
    unseen: int = 0

    def collect(self) -> None:
        """Until it ends; in a thread of its own."""
        if self.process.stdout is None:
            return
        for line in self.process.stdout:
            at, when, *colours = map(float, line.split())
            self.pictures.append(Picture(at, when, tuple(colours)))

    def saw(self, wanted: list[int], since: float) -> float | None:
        """When the first picture with this background came, after `since`."""
        near = (
            p.at for p in list(self.pictures) if p.at > since and all(abs(a - b) < _NEAR for a, b in zip(p.colour, wanted, strict=True))
        )
        return next(near, None)

    @property
    def missing(self) -> int:
        steps = [round((b.time - a.time) * _FPS) for a, b in zip(self.pictures, self.pictures[1:], strict=False)]
        return sum(step - 1 for step in steps if step > 1)

    @property
    def backwards(self) -> int:
        return sum(b.time <= a.time for a, b in zip(self.pictures, self.pictures[1:], strict=False))

    @property
    def waited_ms(self) -> float:
        return max((1000 * (b.at - a.at) for a, b in zip(self.pictures, self.pictures[1:], strict=False)), default=0.0)

    def row(self) -> str:
        pictures = f"{len(self.pictures):>6} pictures, {self.missing} missing, {self.backwards} backwards, waited {self.waited_ms:.0f} ms"
        return f"{self.name:5} {pictures}; {told(self.switches_ms, self.unseen)}"


def told(switches_ms: list[float], unseen: int) -> str:
    if not switches_ms:
        return f"no switch seen, {unseen} not"
    middle, worst = quantile(switches_ms, 0.5), max(switches_ms)
    return f"switch p50 {middle:.0f} ms, worst {worst:.0f} ms, n {len(switches_ms)}, {unseen} not seen"


@contextmanager
def running(*words: str, **given: Any) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(words, text=True, **given)
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def reading(stack: ExitStack, name: str, url: str, form: str) -> Receiver:
    words = (sys.executable, "-m", "bench.operate.receiver", url, form)
    receiver = Receiver(name, stack.enter_context(running(*words, stdout=subprocess.PIPE, cwd=ROOT)))
    threading.Thread(target=receiver.collect, daemon=True).start()
    return receiver


def receivers(stack: ExitStack, folder: Path) -> tuple[list[Receiver], list[str]]:
    """All that could be started here, and where they want to be pushed to."""
    rtmp, srt, out, udp = (free_port() for _ in range(4))
    found, urls = [], []
    if (nginx := shutil.which("nginx")) is not None and _MODULE.exists():
        config = folder / "nginx.conf"
        config.write_text(_NGINX.format(folder=folder, module=_MODULE, port=rtmp))
        stack.enter_context(running(nginx, "-c", str(config), "-e", str(folder / "error.log")))
        urls.append(f"rtmp://127.0.0.1:{rtmp}/live/session")
        found.append(reading(stack, "rtmp", urls[-1], "flv"))
    if (transmit := shutil.which("srt-live-transmit")) is not None:
        stack.enter_context(running(transmit, f"srt://127.0.0.1:{srt}?mode=listener", f"udp://127.0.0.1:{out}", "-q"))
        urls.append(f"srt://127.0.0.1:{srt}?mode=caller&latency=120000")
        found.append(reading(stack, "srt", f"udp://127.0.0.1:{out}", "mpegts"))
    urls.append(f"udp://127.0.0.1:{udp}")
    found.append(reading(stack, "udp", urls[-1], "mpegts"))
    return found, urls


@contextmanager
def page_server(port: int) -> Iterator[str]:
    """Serves the page and hls.js, which is fetched from npm once."""
    module = MODULES / "node_modules" / "hls.js" / "dist" / "hls.mjs"
    if not module.exists():
        MODULES.mkdir(parents=True, exist_ok=True)
        npm = shutil.which("npm") or "npm"
        subprocess.run([npm, "install", "--silent", "--no-audit", "--no-fund", "--prefix", str(MODULES), HLS_JS], check=True)
    served = MODULES / "page"
    served.mkdir(exist_ok=True)
    shutil.copy(PAGE, served / "index.html")
    shutil.copy(module, served / "hls.mjs")

    class Quiet(http.server.SimpleHTTPRequestHandler):
        extensions_map = {**http.server.SimpleHTTPRequestHandler.extensions_map, ".mjs": "text/javascript"}  # noqa: RUF012 - as its parent

        def log_message(self, *_: object) -> None:
            return

    server = http.server.ThreadingHTTPServer(("127.0.0.1", port), partial(Quiet, directory=str(served)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{port}/"
    finally:
        server.shutdown()
        server.server_close()


@dataclass(slots=True)
class Run:
    """One broadcast, and what was seen of it."""

    pushing: subprocess.Popen[str]
    receivers: list[Receiver]
    browser: Browsing
    hls: dict[str, Any] = field(default_factory=dict)
    hls_switches_ms: list[float] = field(default_factory=list)
    hls_unseen: int = 0
    complaints: list[str] = field(default_factory=list)

    def switch(self, number: int) -> None:
        """Another prompt; when each receiver showed it."""
        prompt, background = PROMPTS[number % len(PROMPTS)]
        wanted = colour(background)
        self.browser.do("ask", prompt="measured from here")
        since = time.monotonic()
        if self.pushing.stdin is not None:
            self.pushing.stdin.write(prompt + "\n")
            self.pushing.stdin.flush()
        found = self.browser.do("picture", colour=wanted, within_ms=int(1000 * _SEEN_WITHIN_S))
        if found["ms"] is None:
            self.hls_unseen += 1
        else:
            self.hls_switches_ms.append(found["ms"])
        for receiver in self.receivers:
            at = receiver.saw(wanted, since)
            while at is None and time.monotonic() - since < _SEEN_WITHIN_S:
                time.sleep(0.05)
                at = receiver.saw(wanted, since)
            if at is None:
                receiver.unseen += 1
            else:
                receiver.switches_ms.append(1000 * (at - since))

    def table(self) -> str:
        seen = self.hls
        painted = f"{seen['painted']:>6} painted, {seen['different']} different, {seen['backwards']} backwards"
        played = f"largest step {1000 * seen['largestStep']:.0f} ms, waited {seen['frozenMs']:.0f} ms"
        rows = [receiver.row() for receiver in self.receivers]
        return "\n".join([*rows, f"{'hls':5} {painted}, {played}; {told(self.hls_switches_ms, self.hls_unseen)}"])

    @property
    def passed(self) -> bool:
        whole = all(r.pictures and not r.missing and not r.backwards and not r.unseen for r in self.receivers)
        return whole and not self.hls_unseen and not self.complaints


def measure(run: Run, cluster: Cluster, a: argparse.Namespace) -> None:
    began, number, killed = time.monotonic(), 1, False
    run.browser.do("wait", milliseconds=3000)
    run.browser.do("seen")
    while (now := time.monotonic() - began) < a.seconds:
        if not killed and not a.no_kill and now > a.seconds / 2:
            cluster.kill_denoiser()
            killed = True
        run.switch(number)
        number += 1
        run.browser.do("wait", milliseconds=int(1000 * a.apart))
    run.hls = run.browser.do("seen")
    run.complaints += run.browser.do("errors")


def go(a: argparse.Namespace, folder: Path) -> Run:
    port, page = free_port(), free_port()
    args = {
        "front_door": {"http": {"host": "127.0.0.1", "port": port, "origins": [f"http://127.0.0.1:{page}"]}},
        "state": {"url": f"sqlite:///{folder / 'state.sqlite'}"},
        "artifacts": {"folder": str(folder / "files")},
    }
    with (
        page_server(page) as url, LocalNodes(namespaces=False) as nodes, FaultCluster(nodes, _FPS, 1, args) as faults,
        asyncio.Runner() as runner, browsing(ENVIRONMENT) as browser, ExitStack() as stack,
    ):  # fmt: skip
        cluster = Cluster(faults, f"http://127.0.0.1:{port}/", runner)
        cluster.until_whole()
        found, urls = receivers(stack, folder)
        words = [sys.executable, "-m", "headrace", "broadcast", PROMPTS[0][0], "--address", faults.address, "--hold", str(a.hold)]
        words += [word for each in urls for word in ("--to", each)]
        pushing = stack.enter_context(running(*words, "--silent-audio", stdin=subprocess.PIPE, stdout=subprocess.PIPE, env={**os.environ}))
        token = pushing.stdout.readline().strip() if pushing.stdout is not None else ""
        browser.do("open", url=f"{url}?playlist=http://127.0.0.1:{port}/v1/watch/{token}/hls/index.m3u8")
        run = Run(pushing, found, browser)
        measure(run, cluster, a)
        if pushing.stdin is not None:
            pushing.stdin.write("/stop\n")
            pushing.stdin.flush()
        pushing.wait(60)
        print(run.table())
        print("passed" if run.passed else f"failed; the page complained of {run.complaints}")
        return run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--apart", type=float, default=4.5, help="seconds between two prompts")
    parser.add_argument("--hold", type=float, default=1.0, help="of `headrace broadcast`")
    parser.add_argument("--no-kill", action="store_true")
    parser.add_argument("--json", type=Path)
    a = parser.parse_args()
    with_cluster_environment()
    with tempfile.TemporaryDirectory(prefix="headrace-broadcast-") as name:
        run = go(a, Path(name))
    if a.json:
        rows = {
            r.name: {"pictures": len(r.pictures), "missing": r.missing, "waited_ms": r.waited_ms, "switches_ms": r.switches_ms}
            for r in run.receivers
        }
        a.json.write_text(json.dumps({**rows, "hls": {**run.hls, "switches_ms": run.hls_switches_ms}}, indent=1) + "\n")


if __name__ == "__main__":
    main()
