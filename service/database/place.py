"""Where a database is: a URL checked, and the folder of a SQLite file made ready. What is wrong is said in the setting's own words."""

from __future__ import annotations

import os
import re
from pathlib import Path

from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError

from model_core.errors import HeadraceError

_FORMS = "sqlite:///FILE or postgresql://USER@HOST/NAME"
_POSTGRES = ("postgresql", "postgresql+psycopg")
# SQLite's WAL is memory that processes share, which machines do not. Of these it is known that they may span machines.
_NETWORK = frozenset({
    "afs", "beegfs", "ceph", "cifs", "fuse.ceph", "fuse.glusterfs", "fuse.juicefs", "fuse.s3fs", "fuse.sshfs", "gpfs", "lustre", "ncpfs",
    "nfs", "nfs4", "smb3", "smbfs",
})  # fmt: skip
_OCTAL = re.compile(r"\\([0-7]{3})")


class DatabaseUnusable(HeadraceError):
    """The database cannot be used as it is; the message names the setting and the remedy (start-up only)."""


def checked_url(url: str) -> URL:
    """The URL of a SQLite file or a PostgreSQL database.

    Raises:
        ValueError: it is neither. The message shows nothing of the URL but its scheme, since the rest may have a password in it.
    """
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        raise ValueError(f"must be {_FORMS}; got a URL that cannot be read") from None
    if parsed.drivername in _POSTGRES:
        if not parsed.database:
            raise ValueError(f"must be {_FORMS}; got one of PostgreSQL without the name of a database")
        return parsed.set(drivername="postgresql+psycopg")
    if parsed.drivername != "sqlite":
        raise ValueError(f"must be {_FORMS}; got {parsed.drivername}:")
    if not parsed.database or parsed.database == ":memory:" or parsed.database.startswith("file:"):
        raise ValueError(f"must be {_FORMS}; got one of SQLite without a file, which other processes cannot see")
    if parsed.query or parsed.host:
        raise ValueError(f"must be {_FORMS}; got one of SQLite with {'a host' if parsed.host else 'options'}")
    return parsed


def shown(url: URL) -> str:
    """`url` for messages and logs: without its password, and without its options, which may hold another one."""
    return url.set(drivername=url.get_backend_name(), query={}).render_as_string(hide_password=True)


def make_file(path: Path) -> None:
    """See to it that there is a file for SQLite at `path`, which only its owner can read.

    Raises:
        DatabaseUnusable: the folder cannot be made or written to, or is on a file system that machines share.
    """
    folder = path.parent
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise DatabaseUnusable(f"state.url: the folder {folder} cannot be made: {error.strerror}") from error
    kind = _kind_of(folder)
    if kind in _NETWORK:
        remedy = "choose a folder on a disk of this machine, or PostgreSQL"
        raise DatabaseUnusable(f"state.url: SQLite cannot share {folder} between machines, and it is on {kind}; {remedy}")
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
        if not os.access(folder, os.W_OK | os.X_OK):  # two more files will stand beside it
            raise PermissionError(13, "Permission denied")
    except OSError as error:
        raise DatabaseUnusable(f"state.url: {path} cannot be written to: {error.strerror}") from error


def _kind_of(folder: Path) -> str:
    """The kind of file system that `folder` is on; empty where the machine does not say."""
    try:
        return file_system(folder.resolve(), Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="surrogateescape"))
    except OSError:
        return ""


def file_system(folder: Path, mountinfo: str) -> str:
    """The kind of file system that holds `folder`, an absolute path, by Linux's list of mounts; empty where the list does not say."""
    found, deepest = "", -1
    for line in mountinfo.splitlines():
        before, dash, after = line.partition(" - ")
        fields = before.split(" ")
        if not dash or len(fields) < 5:
            continue
        point = Path(_OCTAL.sub(lambda match: chr(int(match[1], 8)), fields[4]))
        if len(point.parts) >= deepest and folder.is_relative_to(point):  # of two mounts at one place, the later one counts
            found, deepest = after.split(" ")[0], len(point.parts)
    return found
