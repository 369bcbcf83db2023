"""Python environments of their own under `build/`, for what neither the server nor the tests should depend on."""

from __future__ import annotations

import subprocess
import sys
import venv
from pathlib import Path


def environment(requirements: Path, folder: Path) -> Path:
    """The Python of the environment in `folder`, which is made if it is not there or its requirements have changed.

    Raises:
        OSError, subprocess.CalledProcessError: it cannot be made.
    """
    wanted = requirements.read_text("utf-8")
    stamp, python = folder / ".installed", folder / "bin" / "python"
    if not stamp.exists() or stamp.read_text("utf-8") != wanted:
        print(f"installing {requirements.name} into {folder}", file=sys.stderr, flush=True)
        venv.create(folder, with_pip=True, clear=True)
        subprocess.run([str(python), "-m", "pip", "-qq", "--disable-pip-version-check", "install", "-r", str(requirements)], check=True)
        stamp.write_text(wanted, "utf-8")
    return python
