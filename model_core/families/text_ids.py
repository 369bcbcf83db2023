"""Turns text into ids by a checkpoint's own file, read by the library that the file is made for.

`tokenizer.json` is read by tokenizers, `spiece.model` by sentencepiece. transformers is not used: its release 5
takes the vocabulary out of a T5 file and builds its own tokenizer around it, which gives some characters other ids than the file does.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Protocol

import torch
from sentencepiece import SentencePieceProcessor
from tokenizers import Tokenizer

from model_core.errors import WeightsError
from model_core.families.checkpoint import Checkpoint, read_json

JSON, PIECES = "tokenizer.json", "spiece.model"


class Ids(Protocol):
    """What a tokenizer's file says.

    Attributes:
        pad: the id that fills.
        size: one more than the largest id.
    """

    pad: int
    size: int

    def whole(self, text: str) -> list[int]:
        """Ids of all of `text`, with the token that closes it."""
        ...

    def cut(self, text: str, length: int) -> list[int]:
        """The same for the beginning of `text`: at most `length` ids."""
        ...


class JsonIds:
    """`Ids` of a `tokenizer.json`; `pad` is the name of the token that fills."""

    def __init__(self, path: Path, pad: str) -> None:
        try:
            self._tokenizer = Tokenizer.from_file(str(path))
        except Exception as error:  # the library raises plain exceptions
            raise WeightsError(f"{path} is no tokenizer: {error}") from error
        self._tokenizer.no_padding()
        number = self._tokenizer.token_to_id(pad)
        if number is None:
            raise WeightsError(f"{path} has no token {pad!r}, which tokenizer_config.json says to fill with")
        self.pad, self.size = int(number), 1 + max(self._tokenizer.get_vocab().values())

    def whole(self, text: str) -> list[int]:
        self._tokenizer.no_truncation()
        return list(self._tokenizer.encode(text).ids)

    def cut(self, text: str, length: int) -> list[int]:
        self._tokenizer.enable_truncation(length)
        return list(self._tokenizer.encode(text).ids)


class PieceIds:
    """`Ids` of a `spiece.model`, as T5 uses it: pieces, then the end of the sentence."""

    def __init__(self, path: Path) -> None:
        self._pieces = SentencePieceProcessor()
        try:
            self._pieces.Load(str(path))
        except (OSError, RuntimeError) as error:
            raise WeightsError(f"{path} is no tokenizer: {error}") from error
        self.pad, self.size, self._end = self._pieces.pad_id(), self._pieces.GetPieceSize(), self._pieces.eos_id()
        if self.pad < 0 or self._end < 0:
            raise WeightsError(f"{path} has no token to fill with, or none for the end of a sentence; T5's have both")

    def whole(self, text: str) -> list[int]:
        return [*self._pieces.EncodeAsIds(text), self._end]

    def cut(self, text: str, length: int) -> list[int]:
        return [*self._pieces.EncodeAsIds(text)[: length - 1], self._end]


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
    """The component, by `tokenizer.json` where there is one, else by `spiece.model`.

    Raises:
        WeightsError: there is neither, or it is none that the file's library reads.
    """
    folder = checkpoint.verified(component)
    settings = read_json(folder / "tokenizer_config.json") if (folder / "tokenizer_config.json").is_file() else {}
    # Where no limit is known, transformers writes down a number of 31 digits.
    limit = min(int(settings.get("model_max_length") or sys.maxsize), sys.maxsize)
    if (folder / JSON).is_file():
        pad = settings.get("pad_token") or "<pad>"
        return PromptTokenizer(JsonIds(folder / JSON, pad["content"] if isinstance(pad, dict) else pad), limit)
    if (folder / PIECES).is_file():
        return PromptTokenizer(PieceIds(folder / PIECES), limit)
    raise WeightsError(f"{folder} has neither {JSON} nor {PIECES}, so nothing says how text becomes ids")
