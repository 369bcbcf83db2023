"""Prompts through a diffusers pipeline's own `encode_prompt`, which cleans, cuts and pads text as its model was trained on it."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from model_core.errors import FieldViolation
from model_core.families.checkpoints.vocabulary import check_ids
from model_core.families.common.config import CheckpointConfig
from model_core.families.common.text_ids import PromptTokenizer
from model_core.graphs import TEXT_ENCODER, Bucket, GraphSpec, Inputs
from model_core.runtimes.interface import Program
from model_core.runtimes.load import load_program
from model_core.types import SessionContext, TextEmbedding


def text_violations(context: SessionContext, shape: tuple[int, int, int]) -> tuple[FieldViolation, ...]:
    """What is wrong with the shapes of the context's embedding, which must have features of `shape` `[G, T, D]`."""
    tokens, mask = context.embedding.tokens.shape, context.embedding.mask.shape
    rules = (("tokens", tokens, shape), ("mask", mask, shape[:2]))
    return tuple(FieldViolation(f"context.embedding.{name}", f"must be {must}; got {got}") for name, got, must in rules if got != must)


def guidance_violations(context: SessionContext, shape: tuple[int, int, int], most: float) -> tuple[FieldViolation, ...]:
    """What is wrong with the context's guidance, of which the scale is at most `most`, and the text as `shape` says."""
    scale, away = context.guidance.scale, context.guidance.away
    if not 1 <= scale <= most:
        return (FieldViolation("context.guidance.scale", f"must be from 1 to {most:g}; got {scale:g}"),)
    got = None if away is None else away.tokens.shape
    if scale > 1 and got != shape:
        return (FieldViolation("context.guidance.away", f"must have features of {shape} where the scale is above 1; got {got}"),)
    return ()


def blank_text(shape: tuple[int, int, int]) -> TextEmbedding:
    """Of features of `shape` `[G, T, D]`, to warm up with."""
    return TextEmbedding("", np.zeros(shape, np.float32), np.ones(shape[:2], np.bool_))


class PromptEmbedder:
    """An `Embedder`: features `[N, 1, T, D]`.

    Each prompt runs alone, so its features depend on nothing else.

    Args:
        pipeline: a diffusers pipeline with tokenizer and text encoder, and no other part.
        config: of the model.
        width: D.

    Raises:
        WeightsError: the tokenizer has ids that the text encoder does not know.
    """

    def __init__(self, pipeline: Any, config: CheckpointConfig, width: int) -> None:
        self._pipeline, self._config = pipeline, config
        check_ids(f"{config.checkpoint.folder}/tokenizer", pipeline.tokenizer.ids.size, pipeline.text_encoder.config.vocab_size)
        pipeline.tokenizer = self._tokenizer = _Counting(pipeline.tokenizer)
        pipeline.text_encoder = _Served(load_program(config, prompt_graphs(pipeline, config)), pipeline.text_encoder.dtype)
        self._shape = (1, config.max_tokens, width)

    def embed(self, prompts: Sequence[str]) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        tokens = np.empty((len(prompts), *self._shape), np.float32)
        mask = np.empty((len(prompts), *self._shape[:2]), np.bool_)
        for row, prompt in enumerate(prompts):
            with torch.inference_mode():
                features, real = self._features(prompt)
                tokens[row], mask[row] = features.float().numpy(), real.bool().numpy()
        return tokens, mask

    def count(self, prompt: str) -> int:
        """Of the text as the pipeline cleans it."""
        _asked(self._pipeline, self._config, prompt)
        return self._tokenizer.counted

    def _features(self, prompt: str) -> tuple[Tensor, Tensor]:
        """Features `[1, T, D]` and mask `[1, T]`."""
        encoded = self._pipeline.encode_prompt(
            _text(prompt), None, do_classifier_free_guidance=False, max_sequence_length=self._config.max_tokens
        )
        # Either prompt and negative prompt, where the model attends to padding too; or each with a mask.
        return encoded[0], torch.ones(encoded[0].shape[:2]) if len(encoded) == 2 else encoded[1]


class _Counting:
    """Stands where the pipeline has its tokenizer. `counted` are the tokens of the last text, uncut."""

    def __init__(self, tokenizer: PromptTokenizer) -> None:
        self._tokenizer = tokenizer
        self.counted = 0

    def __call__(self, texts: str | Sequence[str], **settings: Any) -> Any:
        self.counted = self._tokenizer.count(texts if isinstance(texts, str) else texts[0])
        return self._tokenizer(texts, **settings)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._tokenizer, name)


def _text(prompt: str) -> str:
    """A lone surrogate is a valid Python string but no text; it becomes a question mark."""
    return prompt.encode("utf-8", "replace").decode("utf-8")


class _Tower(nn.Module):
    """A text encoder's one graph."""

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder

    def features(self, *inputs: Tensor) -> Tensor:
        """Token ids `[1, T]`, for some models with a mask `[1, T]` → features `[1, T, D]`."""
        return cast("Tensor", self.encoder(*inputs)[0])


class _Served(nn.Module):
    """Stands where the pipeline has its text encoder, and asks the program."""

    device = torch.device("cpu")

    def __init__(self, program: Program, dtype: torch.dtype) -> None:
        super().__init__()
        self._program, self.dtype = program, dtype

    def forward(self, *inputs: Tensor) -> Any:
        """As models of transformers answer."""
        features = self._program.run("features", *self._program.put(_narrow(inputs))).result()
        return _Answer(last_hidden_state=features)


class _Answer(SimpleNamespace):
    def __getitem__(self, _: int) -> Tensor:
        return cast("Tensor", self.last_hidden_state)


class _AskedError(Exception):
    """Carries out of a pipeline what it would give its text encoder."""

    def __init__(self, inputs: tuple[Tensor, ...]) -> None:
        super().__init__()
        self.inputs = inputs


class _Asked(nn.Module):
    device, dtype = torch.device("cpu"), torch.float32

    def forward(self, *inputs: Tensor) -> Any:
        raise _AskedError(inputs)


def prompt_graphs(pipeline: Any, config: CheckpointConfig) -> list[GraphSpec]:
    """One prompt through the pipeline's text encoder. Pipelines differ in what they give it, so this one is asked."""
    inputs = _asked(pipeline, config, "a red circle")
    bucket = Bucket(1, tokens=config.max_tokens)
    return [GraphSpec(TEXT_ENCODER, "features", bucket, _Tower(pipeline.text_encoder), "features", partial(_given, inputs))]


def _asked(pipeline: Any, config: CheckpointConfig, prompt: str) -> Inputs:
    """What the pipeline would give its text encoder."""
    encoder = pipeline.text_encoder
    pipeline.text_encoder = _Asked()
    try:
        pipeline.encode_prompt(_text(prompt), None, do_classifier_free_guidance=False, max_sequence_length=config.max_tokens)
    except _AskedError as asked:
        return _narrow(asked.inputs)
    finally:
        pipeline.text_encoder = encoder
    raise RuntimeError(f"{type(pipeline).__name__} does not ask its text encoder")


def _given(inputs: Inputs, _: torch.dtype) -> Inputs:
    return inputs


def _narrow(inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Accelerators have no integers of 64 bits."""
    return tuple(tensor.int() for tensor in inputs)
