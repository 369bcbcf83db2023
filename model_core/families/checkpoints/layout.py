"""What is there instead of a checkpoint in diffusers' layout, and what to do about it. Without torch."""

from __future__ import annotations

from pathlib import Path

from model_core.families.checkpoints.files import read_json

INDEX = "model_index.json"
DIFFUSERS = "take the checkpoint in diffusers' layout, whose repositories are mostly called NAME-Diffusers"
_GGUF, _SAFETENSORS = ".gguf", ".safetensors"
_ADAPTERS = ("adapter_config.json", "adapter_model.safetensors", "pytorch_lora_weights.safetensors")
_CACHED = "models--"  # what the hub's cache calls a model's folder: models--OWNER--NAME
_SHOWN = 3  # names in a sentence


def folder_instead(root: Path) -> str:
    """A sentence about `root`, a folder without `model_index.json`."""
    names = sorted(path.name for path in root.iterdir())
    return next(sentence for told in (_cached, _part, _adapter, _above, _weights, _other) if (sentence := told(root, names)))


def _cached(root: Path, names: list[str]) -> str:
    if (root / "snapshots").is_dir() and {"blobs", "refs"} & set(names):
        return f"{root} is a model's folder in the hub's cache: name its snapshot, {_those(_with_index(root / 'snapshots'))}"
    models = [root / name / "snapshots" for name in names if name.startswith(_CACHED) and (root / name / "snapshots").is_dir()]
    found = [path for folder in models for path in _with_index(folder)]
    return f"{root} is the hub's cache: name a snapshot in it, {_those(found)}" if models else ""


def _part(root: Path, _: list[str]) -> str:
    here = root.absolute()
    if not (here.parent / INDEX).is_file():
        return ""
    return f"{root} is only the part {here.name} of a checkpoint: name the folder of all of it, {here.parent}"


def _adapter(root: Path, names: list[str]) -> str:
    if not (found := [name for name in _ADAPTERS if name in names]):
        return ""
    return (
        f"{root} holds an adapter (a LoRA or the like: {found[0]}) and no {INDEX}. Adapters are not applied here: merge it into the model "
        "that it was made for, and name the folder with the result"
    )


def _above(root: Path, _: list[str]) -> str:
    below = _with_index(root)
    return f"{root} has no {INDEX}, a folder in it has: name {_those(below)}" if below else ""


def _weights(root: Path, names: list[str]) -> str:
    if "config.json" in names:
        named = read_json(root / "config.json").get("_class_name")
        return f"{root} has no {INDEX}, only a config.json of {named!r}: a folder as its authors lay it out; {DIFFUSERS}"
    single = [name for name in names if name.endswith((_GGUF, _SAFETENSORS))]
    return f"{root} has no {INDEX}, only {_kind(single[0])}; {DIFFUSERS}" if single else ""


def _other(root: Path, names: list[str]) -> str:
    if not names:
        return f"{root} is empty, and has no {INDEX}: download the checkpoint into it"
    return f"{root} has no {INDEX}; it holds {_few(names)}. Name the folder of a checkpoint in diffusers' layout, which has one"


def file_instead(path: Path) -> str:
    """A sentence about `path`, a file where a folder is wanted."""
    if path.name == INDEX:
        return f"{path} is a file: name its folder, {path.absolute().parent}"
    return f"{path} is {_kind(path.name)}, and no folder; {DIFFUSERS}"


def _kind(name: str) -> str:
    if name.endswith(_GGUF):
        return f"the quantised weights of another program ({name}), which are not loaded here"
    return f"a single file of weights ({name})" if name.endswith(_SAFETENSORS) else f"a file ({name})"


def _with_index(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if (path / INDEX).is_file())


def _those(folders: list[Path]) -> str:
    return _few([str(folder) for folder in folders], " or ") if folders else f"which must hold {INDEX}; none does, so download it again"


def _few(names: list[str], word: str = ", ") -> str:
    return word.join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")
