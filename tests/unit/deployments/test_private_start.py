"""What a private cluster leaves behind when it could not be started."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import ray

from deployments.cluster.private_ray import PrivateRay


def test_a_disk_that_is_too_full_for_the_logs_keeps_no_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    private = PrivateRay()
    private.logs.mkdir(parents=True)
    monkeypatch.setattr(shutil, "copytree", full)
    assert private.stop(keep_logs=True) is None
    assert not private.folder.exists()


@pytest.mark.parametrize(("home", "own"), [("writable", False), ("/proc", True)])
def test_a_service_without_a_home_has_a_token_of_its_own(home: str, *, own: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[str] = []
    monkeypatch.setattr(ray, "init", lambda **_: started.append(os.environ.get("RAY_AUTH_TOKEN", "")))
    monkeypatch.setattr(ray, "shutdown", lambda: None)
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "RAY_ADDRESS"):
        monkeypatch.setenv(name, "")  # to be put back as it was
        monkeypatch.delenv(name)
    for name in ("RAY_DISABLE_FAILURE_SIGNAL_HANDLER", "grpc_proxy", "RAY_USAGE_STATS_ENABLED"):
        monkeypatch.setenv(name, os.environ.get(name, ""))
    monkeypatch.setenv("HOME", str(tmp_path / home))  # /proc stays what it is
    private = PrivateRay()
    private.start(dashboard=False)
    private.stop()
    assert [bool(token) for token in started] == [own]
