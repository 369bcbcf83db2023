"""Requests made of the OpenAPI document, thousands of them, sound and unsound: `python -m bench.doors.schema --url http://127.0.0.1:8080`.

No answer may be a defect, none may take long, and the server's memory may not grow. A server that is full says so with 503 and Retry-After,
and one without a database with 501; neither is a defect.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import GenerationMode

EXAMPLES = 5000
LONGEST_S = 20.0
_MOST_SECONDS = 0.25  # of video: a sound request may ask for an hour
_SHOWN = 400


@schemathesis.serializer("application/jsonl")
def _lines_of(_: Any, value: Any) -> bytes:
    return value if isinstance(value, bytes) else str(value).encode(errors="replace")


@dataclass(slots=True)
class Found:
    """What the answers were: how many by operation and status, the slowest, and the defects."""

    answers: Counter[tuple[str, int]] = field(default_factory=Counter)
    slowest_s: float = 0.0
    defects: list[str] = field(default_factory=list)

    @property
    def total(self) -> int:
        return sum(self.answers.values())


def ask(url: str, document: Mapping[str, Any], examples: int, headers: Mapping[str, str] | None = None, *, seeded: bool = False) -> Found:
    """Send `examples` requests, spread over the operations of `document`, half of them unsound.

    Args:
        seeded: the same requests each time.
    """
    found, session = Found(), requests.Session()
    session.trust_env = False
    schema = schemathesis.openapi.from_dict(dict(document))
    results: Any = schema.get_all_operations()
    operations = [result.ok() for result in results]
    each = max(1, round(examples / (2 * len(operations))))
    for operation in operations:
        for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE):
            _play(operation.as_strategy(generation_mode=mode), each, lambda case: _look(case, url, session, headers or {}, found), seeded)
    return found


def _play(cases: Any, count: int, look: Callable[[Any], None], seeded: bool) -> None:
    @settings(
        max_examples=count, deadline=None, database=None, phases=[Phase.generate], derandomize=seeded,
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(case=cases)
    def play(case: Any) -> None:
        look(case)

    try:
        play()
    except Exception as error:
        if type(error).__name__ not in {"Unsatisfiable", "SkipTest", "Skipped"}:
            raise


def _look(case: Any, url: str, session: requests.Session, headers: Mapping[str, str], found: Found) -> None:
    if isinstance(case.body, dict) and isinstance(case.body.get("seconds"), int | float) and case.body["seconds"] > _MOST_SECONDS:
        case.body["seconds"] = _MOST_SECONDS
    began = time.monotonic()
    name = f"{case.operation.method.upper()} {case.operation.path}"
    try:
        answer = case.call(base_url=url, session=session, headers=dict(headers), timeout=LONGEST_S)
    except (requests.RequestException, ValueError) as error:
        found.answers[name, 0] += 1
        if not isinstance(error, ValueError):  # what no client can send
            found.defects.append(f"{name}: {type(error).__name__}: {error}"[:_SHOWN])
        return
    status = answer.status_code
    found.answers[name, status] += 1
    found.slowest_s = max(found.slowest_s, time.monotonic() - began)
    full = status == 503 and "retry-after" in {key.lower() for key in answer.headers}
    if status >= 500 and not full and status != 501:
        found.defects.append(f"{name}: {status} {answer.text}: {case.as_curl_command()}"[:_SHOWN])


def lines(found: Found) -> Iterator[str]:
    """The report."""
    for (name, status), count in sorted(found.answers.items()):
        yield f"{count:6}  {status or '---'}  {name}"
    yield f"{found.total:6}  requests, the slowest answered after {found.slowest_s:.2f} s"
    yield from found.defects


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url", required=True)
    parser.add_argument("--key", default="", help="an API key")
    parser.add_argument("--examples", type=int, default=EXAMPLES)
    parser.add_argument("--pid", type=int, default=0, help="of the front door, whose memory is to stay as it is")
    a = parser.parse_args()
    headers = {"authorization": f"Bearer {a.key}"} if a.key else {}
    document = requests.get(f"{a.url}/openapi.json", timeout=LONGEST_S).json()
    ask(a.url, document, min(500, a.examples), headers)  # after which what is loaded late is loaded
    before = _resident_kib(a.pid)
    found = ask(a.url, document, a.examples, headers)
    print("\n".join(lines(found)))
    grown = _resident_kib(a.pid) - before
    if a.pid:
        print(f"the front door has grown by {grown} KiB")
    sys.exit(1 if found.defects or found.slowest_s > LONGEST_S or grown > 64 * 1024 else 0)


def _resident_kib(pid: int) -> int:
    if not pid:
        return 0
    status = Path(f"/proc/{pid}/status").read_text("utf-8")
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS:"))


if __name__ == "__main__":
    main()
