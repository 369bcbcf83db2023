"""Cases of one vendor's client against a server, one JSON line each on standard output.

It runs in that client's environment, so it imports nothing of Headrace, and nothing but the standard library.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Target:
    """What a check is pointed at.

    Attributes:
        url: of the server, without a path.
        key: a sound one.
        wrong_key: one that the server does not know; empty where it takes any.
        spent_key: one whose quota is used up; empty where there is none.
    """

    url: str
    key: str
    wrong_key: str
    spent_key: str

    @classmethod
    def of_arguments(cls) -> Target:
        parser = argparse.ArgumentParser()
        parser.add_argument("--url", required=True, help="of the server, as http://127.0.0.1:8080")
        parser.add_argument("--key", default="none", help="a sound API key")
        parser.add_argument("--wrong-key", default="", help="a key that the server does not know")
        parser.add_argument("--spent-key", default="", help="a key whose quota is used up")
        given = parser.parse_args()
        return cls(given.url.rstrip("/"), given.key, given.wrong_key, given.spent_key)


class Skipped(Exception):
    """The case cannot be run against this target."""


@dataclass(slots=True)
class Cases:
    """Runs cases one after the other, and goes on after one that fails."""

    door: str
    failed: list[str] = field(default_factory=list)

    def run(self, name: str, case: Callable[[], object]) -> None:
        """Print how `case` went. What it returns, if that is text, goes with it."""
        began, line = time.monotonic(), {"door": self.door, "case": name}
        try:
            detail = case()
        except Skipped as reason:
            outcome, detail = "skipped", f"{reason}"
        except Exception as error:  # noqa: BLE001 - the report names it
            outcome, detail = "failed", f"{type(error).__name__}: {error}"
            self.failed.append(name)
        else:
            outcome = "passed"
        line |= {"outcome": outcome, "detail": detail if isinstance(detail, str) else ""}
        print(json.dumps({**line, "seconds": round(time.monotonic() - began, 3)}), flush=True)

    def run_all(self, cases: Iterable[tuple[str, Callable[[], object]]]) -> None:
        """Each, by its name."""
        for name, case in cases:
            self.run(name, case)

    def end(self) -> None:
        """Exit with 1 if a case has failed."""
        sys.exit(1 if self.failed else 0)


def check(holds: object, what: str) -> None:
    """Raises AssertionError, also where Python is told to leave assertions out."""
    if not holds:
        raise AssertionError(what)


def raises(kind: type[Exception], call: Callable[[], object], *told: str) -> Exception:
    """The error of `call`, whose message has all of `told`."""
    try:
        got = call()
    except kind as error:
        missing = [part for part in told if part not in f"{error}"]
        check(not missing, f"the message lacks {missing}: {error}")
        return error
    raise AssertionError(f"no {kind.__name__}; got {got!r}"[:300])
