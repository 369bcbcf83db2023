"""`headrace check`: what a configuration would serve, or what is wrong with it, without starting anything."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from headrace.cli import console

if TYPE_CHECKING:
    from deployments.config.application import AppConfig
    from deployments.config.explained import DeploymentFacts


def check(
    config: Annotated[Path | None, typer.Argument(metavar="[FILE]", help="serve.yaml. [default: the one that is shipped]")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")] = False,
) -> None:
    """Explain a configuration without starting it. Exit code 2 and a line for each fault if it cannot be served."""

    def main() -> None:
        from deployments.cluster.local import STAGED_CONFIG, Overrides, load
        from deployments.config.explained import deployments, warnings
        from model_core.errors import InvalidRequest

        try:
            document, app = load(STAGED_CONFIG if config is None else console.existing_file("FILE", config), Overrides())
        except InvalidRequest as error:
            for violation in error.violations:
                console.note(f"error: {violation.field}: {violation.description}")
            raise typer.Exit(console.EXIT_BAD_INPUT) from None
        facts = deployments(document, app)
        cautions = list(warnings(app, facts))
        if as_json:
            print(json.dumps({**_served(app), "deployments": [asdict(each) for each in facts], "warnings": cautions}))
            return
        _show(app, facts)
        for caution in cautions:
            print(f"warning: {caution}")

    console.guarded(main)


def _served(app: AppConfig) -> dict[str, Any]:
    from deployments.config.addresses import joined

    model, door, admission = app.preset(), app.front_door, app.admission
    return {
        "model": model.name,
        "size": f"{model.width}x{model.height}",
        "fps": model.fps,
        "steps": model.num_steps,
        "mode": app.mode,
        "address": joined(door.host, door.port),
        "tls": door.tls is not None,
        "callers": app.identity.asked_for or "anybody",
        "metrics": joined(door.metrics_host, door.metrics_port),
        "admission": admission.mode,
        "max_sessions": door.max_sessions,
        "max_waiting": admission.max_waiting,
        "resume": "redis" if app.session_store.url else "memory of each front door",
    }


def _show(app: AppConfig, facts: list[DeploymentFacts]) -> None:
    for name, value in _served(app).items():
        print(f"{name:<14}{value}")
    print(f"\n{'deployment':<16}{'replicas':<12}{'CPUs each':<12}{'GPUs each':<12}{'runtime':<12}resources each")
    for each in facts:
        replicas = str(each.min_replicas) if each.min_replicas == each.max_replicas else f"{each.min_replicas} to {each.max_replicas}"
        resources = ", ".join(f"{name} {amount:g}" for name, amount in each.resources.items()) or "-"
        print(f"{each.name:<16}{replicas:<12}{each.cpus:<12g}{each.gpus:<12g}{', '.join(each.runtimes) or '-':<12}{resources}")
    least, most = (sum(count * each.cpus for count, each in zip(counts, facts, strict=True)) for counts in _replicas(facts))
    print(f"\nreserves {least:g} CPUs at its smallest and {most:g} at its largest")


def _replicas(facts: list[DeploymentFacts]) -> tuple[list[int], list[int]]:
    return [each.min_replicas for each in facts], [each.max_replicas for each in facts]
