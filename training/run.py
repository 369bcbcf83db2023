"""What both training loops share: a position that survives restarts, the learning rate, the averaged copy, the curve."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

SAVE_EVERY_S = 60.0


def checkpoint_path(out: Path, name: str) -> Path:
    return out / f"{name}_train.pt"


def load_checkpoint(out: Path, name: str, device: torch.device) -> dict[str, Any]:
    """The state that a `Run` called `name` saved in `out`.

    Raises:
        FileNotFoundError: it has not saved any.
    """
    path = checkpoint_path(out, name)
    if not path.exists():
        raise FileNotFoundError(f"{path} is missing: run `python -m training.train_{name} --out {out}` first")
    saved: dict[str, Any] = torch.load(path, map_location=device, weights_only=True)
    return saved


class Run:
    """One training run in a folder: NAME_train.pt holds its state, NAME.jsonl its curve. Made again in the same folder, it goes on.

    The schedule is measured in seconds spent training, summed over restarts. Random numbers start anew at each start, seeded by the step.
    """

    def __init__(
        self,
        out: Path,
        name: str,
        modules: Mapping[str, nn.Module],
        optimizers: Sequence[torch.optim.Optimizer],
        device: torch.device,
        minutes: float,
        last_step: int | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Load what an earlier run left. `minutes` is the whole schedule; `last_step` ends it earlier."""
        out.mkdir(parents=True, exist_ok=True)
        self.step = 0
        self._out, self._name, self._modules, self._optimizers = out, name, modules, optimizers
        self._schedule_s, self._last_step, self._clock = minutes * 60, last_step, clock
        self._spent_s = 0.0
        if checkpoint_path(out, name).exists():
            saved = load_checkpoint(out, name, device)
            for key, module in modules.items():
                module.load_state_dict(saved["modules"][key])
            for optimizer, state in zip(optimizers, saved["optimizers"], strict=True):
                optimizer.load_state_dict(state)
            self.step, self._spent_s = saved["step"], saved["seconds"]
        self.start()

    def start(self) -> None:
        """Count time from now on: what was prepared since the run was made is no part of the schedule."""
        self._began = self._saved = self._clock()

    @property
    def seconds(self) -> float:
        """Spent training, all starts together."""
        return self._spent_s + self._clock() - self._began

    @property
    def progress(self) -> float:
        """Of the schedule, 0 to 1."""
        return min(1.0, self.seconds / self._schedule_s)

    @property
    def going(self) -> bool:
        return self.seconds < self._schedule_s and (self._last_step is None or self.step < self._last_step)

    def set_rate(self, scale: float) -> None:
        """Learning rates as shares of those the optimizers were made with."""
        for optimizer in self._optimizers:
            for group in optimizer.param_groups:
                group["lr"] = group["base_lr"] * scale

    def apply(self, loss: torch.Tensor, parameters: Sequence[nn.Parameter]) -> None:
        """One optimizer step; saves now and then."""
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        for optimizer in self._optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        self.step += 1

    def save_if_due(self) -> None:
        if self._clock() - self._saved >= SAVE_EVERY_S:
            self.save()

    def save(self) -> None:
        """Write the state in one piece: a kill at any moment leaves the last one or this one."""
        state = {
            "modules": {key: module.state_dict() for key, module in self._modules.items()},
            "optimizers": [optimizer.state_dict() for optimizer in self._optimizers],
            "step": self.step,
            "seconds": self.seconds,
        }
        path = checkpoint_path(self._out, self._name)
        torch.save(state, path.with_suffix(".tmp"))
        path.with_suffix(".tmp").rename(path)
        self._saved = self._clock()

    def record(self, row: Mapping[str, object]) -> None:
        """Add a row to the curve, and print it."""
        line = json.dumps({"step": self.step, "seconds": round(self.seconds, 1), **row})
        print(line, flush=True)
        with (self._out / f"{self._name}.jsonl").open("a") as file:
            file.write(line + "\n")


@torch.no_grad()
def average(slow: nn.Module, fast: nn.Module, weight: float) -> None:
    """Move the parameters of `slow` toward those of `fast` by `weight`."""
    torch._foreach_lerp_([*slow.parameters()], [p.detach() for p in fast.parameters()], weight)
