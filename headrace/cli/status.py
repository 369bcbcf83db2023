"""`headrace status`: does the server serve, and does each stage behind it answer."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from headrace.cli import console, secure
from model_core.stage import Stage

SERVING = "SERVING"
IDLE = "IDLE"  # no replica is there; the next session starts one and waits for it


@secure.with_access
def status(
    address: Annotated[str, typer.Option(metavar="HOST:PORT", help="Server to ask.")] = console.DEFAULT_ADDRESS,
    access: secure.Access = secure.PLAIN,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")] = False,
) -> None:
    """Show the health of a server and its stages. Exit code 0 when all of it serves, 1 otherwise.

    It asks the stages' replicas through the server. A stage that has none is NOT_SERVING, or IDLE where the next session starts one.
    """

    async def main() -> tuple[str, dict[str, str], list[str]]:
        async with access.client(address) as client:
            server = await client.health()
            stages = {stage.value: await client.health(f"stage/{stage}") for stage in Stage}
            for stage, state in stages.items():
                if state == SERVING and await client.health(f"replica/{stage}") == "NOT_SERVING":
                    stages[stage] = IDLE
            served = [model.name for model in await client.list_models()]
        return server, stages, served

    server, stages, served = console.run(main, address)
    if as_json:
        print(json.dumps({"address": address, "server": server, "stages": stages, "models": served}))
    else:
        print(f"{'server':<14}{server}")
        for stage, state in stages.items():
            print(f"{stage:<14}{state}")
        print(f"{'models':<14}{', '.join(served)}")
    if server != SERVING:
        raise typer.Exit(console.EXIT_FAILED)
