"""`make wire` refuses what would break clients of the last release, and nothing else."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorSet

ROOT = Path(__file__).parents[3]
BUF = Path(sys.executable).parent / "buf"


def breaking(folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(BUF), "breaking", str(folder), "--against", str(ROOT / "proto" / "released.binpb")],
        capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip


def changed(folder: Path, old: str, new: str) -> Path:
    """A copy of proto/ with one change."""
    copy = folder / "proto"
    shutil.copytree(ROOT / "proto", copy)
    contract = copy / "headrace" / "v1" / "video.proto"
    text = contract.read_text()
    assert text.count(old) >= 1
    contract.write_text(text.replace(old, new, 1))
    return copy


def test_the_released_contract_is_the_whole_of_it() -> None:
    released = FileDescriptorSet.FromString((ROOT / "proto" / "released.binpb").read_bytes())
    assert [file.name for file in released.file] == ["headrace/v1/video.proto"]
    assert [method.name for method in released.file[0].service[0].method] == ["Generate", "Stream", "Live", "ListModels"]


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("string prompt = 2;", "string prompt = 200;", 'field "2" with name "prompt"'),
        ("uint32 steps = 7;", "uint64 steps = 7;", 'Field "7" with name "steps" on message "VideoSpec" changed'),
        ("uint32 width = 5;", "uint32 columns = 5;", 'Field "5" on message "VideoSpec" changed name'),
        ("CODEC_JPEG = 2;", "CODEC_JPG = 2;", 'Enum value "2" on enum "Codec" changed name'),
        ("rpc ListModels(", "rpc Models(", 'RPC "ListModels" on service "VideoService" was deleted'),
        ("returns (stream StreamResponse)", "returns (StreamResponse)", 'RPC "Stream" on service "VideoService" changed'),
    ],
)
def test_a_change_that_breaks_clients_is_refused(tmp_path: Path, old: str, new: str, said: str) -> None:
    done = breaking(changed(tmp_path, old, new))
    assert done.returncode != 0
    assert said in done.stdout


def test_a_new_field_is_let_through(tmp_path: Path) -> None:
    done = breaking(changed(tmp_path, "string prompt = 2;", "string prompt = 2;\n  string mood = 200;"))
    assert (done.returncode, done.stdout) == (0, "")
