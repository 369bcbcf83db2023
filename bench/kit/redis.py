"""A Redis of a bench's own: the store in which front doors find each other's sessions. It keeps nothing on disk."""

from __future__ import annotations

import shutil
import subprocess


class Redis:
    """Started when it is made; `close` ends it."""

    def __init__(self, port: int) -> None:
        """Raises RuntimeError: redis-server is not installed."""
        program = shutil.which("redis-server")
        if program is None:
            raise RuntimeError("redis-server is not installed; front doors need it to take over each other's sessions")
        options = ["--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
        self.url = f"redis://127.0.0.1:{port}/0"
        self._process = subprocess.Popen([program, *options], stdout=subprocess.DEVNULL, start_new_session=True)

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
