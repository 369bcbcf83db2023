"""`headrace tenants`: what each tenant may use, in the server's database. A change is in force within `identity.cache_seconds`."""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from headrace.cli import console, state

if TYPE_CHECKING:
    from service.identity.limits import TenantLimits

_MOST = 1_000_000_000


def set_limits(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The tenant.", show_default=False)],
    requests_per_minute: Annotated[str, typer.Option(metavar="N|none", help="Sessions and jobs begun in any 60 s.")] = "",
    parallel_sessions: Annotated[str, typer.Option(metavar="N|none", help="At all front doors together.")] = "",
    queued_jobs: Annotated[str, typer.Option(metavar="N|none", help="Jobs that have not begun.")] = "",
    budget_seconds: Annotated[str, typer.Option(metavar="N|none", help="Seconds of video, until --reset-spent.")] = "",
    reset_spent: Annotated[bool, typer.Option("--reset-spent", help="Begin to count against the budget anew.")] = False,
    folder: state.State = state.DEFAULT_STATE,
    url: state.DatabaseUrl = "",
) -> None:
    """Set limits of a tenant. What is not given stays as it is; `none` takes a limit away."""

    async def main() -> TenantLimits:
        from service.identity import limits
        from service.identity.peers import is_tenant

        if not is_tenant(name):
            raise console.bad_input("NAME", f"must be 1 to 64 letters, digits, dots, underscores and hyphens; got {name[:64]!r}")
        told = {
            "requests_per_minute": requests_per_minute, "parallel_sessions": parallel_sessions, "queued_jobs": queued_jobs,
            "budget_seconds": budget_seconds,
        }  # fmt: skip
        changes: dict[str, float | None] = {field: _limit(field, text) for field, text in told.items() if text}
        if reset_spent:
            changes["spent_seconds"] = 0.0
        async with state.database(folder, url, make=True) as database:
            return await database.run(lambda connection: limits.set_limits(connection, name, changes))

    print(_line(name, console.run(main)))


def listing(
    folder: state.State = state.DEFAULT_STATE,
    url: state.DatabaseUrl = "",
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object a line on stdout.")] = False,
) -> None:
    """List the tenants that have limits, or have had any, with what they have used."""

    async def main() -> dict[str, TenantLimits]:
        from service.identity.limits import all_limits

        async with state.database(folder, url) as database:
            return await database.run(all_limits, write=False)

    for name, limits in console.run(main).items():
        print(json.dumps({"tenant": name, **asdict(limits)}) if as_json else _line(name, limits))


def _limit(field: str, text: str) -> float | None:
    """Raises Failure: it is no limit."""
    if text == "none":
        return None
    option = f"--{field.replace('_', '-')}"
    whole = field != "budget_seconds"
    try:
        value: float = int(text) if whole else float(text)
    except ValueError:
        value = math.nan
    if not (1 if whole else 0) <= value <= _MOST:
        kind = "a whole number from 1" if whole else "a number from 0"
        raise console.bad_input(option, f"must be {kind} to {_MOST}, or none; got {text[:32]!r}")
    return value


def _line(name: str, limits: TenantLimits) -> str:
    facts: dict[str, Any] = asdict(limits)
    spent = facts.pop("spent_seconds")
    told = [f"{field.replace('_', ' ')} {value:.10g}" for field, value in facts.items() if value is not None]
    return f"{name}  {', '.join(told) or 'no limits'}, {spent:.10g} s spent"
