"""Checkpoints that are named by a repository of the hub: what is fetched of them, and what is said when that does not work. No network."""

from __future__ import annotations

import fnmatch
import shutil
from collections.abc import Sequence
from pathlib import Path

import huggingface_hub
import pytest
from diffusers import LTXVideoTransformer3DModel

from deployments.config.application import AppConfig
from model_core.errors import WeightsError
from model_core.families.checkpoints import checkpoint as checkpoint_module
from model_core.families.checkpoints.checkpoint import CHECKSUMS, Checkpoint
from model_core.families.checkpoints.loading import load_module
from model_core.families.described import Choice, describe
from tests import checkpoints

REPOSITORY, COMMIT = "owner/tiny-ltx", "0123456789abcdef0123456789abcdef01234567"


class Hub:
    """Stands in for `snapshot_download`: copies what the patterns allow from a repository to a snapshot, as the hub's client does."""

    def __init__(self, repository: Path, cache: Path) -> None:
        self.repository, self.cache = repository, cache
        self.error: Exception | None = None
        self.asked: list[tuple[str, str]] = []

    def __call__(self, repo_id: str, *, revision: str, allow_patterns: Sequence[str]) -> str:
        self.asked.append((repo_id, revision))
        if self.error is not None:
            raise self.error
        snapshot = self.cache / revision
        for path in self.repository.rglob("*"):
            name = path.relative_to(self.repository).as_posix()
            if path.is_file() and any(fnmatch.fnmatch(name, pattern) for pattern in allow_patterns):
                (snapshot / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(path, snapshot / name)
        return str(snapshot)

    def fetched(self) -> set[str]:
        return {path.relative_to(self.cache / COMMIT).as_posix() for path in self.cache.rglob("*") if path.is_file()}


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hub:
    repository = tmp_path / "repository"
    shutil.copytree(checkpoints.folder("ltx"), repository)
    (repository / CHECKSUMS).unlink()
    for name in ("model-for-another-program.safetensors", "transformer/old.bin", "transformer/run_me.py"):
        (repository / name).write_bytes(b"x")
    hub = Hub(repository, tmp_path / "cache")
    monkeypatch.setattr(huggingface_hub, "snapshot_download", hub)
    checkpoint_module._downloaded.cache_clear()  # noqa: SLF001 - it lasts as long as the process, which tests share
    return hub


def test_only_what_a_stage_needs_is_fetched_at_the_pinned_commit_and_asked_for_once(hub: Hub) -> None:
    where = Checkpoint(folder=REPOSITORY, revision=COMMIT)
    config = describe(Choice(checkpoint=where, height=64, width=96, frames=9))
    assert (config.name, config.family) == ("tiny-ltx", "ltx")
    described = {f"{part}/config.json" for part in ("text_encoder", "transformer", "vae")}
    described |= {"model_index.json", "scheduler/scheduler_config.json", "tokenizer/tokenizer_config.json"}
    assert hub.fetched() == described  # no weights, to know what the model is
    for _ in range(2):
        network = load_module(where, "transformer", LTXVideoTransformer3DModel)
    assert network.config.num_layers == 2
    assert hub.fetched() == described | {"transformer/diffusion_pytorch_model.safetensors"}
    assert set(hub.asked) == {(REPOSITORY, COMMIT)}
    assert len(hub.asked) == 2  # the description, one network


def test_another_commit_is_another_model(hub: Hub) -> None:
    here, there = (Checkpoint(folder=REPOSITORY, revision=commit).identity(["vae"]) for commit in (COMMIT, COMMIT[::-1]))
    assert here != there


def test_a_repository_of_pickles_is_refused(hub: Hub) -> None:
    (hub.repository / "transformer/diffusion_pytorch_model.safetensors").unlink()
    with pytest.raises(WeightsError, match="transformer holds no safetensors, and nothing else is loaded"):
        load_module(Checkpoint(folder=REPOSITORY, revision=COMMIT), "transformer", LTXVideoTransformer3DModel)
    assert not any(name.endswith(".bin") for name in hub.fetched())


def test_without_a_network_the_deployment_is_told_what_could_not_be_fetched(hub: Hub) -> None:
    hub.error = ConnectionError("no route to host")
    model = {"folder": REPOSITORY, "revision": COMMIT, "height": 64, "width": 96}
    with pytest.raises(ValueError, match=f"cannot fetch {REPOSITORY} at {COMMIT}: ConnectionError: no route to host"):
        AppConfig.model_validate({"model": model})
    hub.error = None  # and a failure is not remembered
    AppConfig.model_validate({"model": model})


def test_the_real_client_without_a_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As it is set up where there is none: nothing is tried, and the sentence says where to look."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    checkpoint_module._downloaded.cache_clear()  # noqa: SLF001 - see above
    with pytest.raises(WeightsError, match=f"cannot fetch {REPOSITORY} at {COMMIT}: LocalEntryNotFoundError"):
        Checkpoint(folder=REPOSITORY, revision=COMMIT).path()
