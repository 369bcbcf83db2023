"""The page in a real Chromium, against a real cluster: `python -m bench.operate.live_page` (`make live`).

Two front doors and two replicas of each stage. Everything is read from the pixels that the browser painted:

    first     from Enter to the first picture on the screen
    switch    from Enter on a new prompt, while it plays, to the first picture of that prompt
    denoiser  a replica of the denoiser is killed under the session: pictures painted, and the longest time for which one stood
    door      the same for the front door that the page is connected to
    margin    (`--margin`, without a cluster) how many pictures the browser has read beyond the one that it shows: see docs/page.md

Screenshots, light, dark and as on a phone, go to `out/`. The exit code is 1 if a prompt was not seen, if a kill ended the session, or if
the page complained of anything.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import json
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from bench.kit.browsing import Browsing, browsing
from bench.kit.harness import FaultCluster
from bench.kit.nodes import LocalNodes, with_cluster_environment
from bench.kit.tally import quantile
from bench.operate.switch_parts import SwitchParts, switch_parts, table
from deployments.cluster.local import ROOT, free_port
from model_core import media
from model_core.quality.words import BACKGROUNDS

ENVIRONMENT = ROOT / "build" / "page"
OUT = ROOT / "out"
# Far apart, so that pixels tell which prompt a picture is of.
PROMPTS = (
    ("a large red circle moving left on a cream background", "cream"),
    ("a large yellow star rising on a navy background", "navy"),
)
_FPS = 24
_CHUNK = 8
_TARGET = 40  # a frame that begins a chunk
_MARGINS = range(1, 13)
_APART_MS = 4500  # between two prompts: frames that are made again are an allowance, and this gives it time to grow back
_STILL_MS = 150.0  # a picture that stands for longer than so long is seen to stand


@dataclass(frozen=True, slots=True)
class Fault:
    """What a viewer saw of a kill."""

    what: str
    painted: int
    different: int
    seconds: float
    frozen_ms: float
    goes_on: bool
    mended: str

    @property
    def told(self) -> str:
        seen = f"{self.what:10} painted {self.painted} pictures in {self.seconds:.1f} s, {self.different} different"
        return f"{seen}; one stood for {self.frozen_ms:.0f} ms at most; {'goes on' if self.goes_on else 'ENDED'}{self.mended}"


@dataclass(slots=True)
class Report:
    """Everything that was measured. Times in milliseconds."""

    chromium: str = ""
    first: list[float] = field(default_factory=list)
    switches: list[float] = field(default_factory=list)
    parts: list[SwitchParts] = field(default_factory=list)
    unseen: int = 0
    faults: list[Fault] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)

    @property
    def passed(self) -> bool:
        return not self.unseen and not self.complaints and all(fault.goes_on for fault in self.faults)

    def table(self) -> str:
        lines = [f"Chromium {self.chromium}", f"{'':10}{'p50':>9}{'p99':>9}{'n':>5}"]
        for name, values in (("first", self.first), ("switch", self.switches)):
            if values:
                lines.append(f"{name:10}{quantile(values, 0.5):>6.0f} ms{quantile(values, 0.99):>6.0f} ms{len(values):>5}")
        if self.parts:
            lines += ["of a switch, since Enter:", *table(self.parts)]
        lines += [fault.told for fault in self.faults]
        lines += [f"prompts that were not seen: {self.unseen}", *(f"complaint: {text}" for text in self.complaints)]
        return "\n".join(lines)


def colour(background: str) -> list[int]:
    return list(BACKGROUNDS[background])


def fragments(value: Sequence[int], first_chunk: int, chunks: int) -> list[str]:
    """Chunks of one colour, as base64."""
    frames = np.broadcast_to(np.array(value, np.uint8), (_CHUNK, 64, 64, 3)).copy()
    numbers = range(first_chunk, first_chunk + chunks)
    return [base64.b64encode(media.fmp4_fragment(frames, number * _CHUNK, _FPS)).decode() for number in numbers]


def measure_margin(browser: Browsing, url: str, rounds: int) -> str:
    """A table: replaced so many pictures before it is due, which picture of the new chunk is seen first."""
    header = base64.b64encode(media.fmp4_init_segment(64, 64, _FPS)).decode()
    old = fragments(colour("cream"), 0, 12)
    new = fragments(colour("navy"), _TARGET // _CHUNK, 4)
    browser.do("open", url=url)
    lines = [f"{'ahead':>6}  the first picture of the new chunk that was seen, in {rounds} rounds"]
    for ahead in _MARGINS:
        given = {"header": header, "old": old, "new": new, "chunk": _CHUNK, "fps": _FPS, "target": _TARGET, "ahead": ahead}
        found = [browser.do("margin", **given) for _ in range(rounds)]
        lines.append(f"{ahead:>6}  {', '.join('none' if number is None else str(number - _TARGET) for number in found)}")
    browser.do("close")
    return "\n".join(lines)


class Viewer:
    """Plays and measures on one page."""

    def __init__(self, browser: Browsing, report: Report) -> None:
        self._browser = browser
        self._report = report
        self._turn = 0

    def ask(self) -> float | None:
        """Another prompt; milliseconds until it was on the screen, None where it was not."""
        prompt, background = PROMPTS[self._turn % len(PROMPTS)]
        self._turn += 1
        self._browser.do("ask", prompt=prompt)
        found: dict[str, Any] = self._browser.do("picture", colour=colour(background))
        if found["ms"] is None:
            self._report.unseen += 1
            print(f"  not seen: {prompt}; at {found['time']:.2f} s there is {found['colour']}", file=sys.stderr, flush=True)
        elif (parts := switch_parts(found, _FPS)) is not None:
            self._report.parts.append(parts)
            print(f"  {parts.told}", file=sys.stderr, flush=True)
        took: float | None = found["ms"]
        return took

    def begin(self) -> None:
        if (took := self.ask()) is not None:
            self._report.first.append(took)

    def switch(self) -> None:
        if (took := self.ask()) is not None:
            self._report.switches.append(took)

    def fault(self, what: str, kill: Any) -> None:
        """`kill` something, and look for a while."""
        self._browser.do("wait", milliseconds=2000)
        self._browser.do("seen")
        self._browser.do("wait", milliseconds=1000)
        kill()
        self._browser.do("wait", milliseconds=7000)
        seen = self._browser.do("seen")
        phase = self._browser.do("attribute", selector="#screen", name="data-phase")
        note = self._browser.do("text", selector="#panel-note")
        mended = next((f", {part.strip(' .')}" for part in note.split("·") if "mended" in part), "")
        self._report.faults.append(
            Fault(what, seen["painted"], seen["different"], seen["seconds"], seen["frozenMs"], phase == "playing", mended)
        )


class Cluster:
    """The application, with what a kill needs. `runner` keeps one event loop: the cluster's handles belong to theirs."""

    def __init__(self, cluster: FaultCluster, url: str, runner: asyncio.Runner) -> None:
        self._cluster = cluster
        self._run = runner.run
        self.url = url

    def kill_denoiser(self) -> None:
        """The replica that the session runs through."""
        found = [(r.process.pid, r.link.open) for r in self._run(self._cluster.stages("Denoiser")) if r.process and r.link]
        os.kill(max(found, key=lambda each: each[1])[0], 9)

    def kill_door(self) -> None:
        """The front door that has the session."""
        found = [(r.process.pid, r.open) for r in self._run(self._cluster.front_doors()) if r.process]
        os.kill(max(found, key=lambda each: each[1])[0], 9)

    def until_whole(self) -> None:
        self._run(self._cluster.until_whole())


def picture_of(folder: Path) -> Path:
    """An image to begin with."""
    path = folder / "beginning.jpg"
    rows = np.linspace(40, 220, 64, dtype=np.uint8)
    path.write_bytes(media.jpeg(np.stack(np.broadcast_arrays(rows[:, None], rows[None, :], np.uint8(120)), axis=-1)))
    return path


def screenshots(browser: Browsing, url: str, folder: Path) -> None:
    """Before anything was asked for, playing, with all settings, on a phone, and as somebody who watches sees it."""
    OUT.mkdir(exist_ok=True)
    for scheme in ("light", "dark"):
        browser.do("open", url=url, scheme=scheme)
        browser.do("wait", milliseconds=600)
        browser.do("screenshot", path=str(OUT / f"page-{scheme}-idle.png"))
        play_a_while(browser)
        browser.do("screenshot", path=str(OUT / f"page-{scheme}.png"))
        if scheme == "light":
            browser.do("attach", selector="#file", path=str(picture_of(folder)))
            browser.do("wait", milliseconds=500)
            browser.do("screenshot", path=str(OUT / "page-settings.png"))
            (OUT / "page-accessible.txt").write_text(browser.do("accessible") + "\n", "utf-8")
        browser.do("close")
    for scheme in ("light", "dark"):
        browser.do("open", url=url, scheme=scheme, width=390, height=844, phone=True)
        play_a_while(browser)
        browser.do("screenshot", path=str(OUT / f"page-phone-{scheme}.png"))
        browser.do("close")
    restyled(browser, url)


def restyled(browser: Browsing, url: str) -> None:
    """A camera that is restyled: whatever is painted, is painted of the camera's picture."""
    browser.do("open", url=url)
    browser.do("show_settings", shown=True)
    browser.do("click", selector="#camera")
    browser.do("show_settings", shown=False)
    browser.do("ask", prompt=PROMPTS[0][0])
    browser.do("wait", milliseconds=6000)
    browser.do("screenshot", path=str(OUT / "page-restyle.png"))
    browser.do("close")


def play_a_while(browser: Browsing) -> None:
    for n in range(4):
        prompt, background = PROMPTS[n % 2]
        browser.do("ask", prompt=prompt)
        browser.do("picture", colour=colour(background))
        browser.do("wait", milliseconds=_APART_MS // 2)


def measure(browser: Browsing, cluster: Cluster, report: Report, a: argparse.Namespace) -> None:
    for _ in range(a.starts):
        browser.do("open", url=cluster.url)
        Viewer(browser, report).begin()
        browser.do("click", selector="#stop")
        browser.do("close")
    browser.do("open", url=cluster.url)
    viewer = Viewer(browser, report)
    viewer.begin()
    for _ in range(a.switches):
        browser.do("wait", milliseconds=_APART_MS)
        viewer.switch()
    if not a.no_faults:
        for what, kill in (("denoiser", cluster.kill_denoiser), ("door", cluster.kill_door)):
            for _ in range(a.kills):
                cluster.until_whole()
                viewer.fault(what, kill)
                viewer.switch()
    browser.do("close")
    report.complaints += browser.do("errors")


def run(a: argparse.Namespace, folder: Path) -> Report:
    port = free_port()
    state = {"url": f"sqlite:///{folder / 'state.sqlite'}"}
    args = {
        "front_door": {"http": {"host": "127.0.0.1", "port": port}}, "state": state, "artifacts": {"folder": str(folder / "files")},
    }  # fmt: skip
    report = Report()
    with (
        browsing(ENVIRONMENT) as browser, LocalNodes(namespaces=False) as nodes, FaultCluster(nodes, a.fps, 1, args) as faults,
        asyncio.Runner() as runner,
    ):  # fmt: skip
        cluster = Cluster(faults, f"http://127.0.0.1:{port}/", runner)
        report.chromium = browser.do("version")
        cluster.until_whole()
        if not a.only_pictures:
            measure(browser, cluster, report, a)
        if not a.no_pictures:
            screenshots(browser, cluster.url, folder)
            report.complaints += browser.do("errors")
    return report


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--switches", type=int, default=30)
    parser.add_argument("--starts", type=int, default=5)
    parser.add_argument("--kills", type=int, default=2, help="of each kind")
    parser.add_argument("--fps", type=int, default=_FPS)
    parser.add_argument("--no-faults", action="store_true")
    parser.add_argument("--no-pictures", action="store_true")
    parser.add_argument("--only-pictures", action="store_true")
    parser.add_argument("--margin", metavar="URL", help="of a page, on any server: measure what the browser reads ahead, and nothing else")
    parser.add_argument("--json", type=Path)
    a = parser.parse_args()
    if a.margin:
        with browsing(ENVIRONMENT) as browser:
            print(f"Chromium {browser.do('version')}\n{measure_margin(browser, a.margin, 5)}")
        return
    with_cluster_environment()
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="headrace-page-") as name:
        report = run(a, Path(name))
    print(report.table())
    print(f"{time.monotonic() - began:.0f} s", file=sys.stderr)
    if a.json:
        rows = {"first": report.first, "switches": report.switches, "unseen": report.unseen, "complaints": report.complaints}
        faults = [{name: getattr(fault, name) for name in fault.__slots__} for fault in report.faults]
        parts = [asdict(each) for each in report.parts]
        a.json.write_text(json.dumps({"chromium": report.chromium, **rows, "parts": parts, "faults": faults}, indent=1) + "\n")
    sys.exit(0 if report.passed else 1)


if __name__ == "__main__":
    main()
