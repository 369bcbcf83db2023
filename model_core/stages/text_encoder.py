"""The text stage in this process: prompt in, token features out.

A frozen sentence encoder whose weights come as an installed package: nothing is fetched, and the file is checked
against the pinned digest before it is read. Every prompt is cut or padded to T tokens and runs alone, so its features depend on
nothing but the prompt. Knows nothing of sessions, clusters or metrics.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
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
from model_core.errors import StageUnavailable, WeightsError
from model_core.families.interface import Embedder
from model_core.graphs import GraphSpec
from model_core.nn.graphs import text_encoder_graphs
from model_core.runtimes.interface import Program
from model_core.runtimes.program import HostProgram
from model_core.types import StageTiming, TextEmbedding

CACHE_SIZE = 1024
EMBED_BATCH = 64  # prompts that `embed` runs at once; bounds its memory
UNUSED_WEIGHTS = ("pooler.", "embeddings.position_ids")  # in the checkpoint, not in the network: only token features are wanted


@dataclass(frozen=True, slots=True)
class TextEncoderStatistics:
    """Counts since the encoder was made.

    Attributes:
        hits: prompts answered from the cache.
        joined: prompts that waited for an equal prompt already being encoded.
        misses: prompts that went through the model.
        cached: prompts in the cache now.
        in_flight: distinct prompts being encoded now.
        service_s: seconds spent in tokenizer and model.
    """

    hits: int
    joined: int
    misses: int
    cached: int
    in_flight: int
    service_s: float


@dataclass(slots=True, eq=False)
class _Flight:
    future: asyncio.Future[TextEmbedding]
    waiters: int = 0


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
            # A lone surrogate is a valid Python string but no text; it becomes a question mark.
            rows = self._tokenizer.encode_batch([p.encode("utf-8", "replace").decode("utf-8") for p in prompts[batch]])
            ids = torch.tensor([row.ids for row in rows], dtype=torch.int32)
            mask = torch.tensor([row.attention_mask for row in rows], dtype=torch.int32)
            with torch.inference_mode():
                tokens_ntd[batch] = self._program.run("features", *self._program.put((ids, mask))).result().float().numpy()
            mask_nt[batch] = mask.numpy() != 0
        return tokens_ntd, mask_nt


class LocalTextEncoder:
    """A `TextEncoder` with an LRU cache. Call `encode` from one event loop; the model runs in a thread of its own, so the loop never waits.

    Concurrent equal prompts share one run. Work nobody waits for any more is dropped, so what is queued is bounded by the callers.
    """

    def __init__(self, embedder: Embedder, cache_size: int = CACHE_SIZE, clock: Callable[[], float] = time.perf_counter) -> None:
        self._embedder = embedder
        self._cache_size = cache_size
        self._clock = clock
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="text-encoder")
        self._cache: OrderedDict[str, TextEmbedding] = OrderedDict()
        self._flights: dict[str, _Flight] = {}
        self._closed = False
        self._hits = self._joined = self._misses = 0
        self._service_s = 0.0

    async def encode(self, prompt: str) -> TextEmbedding:
        """Embed one prompt, of any length and content; what exceeds T tokens is cut. The arrays are shared and read-only.

        Raises:
            StageUnavailable: the encoder is closed.
        """
        self.check_health()
        cached = self._cache.get(prompt)
        if cached is not None:
            self._hits += 1
            self._cache.move_to_end(prompt)
            return replace(cached, timing=StageTiming("text_encoder", 0.0, 0.0, 0.0))
        flight = self._flights.get(prompt)
        if flight is None:
            self._misses += 1
            flight = _Flight(asyncio.get_running_loop().run_in_executor(self._thread, self._embed_one, prompt, self._clock()))
            self._flights[prompt] = flight
        else:
            self._joined += 1
        flight.waiters += 1
        try:
            embedding = await asyncio.shield(flight.future)  # one waiter's cancellation is not the others'
            self._remember(embedding)
            return embedding
        finally:
            flight.waiters -= 1
            if flight.waiters == 0:
                flight.future.cancel()
                if self._flights.get(prompt) is flight:
                    del self._flights[prompt]

    def statistics(self) -> TextEncoderStatistics:
        """Where prompts were answered from, and what it cost."""
        return TextEncoderStatistics(
            hits=self._hits, joined=self._joined, misses=self._misses,
            cached=len(self._cache), in_flight=len(self._flights), service_s=self._service_s,
        )  # fmt: skip

    def check_health(self) -> None:
        """Raise if this stage must be replaced.

        Raises:
            StageUnavailable: it is closed.
        """
        if self._closed:
            raise StageUnavailable("the text encoder is closed")

    async def aclose(self) -> None:
        """Refuse new prompts, finish those under way, end the thread. Safe to call twice."""
        self._closed = True
        await asyncio.to_thread(self._thread.shutdown)

    def _embed_one(self, prompt: str, asked: float) -> TextEmbedding:
        started = self._clock()
        tokens_ntd, mask_nt = self._embedder.embed([prompt])
        for shared in (tokens_ntd, mask_nt):
            shared.flags.writeable = False  # many sessions hold the same cached arrays
        seconds = self._clock() - started
        self._service_s += seconds
        return TextEmbedding(prompt, tokens_ntd[0], mask_nt[0], StageTiming("text_encoder", started - asked, seconds, seconds))

    def _remember(self, embedding: TextEmbedding) -> None:
        self._cache[embedding.prompt] = embedding
        self._cache.move_to_end(embedding.prompt)
        while len(self._cache) > self._cache_size:
            self._cache.popitem(last=False)


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
