"""`headrace trace`: where the milliseconds of a session's first frame went, from the file that traces are written to."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from headrace.cli import console


def trace(
    file: Annotated[Path, typer.Argument(help="What `tracing.file` in serve.yaml names.", show_default=False)],
    session: Annotated[str, typer.Option(metavar="ID", help="Of this session. [default: the last one]", show_default=False)] = "",
    trace_id: Annotated[str, typer.Option("--trace", metavar="ID", help="Of this trace.", show_default=False)] = "",
) -> None:
    """Show the first frame of one traced session, millisecond by millisecond."""

    def main() -> list[str]:
        from observability import waterfall

        with console.existing_file("FILE", file).open(encoding="utf-8", errors="replace") as lines:
            calls = waterfall.read(lines)
        chosen = [c for c in calls if session in ("", c.session_id) and trace_id in ("", c.root.trace_id)]
        for call in reversed(chosen):
            if (found := waterfall.first_frame(call)) is not None:
                return [f"session {call.session_id}, trace {call.root.trace_id}", *waterfall.table(found)]
        raise console.Failure(f"{file}: no finished session with a first frame among {len(chosen)} of {len(calls)} calls")

    print(*console.guarded(main), sep="\n")
