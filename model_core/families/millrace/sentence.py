"""The text network of the embedded model: a frozen sentence encoder as an `Embedder`.

Its weights come as an installed package. Nothing is fetched, and the file is checked against the pinned digest before it is read. Every
prompt is cut or padded to T tokens, so its features depend on nothing but the prompt.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from tokenizers import Tokenizer
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel

from model_core.config import TextEncoderConfig
from model_core.errors import WeightsError
from model_core.graphs import GraphSpec
from model_core.nn.graphs import text_encoder_graphs
from model_core.runtimes.interface import Program
from model_core.runtimes.program import HostProgram

EMBED_BATCH = 64  # prompts that `embed` runs at once; bounds its memory
UNUSED_WEIGHTS = ("pooler.", "embeddings.position_ids")  # in the checkpoint, not in the network: only token features are wanted

Load = Callable[[Sequence[GraphSpec]], Program]


class TextNetwork(nn.Module):
    """The encoder's one graph."""

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder

    def features(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Token ids `[B, T]` and mask `[B, T]`, 1 where there is a token → features `[B, T, D]`, 0 where there is none."""
        hidden: Tensor = self.encoder(input_ids=ids, attention_mask=mask).last_hidden_state
        return hidden * mask[..., None]


class SentenceEmbedder:
    """The `Embedder` of the embedded model."""

    def __init__(self, config: TextEncoderConfig, load: Load = HostProgram) -> None:
        """Load and verify the weights, and `load` the graph; blocks for as long as that takes.

        Raises:
            WeightsError: the package is not installed, incomplete, or not the one pinned.
        """
        folder = weights_folder(config.package)
        self.config = config
        self._tokenizer = _load_tokenizer(folder, config.max_tokens)
        self._counter = Tokenizer.from_str(self._tokenizer.to_str())
        self._counter.no_truncation()
        self._counter.no_padding()
        self.network = TextNetwork(_load_model(folder, config))
        self._program = load(text_encoder_graphs(self.network, config))

    def embed(self, prompts: Sequence[str]) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Embed many prompts, uncached, in the calling thread: tokens `[N, T, D]`, zero where padded, and mask `[N, T]`.

        Several prompts go at once, which only an eager program takes.
        """
        count, length, width = len(prompts), self.config.max_tokens, self.config.width
        tokens_ntd = np.empty((count, length, width), np.float32)
        mask_nt = np.empty((count, length), np.bool_)
        for start in range(0, count, EMBED_BATCH):
            batch = slice(start, start + EMBED_BATCH)
            rows = self._tokenizer.encode_batch([_text(p) for p in prompts[batch]])
            ids = torch.tensor([row.ids for row in rows], dtype=torch.int32)
            mask = torch.tensor([row.attention_mask for row in rows], dtype=torch.int32)
            with torch.inference_mode():
                tokens_ntd[batch] = self._program.run("features", *self._program.put((ids, mask))).result().float().numpy()
            mask_nt[batch] = mask.numpy() != 0
        return tokens_ntd, mask_nt

    def count(self, prompt: str) -> int:
        """See `Embedder.count`."""
        return len(self._counter.encode(_text(prompt)).ids)


def _text(prompt: str) -> str:
    """A lone surrogate is a valid Python string but no text; it becomes a question mark."""
    return prompt.encode("utf-8", "replace").decode("utf-8")


def weights_folder(package: str) -> Path:
    """The `model/` folder of an installed package, found without importing the package."""
    spec = find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise WeightsError(f"the package {package!r} with the text encoder's weights is not installed; see requirements-weights.txt")
    return Path(spec.submodule_search_locations[0]) / "model"


def _existing(path: Path) -> Path:
    if not path.is_file():
        raise WeightsError(f"{path} is missing: the package with the text encoder's weights is incomplete, reinstall it")
    return path


def _load_tokenizer(folder: Path, max_tokens: int) -> Tokenizer:
    tokenizer = Tokenizer.from_file(str(_existing(folder / "tokenizer.json")))
    tokenizer.enable_truncation(max_length=max_tokens)
    tokenizer.enable_padding(length=max_tokens)
    return tokenizer


def _load_model(folder: Path, config: TextEncoderConfig) -> nn.Module:
    path = _existing(folder / "model.safetensors")
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest != config.weights_sha256:
        raise WeightsError(f"{path} has sha256 {digest}, pinned is {config.weights_sha256}")
    settings = AutoConfig.from_pretrained(_existing(folder / "config.json").parent, local_files_only=True)
    if settings.hidden_size != config.width:
        raise WeightsError(f"{path} is {settings.hidden_size} wide, configured is {config.width}")
    model: nn.Module = AutoModel.from_config(settings, dtype=torch.float32, add_pooling_layer=False)
    missing, unexpected = model.load_state_dict(load_file(path), strict=False)
    surplus = [name for name in unexpected if not name.startswith(UNUSED_WEIGHTS)]
    if missing or surplus:
        raise WeightsError(f"{path} does not fit the network: missing {missing}, unknown {surplus}")
    return model.eval().requires_grad_(requires_grad=False)
