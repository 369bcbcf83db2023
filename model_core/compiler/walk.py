"""Every graph of a model through every check: the report behind `headrace compile`."""

from __future__ import annotations

import gc
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from importlib import import_module
from multiprocessing import get_context
from typing import Any, cast

from model_core.config import EngineConfig, ModelConfig
from model_core.roofline import BANDS, CHIPS, Work, estimates, seconds

# Largest |XLA - eager| over largest |eager|, of each output. Both compute in float32 and sum in different orders.
TOLERANCE = 1e-4


@dataclass(frozen=True, slots=True)
class GraphReport:
    """What is known of one graph in one bucket without the hardware.

    Attributes:
        stage, name, rows, key: which.
        faults: sentences; empty if it passed.
        stablehlo_sha256, operations, difference: see `Lowered`.
        work: None if it could not be traced.
        check_s: seconds that the checks took.
    """

    stage: str
    name: str
    rows: int
    key: str
    faults: tuple[str, ...]
    stablehlo_sha256: str
    operations: int
    difference: float | None
    work: Work | None
    check_s: float

    @property
    def passed(self) -> bool:
        return not self.faults


def check_model(stages: str, config: ModelConfig, engine: EngineConfig, only: str = "") -> list[GraphReport]:
    """All graphs that the module `stages` builds for `config`, or those of the stage `only`.

    They are checked in a process of their own: JAX claims a device type there.
    """
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as child:
        return child.submit(_check_model, stages, config, engine, only).result()


def _check_model(stages: str, config: ModelConfig, engine: EngineConfig, only: str) -> list[GraphReport]:
    warnings.filterwarnings("ignore", category=FutureWarning)  # JAX and torch about each other
    warnings.filterwarnings("ignore", message="While compiling, we found certain side effects")
    checkpoint: Any = getattr(config, "checkpoint", None)
    if checkpoint is not None:  # the checks compare in float32, whatever is served
        config = cast("ModelConfig", replace(cast("Any", config), checkpoint=replace(checkpoint, dtype="float32")))
    build = cast("Callable[..., Sequence[Any]]", import_module(stages).build_graphs)
    return list(check_graphs([spec for spec in build(config, engine) if only in {"", spec.stage}]))


def check_graphs(graphs: Sequence[Any]) -> Iterator[GraphReport]:
    """Reports on `GraphSpec`s. Imports JAX into this process once all are exported, which can only be done once."""
    from model_core.compiler.cost import count  # noqa: PLC0415  torch and its exporter are heavy; a caller that forks needs neither
    from model_core.compiler.export import export  # noqa: PLC0415
    from model_core.compiler.stablehlo import lower  # noqa: PLC0415

    traced = []
    for spec in graphs:
        started = time.perf_counter()
        exported = export(spec)
        traced.append((spec, exported, time.perf_counter() - started))
    for spec, exported, export_s in traced:
        started = time.perf_counter()
        faults = tuple(str(fault) for fault in exported.faults)
        work, lowered = None, None
        if exported.program is not None and not faults:
            inputs = spec.inputs(_float32())
            work, expected = count(spec, exported.program)
            lowered = lower(exported.program, inputs, expected)
            faults = tuple(str(fault) for fault in lowered.faults)
            if lowered.difference is not None and not lowered.difference <= TOLERANCE:
                faults = (*faults, f"differs from eager by {lowered.difference:.1e} of the largest output; the limit is {TOLERANCE:.0e}")
        yield GraphReport(
            stage=spec.stage,
            name=spec.name,
            rows=spec.bucket.rows,
            key=spec.key,
            faults=faults,
            stablehlo_sha256=lowered.sha256 if lowered else "",
            operations=lowered.operations if lowered else 0,
            difference=lowered.difference if lowered else None,
            work=work,
            check_s=export_s + time.perf_counter() - started,
        )
        gc.collect()  # programs of large models hold their weights


def _float32() -> Any:
    import torch  # noqa: PLC0415

    return torch.float32


def as_data(reports: Sequence[GraphReport]) -> dict[str, Any]:
    """The report as plain values. `profiles` holds what a `CapacityProfile` is made of, by chip and band."""
    graphs = []
    for report in reports:
        entry: dict[str, Any] = asdict(report) | {"passed": report.passed}
        if report.work is not None:
            entry |= {"flops": report.work.flops, "bytes": report.work.bytes(), "estimated_s": estimates(report.work)}
        graphs.append(entry)
    return {
        "estimate": "data sheet times assumed efficiency, in bfloat16 on one chip, without the time to launch a graph; not measured",
        "chips": {name: asdict(chip) for name, chip in CHIPS.items()},
        "bands": {name: asdict(band) for name, band in BANDS.items()},
        "profiles": _profiles(reports),
        "graphs": graphs,
    }


def _profiles(reports: Sequence[GraphReport]) -> dict[str, dict[str, dict[str, Any]]]:
    works = {(r.name, r.rows): r.work for r in reports if r.stage == "denoiser" and r.work is not None}
    buckets = sorted({rows for name, rows in works if name == "denoise" and ("commit", rows) in works})
    if not buckets:
        return {}
    return {
        chip.name: {
            name: {
                "buckets": buckets,
                "step_s": [seconds(works["denoise", rows], chip, band) for rows in buckets],
                "commit_s": [seconds(works["commit", rows], chip, band) for rows in buckets],
            }
            for name, band in BANDS.items()
        }
        for chip in CHIPS.values()
    }
