"""Processes that run one stage's graphs together, a device each: the replica's own is rank 0, and starts the others.

Ray gives all their devices to the replica. Each rank is shown its own, by the variable that its kind of device has. Ranks meet at a file.
What rank 0 asks of the others goes through their standard input, so they end when it does, however it ends.
"""

from __future__ import annotations

import os
import pickle
import shutil
import subprocess
import sys
import tempfile
import weakref
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch.distributed as dist

from model_core.config import RuntimeConfig
from model_core.errors import StageUnavailable
from model_core.runtimes.environment import rank_environment

_PATIENCE_S = 30.0  # with a rank that has been told to end


def meet(rank: int, ranks: int, place: str) -> None:
    """Wait for the others at the file `place`. The backend is that of the device that torch finds, gloo on a CPU."""
    dist.init_process_group(init_method=f"file://{place}", rank=rank, world_size=ranks)


class Followers:
    """All ranks but 0, as rank 0 sees them.

    Args:
        runtime: of the stage.
        module: what each of them runs, as `python -m module RANK RANKS PLACE`; it reads pickled messages from its standard input.
    """

    def __init__(self, runtime: RuntimeConfig, module: str, environ: Mapping[str, str] = os.environ) -> None:
        folder = Path(tempfile.mkdtemp(prefix="headrace-ranks-"))
        self.place = str(folder / "meeting")
        command = (sys.executable, "-m", module)
        self._processes = [
            subprocess.Popen(
                [*command, str(rank), str(runtime.ranks), self.place],
                stdin=subprocess.PIPE,
                env={**environ, **rank_environment(runtime, rank, environ)},
            )
            for rank in range(1, runtime.ranks)
        ]
        weakref.finalize(self, _end, self._processes, folder)

    def tell(self, message: object) -> None:
        """Give all of them the same message.

        Raises:
            StageUnavailable: one has ended. What it shared is lost, and the replica with it.
        """
        data = pickle.dumps(message)
        for rank, process in enumerate(self._processes, 1):
            if process.stdin is None or process.poll() is not None:
                raise StageUnavailable(f"rank {rank} of {len(self._processes) + 1} has ended with code {process.returncode}")
            process.stdin.write(data)
            process.stdin.flush()


def _end(processes: Sequence[subprocess.Popen[bytes]], folder: Path) -> None:
    """Their input ends, and with it they; one that hangs is killed."""
    for process in processes:
        if process.stdin is not None:
            process.stdin.close()
    for process in processes:
        try:
            process.wait(timeout=_PATIENCE_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    if dist.is_initialized():
        dist.destroy_process_group()
    shutil.rmtree(folder, ignore_errors=True)
