"""Keeps what other libraries say, and nobody can act on, out of what a program prints. It imports nothing of them."""

from __future__ import annotations

import logging
import os


def quiet_libraries() -> None:
    """Keep messages of other libraries off the terminal, except errors, and gRPC out of forks. Call it before they are imported.

    `TRANSFORMERS_VERBOSITY` and `DIFFUSERS_VERBOSITY` bring their part back.
    """
    for variable in ("TRANSFORMERS_VERBOSITY", "DIFFUSERS_VERBOSITY"):
        os.environ.setdefault(variable, "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")  # of transformers, too: a bar for each checkpoint written
    # Ray starts its processes by fork and exec. gRPC's handlers of fork serve no purpose there, and may abort the child of a busy process.
    os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
    for name in ("torchao", "torch.utils._pytree", "diffusers", "transformers"):
        logging.getLogger(name).setLevel(logging.ERROR)
