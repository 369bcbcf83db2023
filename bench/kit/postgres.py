"""A PostgreSQL server of one's own, in a temporary folder, where Debian's package is installed; on a socket, not on the network.

It keeps what it is asked to keep while it runs, and is as fast as it can be: nothing waits for the disk.
"""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from urllib.parse import quote

import psycopg

WITHOUT_POSTGRES = "PostgreSQL is not installed (Debian: apt-get install postgresql)"
_ACCOUNT = "postgres"  # which Debian's package makes; the server refuses to run as the superuser
_ROLE = "headrace"
_WITHIN_S = 200.0


def server_programs() -> Path | None:
    """The folder with `initdb` and `postgres`, of the newest version; None where there are none."""
    installed = [path.parent for path in Path("/usr/lib/postgresql").glob("*/bin/postgres") if path.parent.parent.name.isdecimal()]
    if installed:
        return max(installed, key=lambda folder: int(folder.parent.name))
    found = shutil.which("postgres")
    return None if found is None else Path(found).resolve().parent


class Postgres:
    """A running server; `close` ends it and removes what it wrote. Give it what `server_programs` found."""

    def __init__(self, programs: Path) -> None:
        self._programs = programs
        self._account = _ACCOUNT if os.geteuid() == 0 else None
        self._folder = Path(tempfile.mkdtemp(prefix="headrace-postgres-"))
        self._process: subprocess.Popen[bytes] | None = None
        self._numbers = itertools.count(1)
        try:
            if self._account is not None:
                shutil.chown(self._folder, self._account, self._account)
            made = subprocess.run(
                [programs / "initdb", "-D", self._data, "-U", _ROLE, "--auth=trust", "--no-sync", "--locale=C", "--encoding=UTF8"],
                cwd=self._folder, user=self._account, group=self._account, capture_output=True, text=True, check=False,
            )  # fmt: skip
            if made.returncode != 0:
                raise RuntimeError(f"initdb: {made.stderr.strip()[-500:]}")
            self.start()
        except BaseException:
            self.close()
            raise

    @property
    def _data(self) -> Path:
        return self._folder / "data"

    def start(self) -> None:
        """Start, and wait until it answers. Raises RuntimeError: it does not."""
        settings = {
            "listen_addresses": "", "fsync": "off", "full_page_writes": "off", "shared_buffers": "32MB", "log_min_messages": "warning",
        }  # fmt: skip
        options = [option for name, value in settings.items() for option in ("-c", f"{name}={value}")]
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [self._programs / "postgres", "-D", self._data, "-k", self._folder, *options],
                cwd=self._folder, user=self._account, group=self._account, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )  # fmt: skip
        until = time.monotonic() + _WITHIN_S
        while True:
            try:
                self._execute("SELECT 1")
                return
            except psycopg.OperationalError as error:
                if self._process.poll() is not None or time.monotonic() > until:
                    raise RuntimeError(f"PostgreSQL does not start: {error}; its log ends: {self._log()}") from error
            time.sleep(0.05)

    def stop(self, *, crash: bool = False) -> None:
        """End all sessions and stop; as after a power cut where `crash` is set."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGQUIT if crash else signal.SIGINT)
            self._process.wait(_WITHIN_S)

    def fresh(self) -> str:
        """The URL of an empty database. It is a schema of its own in one database, which is made in no time."""
        name = f"t{next(self._numbers)}"
        self._execute(f"CREATE SCHEMA {name}")
        return f"postgresql://{_ROLE}@/postgres?host={quote(str(self._folder), safe='')}&options={quote(f'-csearch_path={name}', safe='')}"

    def break_connections(self) -> None:
        """End all sessions of clients, as an administrator can."""
        self._execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = current_user AND pid <> pg_backend_pid()")

    def close(self) -> None:
        try:
            self.stop(crash=True)  # killed, it would leave shared memory behind
        finally:
            if self._process is not None and self._process.poll() is None:
                self._process.kill()
                self._process.wait()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _execute(self, statement: str) -> None:
        with psycopg.connect(host=str(self._folder), user=_ROLE, dbname="postgres", connect_timeout=60, autocommit=True) as connection:
            connection.execute(statement.encode())

    def _log(self) -> str:
        return (self._folder / "log").read_text(errors="replace")[-500:]
