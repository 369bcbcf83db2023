"""`headrace compile`: every graph of a model through the checks, and through the compiler where the hardware is."""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from headrace.cli import console
from headrace.cli.console import bad_input, note

if TYPE_CHECKING:
    from deployments.config.application import AppConfig
    from model_core.compiler.walk import GraphReport
    from model_core.config import RuntimeConfig

NOT_COMPILED = "NOT COMPILED FOR NEURON"
TINY = {"height": 32, "width": 64, "frames": 9, "steps": 5}  # of a small checkpoint's model


def compile_(
    config: Annotated[Path | None, typer.Option(help="serve.yaml. [default: the one that is shipped]", show_default=False)] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="All but the compiling; needs no hardware.")] = False,
    stage: Annotated[str, typer.Option(help="Only text_encoder, denoiser, decoder or enhancer.")] = "",
    tiny_families: Annotated[
        bool, typer.Option("--tiny-families", help="With --dry-run: also each family that comes as a checkpoint, with small weights.")
    ] = False,
    json_file: Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Write the report and its estimates here.")] = None,
) -> None:
    """Check every graph of the configured model in every bucket, then compile it for what its stage runs on. Exit code 1 if one fails."""

    def main() -> bool:
        console.writable_file("--json", json_file)
        if tiny_families and not dry_run:
            raise bad_input("--tiny-families", "needs --dry-run: random weights are not worth compiling")
        apps = {"": _settings(config)}
        with tempfile.TemporaryDirectory(prefix="headrace-compile-") as folder:
            if tiny_families:
                apps |= _tiny(config, Path(folder))
            checked = {name: _checked(app, stage, name) for name, app in apps.items()}
        if tiny_families:
            for name, reports in checked.items():
                print(f"{name or apps[''].preset().name:<16} {sum(r.passed for r in reports)} of {len(reports)} graphs passed")
        if json_file is not None:
            from model_core.compiler.walk import as_data

            data = {name or apps[""].preset().name: as_data(reports) for name, reports in checked.items()}
            json_file.write_text(json.dumps(data if tiny_families else as_data(checked[""]), indent=1) + "\n")
        if not all(report.passed for reports in checked.values() for report in reports):
            return False
        compiled = {} if dry_run else _compiled(apps[""], checked[""])
        _write_manifests(apps[""], checked[""], compiled)
        if dry_run or not any(runtime.name == "neuron" for _, runtime in _runtimes(apps[""])):
            print(NOT_COMPILED)
        return True

    if not console.guarded(main):
        raise typer.Exit(console.EXIT_FAILED)


def show(reports: Sequence[GraphReport]) -> None:
    """One line a graph, its faults below it, and the estimates of what passed."""
    from model_core.roofline import CHIPS, estimates

    for report in reports:
        print(f"{'pass' if report.passed else 'FAIL'}  {report.key}  {report.operations} operations  {report.check_s:.1f} s")
        for fault in report.faults:
            print(f"      {fault}")
        if report.work is not None:
            times = estimates(report.work)
            line = "  ".join(f"{chip} {times[chip]['typical'] * 1e3:.3g} ms" for chip in CHIPS)
            print(f"      {report.work.flops / 1e9:.3g} GFLOP  {report.work.bytes() / 1e6:.3g} MB  estimate, one chip, bfloat16: {line}")
    passed = sum(report.passed for report in reports)
    print(f"{passed} of {len(reports)} graphs passed")


def _settings(path: Path | None) -> AppConfig:
    from deployments.cluster.local import STAGED_CONFIG, Overrides, load

    return load(STAGED_CONFIG if path is None else console.existing_file("--config", path), Overrides())[1]


def _tiny(path: Path | None, folder: Path) -> dict[str, AppConfig]:
    """The application around a small checkpoint of each family."""
    from deployments.cluster.local import STAGED_CONFIG, Overrides, load
    from model_core.families.registry import families, tiny_checkpoints
    from model_core.families.tiny import make_tiny

    apps = {}
    for family in sorted(families().keys() & tiny_checkpoints().keys()):  # further checkpoints of a family have the same graphs
        make_tiny(family, folder / family)
        model = {"folder": str(folder / family)} | TINY
        apps[family] = load(path or STAGED_CONFIG, Overrides(args={"model": model, "engine": {"batch_buckets": [1, 2]}}))[1]
    return apps


def _checked(app: AppConfig, stage: str, family: str = "") -> list[GraphReport]:
    from model_core.compiler.walk import check_model

    stages = [name for name, _ in _runtimes(app)]
    if stage and stage not in stages:
        raise bad_input("--stage", f"must be one of: {', '.join(stages)}; got {stage!r}")
    note(f"checking every graph of {family or app.preset().name} in every bucket; large ones take minutes")
    reports = check_model(app.stages, app.preset(), app.engine.engine_config(), stage)
    show(reports)
    return reports


def _runtimes(app: AppConfig) -> list[tuple[str, RuntimeConfig]]:
    execution = app.execution()
    return [
        ("text_encoder", execution.text_encoder),
        ("denoiser", execution.denoiser),
        ("decoder", execution.decoder),
        ("enhancer", execution.enhancer),
    ]


def _compiled(app: AppConfig, reports: Sequence[GraphReport]) -> dict[str, float]:
    """Seconds for each graph whose stage runs compiled; the device must be here."""
    wanted = {report.key for report in reports}
    from model_core.runtimes.environment import set_environment

    set_environment((runtime for _, runtime in _runtimes(app)), os.environ)
    from importlib import import_module

    from model_core.runtimes.load import make_runtime

    graphs: list[Any] = import_module(app.stages).build_graphs(app.preset(), app.engine.engine_config())
    seconds: dict[str, float] = {}
    for name, config in _runtimes(app):
        own = [spec for spec in graphs if spec.stage == name and spec.key in wanted]
        if not config.compiled or not own:
            continue
        runtime = make_runtime(config)
        runtime.prepare()
        for spec in own:
            started = time.perf_counter()
            runtime.load([spec])
            seconds[spec.key] = time.perf_counter() - started
            note(f"compiled {spec.key} in {seconds[spec.key]:.1f} s")
    return seconds


def _write_manifests(app: AppConfig, reports: Sequence[GraphReport], seconds: dict[str, float]) -> None:
    """One for each stage that has a cache to put it beside."""
    from model_core.fingerprint import model_fingerprint
    from model_core.runtimes.manifest import CompiledGraph, Manifest, manifest_path, versions

    fingerprint, here = model_fingerprint(app.preset()), versions()
    for name, config in _runtimes(app):
        own = tuple(CompiledGraph(r.key, r.stablehlo_sha256, seconds.get(r.key)) for r in reports if r.stage == name)
        if config.cache and own:
            path = manifest_path(Path(config.cache), name, config, here)
            Manifest(fingerprint, repr(config), here, own).write(path)
            note(f"wrote {path}")
