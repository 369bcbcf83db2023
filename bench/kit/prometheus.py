"""Debian's Prometheus as a child of this process: started on a free port of the loopback interface, asked, and stopped."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import yaml

from deployments.cluster.local import free_port
from observability.rules import prometheus_config, rules

_READY_WITHIN_S = 30.0
_ANSWER_WITHIN_S = 10.0


class Prometheus:
    """One that runs at `url`."""

    def __init__(self, url: str) -> None:
        self.url = url

    def query(self, expression: str) -> list[dict[str, Any]]:
        """The instant vector that `expression` is now: a list of `metric` and `value`.

        Raises:
            ValueError: Prometheus refused the expression.
        """
        return list(self._ask("query", {"query": expression})["result"])

    def exemplars(self, series: str, seconds: float) -> list[tuple[float, str]]:
        """Value and trace id of each exemplar of `series` in the last `seconds`.

        Raises:
            ValueError: Prometheus refused the expression.
        """
        now = time.time()
        found = self._ask("query_exemplars", {"query": series, "start": f"{now - seconds:.3f}", "end": f"{now:.3f}"})
        return [(float(each["value"]), each["labels"]["trace_id"]) for one in found for each in one["exemplars"]]

    def _ask(self, what: str, about: dict[str, str]) -> Any:
        address = f"{self.url}/api/v1/{what}?{urllib.parse.urlencode(about)}"
        try:
            with urllib.request.urlopen(address, timeout=_ANSWER_WITHIN_S) as answer:  # noqa: S310 - our own, over HTTP
                return json.load(answer)["data"]
        except urllib.error.HTTPError as error:
            raise ValueError(f"{about['query']}: {error.read().decode(errors='replace')[:300]}") from None

    def has_data(self, expression: str) -> bool:
        """Whether it gives any number; a division of nothing by nothing is none."""
        return any(sample["value"][1] != "NaN" for sample in self.query(expression))

    def page(self, name: str) -> str:
        """Where a person finds `graph`, `alerts` or `targets`. Debian's package has them under `/classic`, without the newer interface.

        Raises:
            OSError: it has no such page.
        """
        for path in (f"classic/{name}", name):
            with suppress(urllib.error.HTTPError), urllib.request.urlopen(f"{self.url}/{path}", timeout=_ANSWER_WITHIN_S):  # noqa: S310
                return f"{self.url}/{path}"
        raise OSError(f"{self.url} has no page {name}")

    def ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/-/ready", timeout=1.0):  # noqa: S310
                return True
        except OSError:
            return False


@contextmanager
def prometheus(door: str, folder: Path, every_s: float, scale: float = 1.0) -> Iterator[Prometheus]:
    """One that finds its targets at the front door `door` and evaluates the shipped rules, their windows `scale` times as long.

    Raises:
        RuntimeError: it is not installed, or does not come up.
    """
    program = shutil.which("prometheus")
    if program is None:
        raise RuntimeError("prometheus is not installed: apt-get install prometheus")
    (folder / "rules.yaml").write_text(yaml.safe_dump(rules(scale), sort_keys=False))
    (folder / "prometheus.yaml").write_text(yaml.safe_dump(prometheus_config([door], ["rules.yaml"], every_s)))
    address = f"127.0.0.1:{free_port()}"
    options = [
        f"--config.file={folder / 'prometheus.yaml'}", f"--storage.tsdb.path={folder / 'data'}", f"--web.listen-address={address}",
        "--enable-feature=exemplar-storage", "--log.level=warn",
    ]  # fmt: skip
    with (folder / "prometheus.log").open("wb") as log:
        process = subprocess.Popen([program, *options], stdout=log, stderr=log, start_new_session=True)
    try:
        running, deadline = Prometheus(f"http://{address}"), time.monotonic() + _READY_WITHIN_S
        while not running.ready():
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"prometheus did not start: {(folder / 'prometheus.log').read_text()[-1000:]}")
            time.sleep(0.1)
        yield running
    finally:
        process.terminate()
        process.wait()
