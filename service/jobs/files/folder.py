"""Files of jobs in a folder, of this node or of a file system that all nodes share, with signed links for whoever fetches one."""

from __future__ import annotations

import errno
import hashlib
import hmac
import os
import secrets
import shutil
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import quote

from model_core.errors import HeadraceError, StageUnavailable
from model_core.tasks import run_in_thread
from service.jobs.files.artifacts import ArtifactMissing, Located, Stored, checked_key, is_key
from service.jobs.job import Content

LINK_PATH = "/v1/headrace/files/"
"""Below the server's URL; where links are answered."""

_SECRET_FILE = ".link-secret"  # noqa: S105 - the name of a file
_SECRET_BYTES = 32
_UNFINISHED = "unfinished-"  # a name that a key may have, so that what a dead process left is found and removed with the rest
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_GONE = (FileNotFoundError, NotADirectoryError, IsADirectoryError)


class LinkRefused(HeadraceError):
    """A signed link is not one of ours, was changed, or has expired."""


class SignedLinks:
    """Links to files, good for whoever holds one until it expires.

    Args:
        secret: shared by all front doors.
        now: Unix time.
    """

    def __init__(self, secret: bytes, now: Callable[[], float]) -> None:
        self._secret = secret
        self._now = now

    def link(self, key: str, media_type: str, seconds: float) -> str:
        """Path and query of a link to `key`, good for so long."""
        expires = int(self._now() + seconds)
        query = f"expires={expires}&type={quote(media_type, safe='')}&signature={self._signature(key, media_type, expires)}"
        return f"{LINK_PATH}{checked_key(key)}?{query}"

    def check(self, key: str, media_type: str, expires: str, signature: str) -> None:
        """Raises LinkRefused. The sentence does not say which part is wrong, unless it is the time."""
        known = is_key(key) and expires.isascii() and expires.isdecimal() and len(expires) <= 15
        expected = self._signature(key, media_type, int(expires)) if known else ""
        if not hmac.compare_digest(expected.encode(), signature.encode(errors="replace")) or not expected:
            raise LinkRefused("the link is not one of this server's")
        if int(expires) < self._now():
            raise LinkRefused("the link has expired")

    def _signature(self, key: str, media_type: str, expires: int) -> str:
        return hmac.new(self._secret, f"{key}\n{media_type}\n{expires}".encode(), hashlib.sha256).hexdigest()


class FolderArtifacts:
    """Files in a folder.

    Args:
        folder: made if it is missing; only its owner may enter it then.
        now: Unix time, for links.

    Raises:
        OSError: the folder cannot be made or read.
    """

    def __init__(self, folder: Path, now: Callable[[], float]) -> None:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._folder = folder.resolve()
        self._links = SignedLinks(_shared_secret(self._folder), now)

    async def put(self, key: str, data: bytes | Path) -> None:
        await run_in_thread(self._put, self._path(key), data)

    async def read(self, key: str) -> bytes:
        return await run_in_thread(self._read, key)

    async def locate(self, key: str, media_type: str, seconds: float) -> Located:
        size = await run_in_thread(self._size, key)
        return Located(size, path=self._path(key), link=self._links.link(key, media_type, seconds))

    async def listed(self, prefix: str) -> list[Stored]:
        return await run_in_thread(self._listed, self._path(prefix.removesuffix("/")))

    async def delete(self, keys: Collection[str]) -> None:
        await run_in_thread(self._delete, [self._path(key) for key in keys])

    async def aclose(self) -> None:
        """Nothing is held."""

    async def linked(self, key: str, media_type: str, expires: str, signature: str) -> Content:
        """What a signed link leads to.

        Raises:
            LinkRefused: it is not one of ours, or has expired.
            ArtifactMissing: the file is gone.
        """
        self._links.check(key, media_type, expires, signature)
        size = await run_in_thread(self._size, key)
        etag = hashlib.sha256(key.encode()).hexdigest()[:32]  # a result is called by its hash
        return Content(media_type, size, etag, path=self._path(key))

    def _path(self, key: str) -> Path:
        return self._folder / checked_key(key)

    def _put(self, path: Path, data: bytes | Path) -> None:
        unfinished = path.with_name(f"{_UNFINISHED}{secrets.token_hex(8)}")
        with _answering():
            try:
                self._write(unfinished, data)
                unfinished.replace(path)
                _sync(path.parent)
            except BaseException:
                with suppress(OSError):
                    unfinished.unlink()
                raise

    @staticmethod
    def _write(unfinished: Path, data: bytes | Path) -> None:
        unfinished.parent.mkdir(parents=True, exist_ok=True)
        with unfinished.open("xb") as out:
            if isinstance(data, bytes):
                out.write(data)
            else:
                with data.open("rb") as source:
                    shutil.copyfileobj(source, out, 1024 * 1024)
            out.flush()
            os.fsync(out.fileno())

    def _read(self, key: str) -> bytes:
        with _answering():
            try:
                return self._path(key).read_bytes()
            except _GONE:
                raise ArtifactMissing(f"there is no file {key}") from None

    def _size(self, key: str) -> int:
        with _answering():
            try:
                return self._path(key).stat().st_size
            except _GONE:
                raise ArtifactMissing(f"there is no file {key}") from None

    def _listed(self, below: Path) -> list[Stored]:
        found = []
        with _answering():
            for folder, _, names in os.walk(below):
                for path in (Path(folder) / name for name in names):
                    with suppress(FileNotFoundError):  # just now
                        about = path.stat()
                        found.append(Stored(path.relative_to(self._folder).as_posix(), about.st_size, about.st_mtime))
        return sorted((file for file in found if is_key(file.key)), key=lambda file: file.key)

    def _delete(self, paths: Collection[Path]) -> None:
        with _answering():
            for path in paths:
                with suppress(*_GONE):
                    path.unlink()
            above = {parent for path in paths for parent in path.parents if parent.is_relative_to(self._folder)}
            for folder in sorted(above, key=lambda each: len(each.parts), reverse=True):
                if len(folder.relative_to(self._folder).parts) > 1:  # others are about to write below the first ones
                    with suppress(OSError):  # not empty
                        folder.rmdir()


def _sync(folder: Path) -> None:
    """A new name is on disk only once its folder is."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _shared_secret(folder: Path) -> bytes:
    """The folder's own secret, made by whoever comes first."""
    path = folder / _SECRET_FILE
    if not path.exists():
        mine = folder / f"{_UNFINISHED}{secrets.token_hex(8)}"
        with os.fdopen(os.open(mine, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as out:
            out.write(secrets.token_bytes(_SECRET_BYTES))
            out.flush()
            os.fsync(out.fileno())
        with suppress(FileExistsError):
            os.link(mine, path)
        mine.unlink()
        _sync(folder)
    return path.read_bytes()


@contextmanager
def _answering() -> Iterator[None]:
    """Turns a full disk, or one that is away, into StageUnavailable: neither is the caller's fault, and both may be over soon."""
    try:
        yield
    except OSError as error:
        what = "has no room" if error.errno in _FULL else "does not answer"
        raise StageUnavailable(f"the store of files {what}: {error.strerror}") from error
