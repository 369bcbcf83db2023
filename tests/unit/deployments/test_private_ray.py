"""What a private Ray cluster leaves behind, and whom its end must not touch."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from deployments.cluster.private_ray import users_of


@contextmanager
def running(*command: str) -> Iterator[int]:
    """The id of a process that has said that it runs, and ends with the context."""
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            assert process.stdout.readline()
            yield process.pid
        finally:
            process.kill()


def test_the_end_of_a_cluster_is_not_that_of_an_operator_who_reads_its_logs(tmp_path: Path) -> None:
    log = tmp_path / "raylet.out"
    log.write_text("a line\n")
    with_it_open = ("-c", "import sys; file = open(sys.argv[1]); print('open', flush=True); sys.stdin.read()", str(log))
    with running("tail", "-f", str(log)), running(sys.executable, *with_it_open) as worker:
        assert users_of(tmp_path) == {worker}
