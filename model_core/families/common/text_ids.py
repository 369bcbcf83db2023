"""A checkpoint's vocabulary, called as diffusers' pipelines call a tokenizer of transformers."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import torch

from model_core.families.checkpoints.checkpoint import Checkpoint
from model_core.families.checkpoints.vocabulary import Ids, read_vocabulary


class PromptTokenizer:
    """`Ids` called as diffusers' pipelines call a tokenizer of transformers.

    Attributes:
        model_max_length: what the checkpoint says, or no limit.
    """

    def __init__(self, ids: Ids, model_max_length: int = sys.maxsize) -> None:
        self.ids, self.model_max_length = ids, model_max_length

    def count(self, text: str) -> int:
        """Tokens of all of `text`, with the one that closes it."""
        return len(self.ids.whole(text))

    def __call__(
        self, prompts: str | Sequence[str], *, padding: str = "longest", max_length: int = 0, truncation: bool = False, **_: object
    ) -> Any:
        """`input_ids` and `attention_mask` `[N, T]`: T is `max_length` where `padding` says so, else that of the longest prompt."""
        texts = [prompts] if isinstance(prompts, str) else prompts
        rows = [self.ids.cut(text, max_length) if truncation else self.ids.whole(text) for text in texts]
        width = max_length if padding == "max_length" else max(map(len, rows))
        ids = [row + [self.ids.pad] * (width - len(row)) for row in rows]
        mask = [[1] * len(row) + [0] * (width - len(row)) for row in rows]
        return SimpleNamespace(input_ids=torch.tensor(ids), attention_mask=torch.tensor(mask))

    def batch_decode(self, ids: Any) -> list[str]:
        """Pipelines ask for the text that they cut, to log it. Prompts are not for logs."""
        return [""] * len(ids)


def load_tokenizer(checkpoint: Checkpoint, component: str = "tokenizer") -> PromptTokenizer:
    """The component.

    Raises:
        WeightsError: see `Checkpoint.verified` and `read_vocabulary`.
    """
    return PromptTokenizer(*read_vocabulary(checkpoint.verified(component)))
