"""Work, counted: what a test may bound where a time would depend on the machine."""

from __future__ import annotations

import sys
from collections.abc import Callable


def calls_of(what: Callable[[], object]) -> int:
    """Calls of functions, Python's and C's, that `what` makes in this thread."""
    calls = 0

    def count(_frame: object, event: str, _arg: object) -> None:
        nonlocal calls
        calls += event in {"call", "c_call"}

    before = sys.getprofile()
    sys.setprofile(count)
    try:
        what()
    finally:
        sys.setprofile(before)
    return calls
