"""Puts a small checkpoint into the other forms in which checkpoints are published and kept. Each function changes a folder in place.

They hold the same model, unless it says otherwise. `SHA256SUMS` goes, because what it lists is no longer there.
"""

from __future__ import annotations

import hashlib
import io
import json
import random
from collections.abc import Sequence
from pathlib import Path

from safetensors.torch import load_file, save_file
from sentencepiece import SentencePieceTrainer

from model_core.families.checkpoints.checkpoint import read_json, shards
from model_core.families.checkpoints.files import CHECKSUMS

_WORDS = "a large small red green blue circle square star ring moves left right up down slowly quickly over white black background"


def piece_model(seed: int = 0) -> bytes:
    """A small `spiece.model` with the normalisation and the special tokens of T5's, trained here; the same bytes each time."""
    draw, out = random.Random(seed), io.BytesIO()
    sentences = [" ".join(draw.choices(_WORDS.split(), k=9)) for _ in range(200)]
    SentencePieceTrainer.train(
        sentence_iterator=iter(sentences), model_writer=out, vocab_size=120, model_type="unigram", hard_vocab_limit=False,
        pad_id=0, eos_id=1, unk_id=2, bos_id=-1, normalization_rule_name="nmt_nfkc", num_threads=1, minloglevel=2,
    )  # fmt: skip
    return out.getvalue()


def with_pieces(folder: Path) -> None:
    """The tokenizer as CogVideoX and LTX-Video publish theirs, a `spiece.model` alone. It gives other ids than the bytes of `make_tiny`."""
    tokenizer = folder / "tokenizer"
    settings = read_json(tokenizer / "tokenizer_config.json") | {"tokenizer_class": "T5Tokenizer"}
    (tokenizer / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
    (tokenizer / "tokenizer.json").unlink()
    (tokenizer / "spiece.model").write_bytes(piece_model())
    _unlisted(folder)


def in_shards(folder: Path, component: str, number: int = 2) -> None:
    """The component's weights in so many files and an index."""
    (path,) = shards(folder / component)
    tensors, base = load_file(path), path.name.removesuffix(".safetensors")
    names = sorted(tensors)
    placed: dict[str, str] = {}
    for part in range(number):
        file = f"{base}-{part + 1:05}-of-{number:05}.safetensors"
        own = names[part::number]
        save_file({name: tensors[name] for name in own}, folder / component / file, metadata={"format": "pt"})
        placed |= dict.fromkeys(own, file)
    index = {"metadata": {"total_size": sum(tensor.nbytes for tensor in tensors.values())}, "weight_map": placed}
    (folder / component / f"{base}.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
    path.unlink()
    _unlisted(folder)


def as_variant(folder: Path, component: str, variant: str = "fp16") -> None:
    """The component's only weights, which are in one file, named as a variant."""
    (path,) = shards(folder / component)
    path.rename(path.with_name(f"{path.stem}.{variant}.safetensors"))
    _unlisted(folder)


def in_halves(folder: Path, component: str) -> None:
    """The component's weights stored in bfloat16: another model, by rounding."""
    for path in shards(folder / component):
        tensors = {name: tensor.bfloat16() if tensor.is_floating_point() else tensor for name, tensor in load_file(path).items()}
        save_file(tensors, path, metadata={"format": "pt"})
    _unlisted(folder)


def linked(folder: Path) -> None:
    """As the hub's cache keeps it: every file a link to a blob that is named by its digest."""
    blobs = folder.with_name(f"{folder.name}-blobs")
    blobs.mkdir()
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        blob = blobs / hashlib.sha256(path.read_bytes()).hexdigest()
        path.replace(blob)
        path.symlink_to(blob)


def as_published(folder: Path, components: Sequence[str] = ("text_encoder", "transformer")) -> None:
    """All at once, as most clip families are found in the hub's cache: pieces, shards and links."""
    with_pieces(folder)
    for component in components:
        in_shards(folder, component)
    linked(folder)


def _unlisted(folder: Path) -> None:
    (folder / CHECKSUMS).unlink(missing_ok=True)
