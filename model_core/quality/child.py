"""The process that measures one file: `python -m model_core.quality.child`, started and asked by `aside`.

It reads one JSON object from standard input, writes one to standard output, and ends. It runs at the lowest priority, on one processor,
and limits its own processor time: frames that are being made come first.
"""

from __future__ import annotations

import json
import math
import os
import resource
import sys
from pathlib import Path
from typing import Any

_NICENESS = 19


def answer(asked: dict[str, Any]) -> dict[str, Any]:
    """`quality`, or why the file cannot be measured as `refused`.

    Args:
        asked: `path`, and the fields of `Wish` as `wish`.
    """
    from model_core.errors import InvalidRequest  # noqa: PLC0415 - limits are set before anything large is loaded
    from model_core.quality.look import look  # noqa: PLC0415
    from model_core.quality.wish import Wish  # noqa: PLC0415

    wish = asked["wish"]
    content = wish["content"]
    try:
        found = look(Path(asked["path"]), "file", Wish(**{**wish, "content": None if content is None else tuple(content)}))
    except (InvalidRequest, OSError) as error:
        return {"refused": str(error)}
    return {"quality": found.as_json()}


def main() -> None:
    os.nice(_NICENESS)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    asked = json.load(sys.stdin)
    seconds = math.ceil(asked["seconds"])
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
    json.dump(answer(asked), sys.stdout)


if __name__ == "__main__":
    main()
