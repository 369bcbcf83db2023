"""Muon for matrices and convolutions, AdamW for the rest.

Muon: momentum, orthogonalised by Newton-Schulz iteration (Jordan et al., 2024, https://kellerjordan.github.io/posts/muon/), with the update
scaled to AdamW's usual size (Liu et al., 2025, arXiv 2502.16982).
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn


def orthogonalise(matrix: Tensor, steps: int = 5) -> Tensor:
    """Nearest semi-orthogonal matrix, roughly, of each `[..., M, N]`."""
    a, b, c = 3.4445, -4.7750, 2.0315
    x = matrix.bfloat16() if matrix.is_cuda else matrix
    tall = x.shape[-2] > x.shape[-1]
    x = x.mT if tall else x
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(steps):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    out: Tensor = (x.mT if tall else x).to(matrix.dtype)
    return out


class Muon(torch.optim.Optimizer):
    """Weights of one shape are stacked and orthogonalised together, which keeps small models from being launch-bound."""

    def __init__(self, params: Iterable[Tensor], lr: float, momentum: float = 0.95, weight_decay: float = 0.01) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            shapes: dict[torch.Size, list[Tensor]] = {}
            for parameter in group["params"]:
                if parameter.grad is not None:
                    shapes.setdefault(parameter.shape, []).append(parameter)
            for parameters in shapes.values():
                grads = [p.grad for p in parameters if p.grad is not None]
                buffers = []
                for p in parameters:
                    state = self.state[p]
                    if not state:
                        state["momentum"] = torch.zeros_like(p)
                    buffers.append(state["momentum"])
                torch._foreach_lerp_(buffers, grads, 1 - group["momentum"])
                nesterov = torch._foreach_lerp(grads, buffers, group["momentum"])  # noqa: SLF001 - how torch's own optimizers do it
                flat = torch.stack([v.flatten(1) for v in nesterov])
                scale = 0.2 * max(flat.shape[-2:]) ** 0.5
                updates = orthogonalise(flat).unbind()
                torch._foreach_mul_(parameters, 1 - group["lr"] * group["weight_decay"])
                torch._foreach_add_(
                    parameters, [u.view_as(p) for u, p in zip(updates, parameters, strict=True)], alpha=-group["lr"] * scale
                )


def make_optimizers(model: nn.Module, lr: float) -> list[torch.optim.Optimizer]:
    """Muon at `lr` for weights of two or more dimensions inside blocks, AdamW at half of it for the rest."""
    matrices = [p for n, p in model.named_parameters() if p.ndim >= 2 and min(p.shape[0], p[0].numel()) >= 16 and "position" not in n]
    chosen = {id(p) for p in matrices}
    others = [p for p in model.parameters() if id(p) not in chosen]
    optimizers: list[torch.optim.Optimizer] = [Muon(matrices, lr)]
    if others:
        optimizers.append(torch.optim.AdamW(others, lr=lr / 2, betas=(0.9, 0.98), weight_decay=0.0, fused=others[0].is_cuda))
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["base_lr"] = group["lr"]
    return optimizers
