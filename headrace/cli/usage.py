"""`headrace usage`: what tenants used."""

from __future__ import annotations

import json
import time
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from headrace.cli import console, state

if TYPE_CHECKING:
    from service.ledger.table import Total

_UNITS = (
    ("frames", "frames", 1.0), ("video_seconds", "video s", 1.0), ("pixels", "megapixels", 1e6), ("steps", "steps", 1.0),
    ("text_seconds", "text s", 1.0), ("denoise_seconds", "denoise s", 1.0), ("decode_seconds", "decode s", 1.0),
)  # fmt: skip


def usage(
    by: Annotated[str, typer.Option("--by", metavar="tenant|model|door|day", help="What to add up by.")] = "tenant",
    since: Annotated[str, typer.Option("--since", metavar="WHEN", help="Only from then on: 2026-11-01, 24h, 7d.")] = "",
    until: Annotated[str, typer.Option("--until", metavar="WHEN", help="Only up to then.")] = "",
    tenant: Annotated[str, typer.Option("--tenant", metavar="NAME", help="Only this tenant's.")] = "",
    folder: state.State = state.DEFAULT_STATE,
    url: state.DatabaseUrl = "",
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")] = False,
) -> None:
    """Add up what was generated, and the device time that it took."""

    async def main() -> list[Total]:
        from service.ledger.table import GROUPS, totals

        if by not in GROUPS:
            raise console.bad_input("--by", f"must be one of {', '.join(GROUPS)}; got {by[:32]!r}")
        now = time.time()
        begin, end = state.moment("--since", since, now), state.moment("--until", until, now)
        async with state.database(folder, url) as database:
            return await database.run(partial(totals, by=by, since=begin, until=end, tenant=tenant), write=False)

    found = console.run(main)
    if as_json:
        print(json.dumps({"by": by, "usage": [{by: total.key, **total.sums} for total in found]}))
        return
    for line in table(by, found):
        print(line)


def table(by: str, found: list[Total]) -> list[str]:
    """Lines for a person: a head, a line for each total, and their sum."""
    rows = [(total.key or "-", [total.sums[name] / unit for name, _, unit in _UNITS]) for total in found]
    rows.append(("total", [sum(numbers) for numbers in zip(*(row for _, row in rows), strict=True)] or [0.0] * len(_UNITS)))
    width = max(len(by), *(len(key) for key, _ in rows))
    head = f"{by:<{width}}" + "".join(f"{title:>13}" for _, title, _ in _UNITS)
    return [head, *(f"{key:<{width}}" + "".join(map(_cell, _UNITS, numbers)) for key, numbers in rows)]


def _cell(unit: tuple[str, str, float], number: float) -> str:
    return f"{number:>13,.0f}" if unit[0] in {"frames", "steps"} else f"{number:>13,.1f}"
