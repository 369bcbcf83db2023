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

from model_core.errors import FieldViolation, WeightsError
from model_core.families.described import CheckpointConfig
from model_core.graphs import TEXT_ENCODER, Bucket, GraphSpec, Inputs
from model_core.runtimes.interface import Program
from model_core.runtimes.load import load_program
from model_core.types import SessionContext, TextEmbedding


def text_violations(context: SessionContext, shape: tuple[int, int, int]) -> tuple[FieldViolation, ...]:
    """What is wrong with the shapes of the context's embedding, which must have features of `shape` `[G, T, D]`."""
    tokens, mask = context.embedding.tokens.shape, context.embedding.mask.shape
    rules = (("tokens", tokens, shape), ("mask", mask, shape[:2]))
    return tuple(FieldViolation(f"context.embedding.{name}", f"must be {must}; got {got}") for name, got, must in rules if got != must)


def blank_text(shape: tuple[int, int, int]) -> TextEmbedding:
    """Of features of `shape` `[G, T, D]`, to warm up with."""
    return TextEmbedding("", np.zeros(shape, np.float32), np.ones(shape[:2], np.bool_))


class PromptEmbedder:
    """An `Embedder`: features `[N, G, T, D]`. With guidance G is 2, the prompt and what it leads away from; else 1.

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
        known, ids = pipeline.text_encoder.config.vocab_size, pipeline.tokenizer.ids.size
        if ids > known:
            raise WeightsError(f"{config.checkpoint.folder}/tokenizer has {ids} ids; text_encoder/config.json has vocab_size {known}")
        pipeline.text_encoder = _Served(load_program(config, prompt_graphs(pipeline, config)), pipeline.text_encoder.dtype)
        self._shape = (config.texts, config.max_tokens, width)

    def embed(self, prompts: Sequence[str]) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        tokens = np.empty((len(prompts), *self._shape), np.float32)
        mask = np.empty((len(prompts), *self._shape[:2]), np.bool_)
        for row, prompt in enumerate(prompts):
            # A lone surrogate is a valid Python string but no text; it becomes a question mark.
            text = prompt.encode("utf-8", "replace").decode("utf-8")
            with torch.inference_mode():
                for group, (features, real) in enumerate(self._features(text)):
                    tokens[row, group], mask[row, group] = features[0].float().numpy(), real[0].bool().numpy()
        return tokens, mask

    def _features(self, prompt: str) -> list[tuple[Tensor, Tensor]]:
        """Features `[1, T, D]` and mask `[1, T]`: of the prompt, and with guidance of the negative one."""
        config = self._config
        guidance = config.texts > 1
        encoded = self._pipeline.encode_prompt(
            prompt,
            config.negative_prompt if guidance else None,
            do_classifier_free_guidance=guidance,
            max_sequence_length=config.max_tokens,
        )
        match len(encoded):
            case 2:  # prompt, negative prompt: the model attends to padding too
                pairs = [(features, torch.ones(features.shape[:2])) for features in encoded if features is not None]
            case _:  # prompt and its mask, negative prompt and its mask
                pairs = [(encoded[i], encoded[i + 1]) for i in (0, 2) if encoded[i] is not None]
        return pairs[: self._shape[0]]


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
    encoder = pipeline.text_encoder
    pipeline.text_encoder = _Asked()
    try:
        pipeline.encode_prompt("a red circle", None, do_classifier_free_guidance=False, max_sequence_length=config.max_tokens)
    except _AskedError as asked:
        inputs = _narrow(asked.inputs)
    finally:
        pipeline.text_encoder = encoder
    bucket = Bucket(1, tokens=config.max_tokens)
    return [GraphSpec(TEXT_ENCODER, "features", bucket, _Tower(encoder), "features", partial(_given, inputs))]


def _given(inputs: Inputs, _: torch.dtype) -> Inputs:
    return inputs


def _narrow(inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Accelerators have no integers of 64 bits."""
    return tuple(tensor.int() for tensor in inputs)
