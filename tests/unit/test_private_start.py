"""What a private cluster leaves behind when it could not be started."""

from __future__ import annotations

import errno
import shutil
from typing import Any

import pytest

from deployments.private_ray import PrivateRay


def test_a_disk_that_is_too_full_for_the_logs_keeps_no_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    private = PrivateRay()
    private.logs.mkdir(parents=True)
    monkeypatch.setattr(shutil, "copytree", full)
    assert private.stop(keep_logs=True) is None
    assert not private.folder.exists()
