"""Stands in for AWS's package: a device `neuron` without kernels, and a compiler that only takes notes.

Tensors on the device exist in `FakeTensorMode` alone, which checks shapes, types and devices, and computes nothing.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import torch
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

ENVIRONMENT = dict(os.environ)  # as it was when the package was imported
WAITS: list[None] = []  # for the device
COMPILED: list[tuple[int, dict[str, Any]]] = []  # for each graph, which options dictionary it came with and what was in it


def neuron(module: torch.fx.GraphModule, _: list[torch.Tensor], *, options: dict[str, Any]) -> Callable[..., Any]:
    """As the real backend does, write into the options."""
    COMPILED.append((id(options), dict(options)))
    options["written"] = True
    return module.forward


_setup_privateuseone_for_python_backend("neuron")
torch.accelerator.synchronize = lambda *_: WAITS.append(None)  # a backend in Python cannot have one
torch._dynamo.register_backend(neuron, name="neuron")  # type: ignore[arg-type]  # noqa: SLF001  its documented place
