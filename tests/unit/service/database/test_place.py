"""Where a database may be, and what is said where it may not."""

from __future__ import annotations

from pathlib import Path

import pytest

from service.database.place import DatabaseUnusable, checked_url, file_system, make_file, shown

MOUNTS = r"""
22 1 254:1 / / rw,relatime shared:1 - ext4 /dev/vda1 rw
23 22 0:21 / /proc rw,nosuid - proc proc rw
40 22 0:40 / /srv/state rw,relatime shared:20 - nfs4 files.example:/export rw,vers=4.2
41 40 254:2 / /srv/state/local\040disk rw - xfs /dev/vdb rw
42 22 0:41 / /srv/twice rw - tmpfs tmpfs rw
43 22 0:42 / /srv/twice rw - cifs //files.example/share rw
"""


@pytest.mark.parametrize(
    ("folder", "kind"),
    [
        ("/var/lib/headrace", "ext4"),
        ("/", "ext4"),
        ("/srv/state", "nfs4"),
        ("/srv/state/deep/down", "nfs4"),
        ("/srv/stateless", "ext4"),
        ("/srv/state/local disk/headrace", "xfs"),
        ("/srv/twice/x", "cifs"),
    ],
)
def test_the_deepest_and_newest_mount_says_what_a_folder_is_on(folder: str, kind: str) -> None:
    assert file_system(Path(folder), MOUNTS) == kind


def test_a_machine_that_lists_no_mounts_says_nothing() -> None:
    assert file_system(Path("/srv"), "") == ""
    assert file_system(Path("/srv"), "1 2 3\n- - -\n") == ""


def test_a_file_of_sqlite_is_made_with_its_folders_for_its_owner_alone(tmp_path: Path) -> None:
    file = tmp_path / "a" / "b" / "headrace.db"
    make_file(file)
    make_file(file)
    assert file.stat().st_mode & 0o777 == 0o600
    assert file.parent.stat().st_mode & 0o777 == 0o700


def test_a_folder_that_cannot_be_made_is_named_with_the_setting(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DatabaseUnusable, match=r"state\.url: the folder .*/file/deep cannot be made: Not a directory"):
        make_file(tmp_path / "file" / "deep" / "headrace.db")


def test_a_file_that_cannot_be_written_is_named_with_the_setting(tmp_path: Path) -> None:
    (tmp_path / "headrace.db").mkdir()
    with pytest.raises(DatabaseUnusable, match=r"state\.url: .*/headrace\.db cannot be written to: Is a directory"):
        make_file(tmp_path / "headrace.db")


@pytest.mark.parametrize(
    ("url", "driver", "database"),
    [
        ("sqlite:////var/lib/headrace/headrace.db", "sqlite", "/var/lib/headrace/headrace.db"),
        ("sqlite:///headrace.db", "sqlite", "headrace.db"),
        ("postgresql://u@h/jobs", "postgresql+psycopg", "jobs"),
        ("postgresql+psycopg://u@h:5433/jobs?sslmode=require", "postgresql+psycopg", "jobs"),
    ],
)
def test_urls_of_both_kinds_are_taken(url: str, driver: str, database: str) -> None:
    parsed = checked_url(url)
    assert (parsed.drivername, parsed.database) == (driver, database)


@pytest.mark.parametrize(
    ("url", "got"),
    [
        ("", "cannot be read"),
        ("headrace.db", "cannot be read"),
        ("mysql://u:planted-secret@h/jobs", "mysql:"),
        ("postgresql+asyncpg://u:planted-secret@h/jobs", "postgresql\\+asyncpg:"),
        ("postgresql://u:planted-secret@h", "without the name of a database"),
        ("sqlite://", "without a file"),
        ("sqlite:///:memory:", "without a file"),
        ("sqlite:///file:planted-secret", "without a file"),
        ("sqlite:///jobs.db?password=planted-secret", "options"),
        ("sqlite://planted-secret/jobs.db", "a host"),
        ("postgresql://u:planted-secret@h:port/jobs", "cannot be read"),
    ],
)
def test_other_urls_are_refused_without_a_word_of_their_secrets(url: str, got: str) -> None:
    with pytest.raises(ValueError, match=f"must be sqlite:///FILE or postgresql://USER@HOST/NAME; got .*{got}") as caught:
        checked_url(url)
    assert "planted-secret" not in str(caught.value)


def test_a_url_is_shown_without_its_secrets() -> None:
    parsed = checked_url("postgresql://u:planted-secret@h:5433/jobs?password=planted-secret&sslmode=require")
    assert shown(parsed) == "postgresql://u:***@h:5433/jobs"
    assert shown(checked_url("sqlite:////srv/jobs.db")) == "sqlite:////srv/jobs.db"
