"""Tests under each instruction set of this processor: of PyTorch's kernels, oneDNN's and MKL's.

    python -m tests.instruction_sets [TARGET ...]    make TARGET (test-unit) under each; opt-in, some minutes each

A set that the processor lacks is skipped with its reason: PyTorch does as it is told, and the process would die of an unknown instruction.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping
from pathlib import Path

_VARIABLE = "ATEN_CPU_CAPABILITY"
_NEEDS = {"default": (), "avx2": ("avx2", "fma"), "avx512": ("avx512f", "avx512bw", "avx512dq", "avx512vl", "fma")}
# On a processor with AMX, PyTorch's attention in bfloat16 raises where its own kernels are held below AVX-512 and oneDNN's are not.
_ALSO: Mapping[str, Mapping[str, str]] = {
    "default": {"ONEDNN_MAX_CPU_ISA": "SSE41", "MKL_CBWR": "COMPATIBLE"},
    "avx2": {"ONEDNN_MAX_CPU_ISA": "AVX2", "MKL_ENABLE_INSTRUCTIONS": "AVX2"},
    "avx512": {"ONEDNN_MAX_CPU_ISA": "AVX512_CORE", "MKL_ENABLE_INSTRUCTIONS": "AVX512"},
}


def flags() -> frozenset[str]:
    """What this processor can, as Linux lists it; empty where it does not."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return frozenset()
    return frozenset(next((line.partition(":")[2].split() for line in lines if line.startswith("flags")), ()))


def missing(capability: str | None, have: Iterable[str]) -> str | None:
    """Why nothing can run under `capability`, a value of ATEN_CPU_CAPABILITY, on a processor with these flags; None if it can."""
    lacking = sorted(set(_NEEDS.get(capability or "default", ())) - set(have))
    return f"{_VARIABLE}={capability}: this processor lacks {', '.join(lacking)}" if lacking else None


def beside(capability: str | None) -> Mapping[str, str]:
    """The variables of the other libraries that belong to `capability`, so that one process has one instruction set."""
    return _ALSO.get(capability or "", {})


def main() -> None:
    targets, have = sys.argv[1:] or ["test-unit"], flags()
    make, outcomes = shutil.which("make") or "make", dict[str, str]()
    for capability in _ALSO:
        if reason := missing(capability, have):
            outcomes[capability] = f"skipped: {reason}"
            continue
        started = time.monotonic()
        print(f"== {capability}: make {' '.join(targets)}", flush=True)  # noqa: T201  a command line prints
        done = subprocess.run([make, "-k", *targets], env={**os.environ, **beside(capability), _VARIABLE: capability}, check=False)
        outcomes[capability] = f"{'passed' if done.returncode == 0 else 'FAILED'} in {time.monotonic() - started:.0f} s"
    for capability, outcome in outcomes.items():
        print(f"{capability:8} {outcome}")  # noqa: T201
    sys.exit(any(outcome.startswith("FAILED") for outcome in outcomes.values()))


if __name__ == "__main__":
    main()
