"""The committed stubs are what `make proto` makes of the contract."""

from pathlib import Path

import pytest
from grpc_tools import protoc

ROOT = Path(__file__).parents[3]


def test_regenerating_the_stubs_gives_the_same_bytes(tmp_path: Path) -> None:
    out = str(tmp_path)
    arguments = [f"--proto_path={ROOT / 'proto'}", f"--python_out={out}", f"--pyi_out={out}", f"--grpc_python_out={out}"]

    assert protoc.main(["protoc", *arguments, "headrace/v1/video.proto"]) == 0

    made = {p.name: p.read_bytes() for p in (tmp_path / "headrace" / "v1").iterdir()}
    assert set(made) == {"video_pb2.py", "video_pb2.pyi", "video_pb2_grpc.py"}
    assert made == {name: (ROOT / "headrace" / "v1" / name).read_bytes() for name in made}


@pytest.mark.parametrize("contract", ["doors/grpc/triton/kserve", "doors/grpc/oasis/a2v"])
def test_regenerating_the_messages_of_a_room_gives_the_same_bytes(contract: str, tmp_path: Path) -> None:
    arguments = [f"--proto_path={ROOT}", f"--python_out={tmp_path}", f"--pyi_out={tmp_path}"]

    assert protoc.main(["protoc", *arguments, f"{contract}.proto"]) == 0

    for suffix in ("_pb2.py", "_pb2.pyi"):
        assert (tmp_path / f"{contract}{suffix}").read_bytes() == (ROOT / f"{contract}{suffix}").read_bytes()
