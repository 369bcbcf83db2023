"""How a checkpoint's own file says that text becomes ids, read by the library that the file is made for. Without torch.

`tokenizer.json` is read by tokenizers, `spiece.model` by sentencepiece. transformers is not used: its release 5
takes the vocabulary out of a T5 file and builds its own tokenizer around it, which gives some characters other ids than the file does.
"""

from __future__ import annotations

import math
import os
import sys
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

from sentencepiece import SentencePieceProcessor
from tokenizers import Tokenizer

from model_core.errors import WeightsError
from model_core.families.checkpoints.files import existing, read_json, stamp

JSON, PIECES = TOKENS = ("tokenizer.json", "spiece.model")  # the first that is there
_SETTINGS = "tokenizer_config.json"
_UNKNOWN = "\U0010ffff"  # a character that no vocabulary has: some files lack a token for it, which the library says when it meets one


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
        existing(path)
        try:
            self._tokenizer = Tokenizer.from_file(str(path))
            self._tokenizer.encode(_UNKNOWN)
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
        existing(path)
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


def read_vocabulary(folder: Path) -> tuple[Ids, int]:
    """What is in `folder`, a component, and the longest text in ids that its settings tell of.

    Raises:
        WeightsError: there is no vocabulary, it is none that the file's library reads, or settings have values of other kinds.
    """
    settings, where = read_json(folder / _SETTINGS) if (folder / _SETTINGS).is_file() else {}, folder / _SETTINGS
    # Where no limit is known, transformers writes down a number of 31 digits.
    length = settings.get("model_max_length") or sys.maxsize
    if isinstance(length, bool) or not isinstance(length, int | float) or not math.isfinite(length) or length < 1:
        raise WeightsError(f"{where}: model_max_length must be a number from 1 on, or null; got {str(length)[:64]!r}")
    limit = min(int(length), sys.maxsize)
    if os.path.lexists(folder / JSON):
        return JsonIds(folder / JSON, _pad(settings.get("pad_token") or "<pad>", where)), limit
    if os.path.lexists(folder / PIECES):
        return PieceIds(folder / PIECES), limit
    raise WeightsError(f"{folder} has neither {JSON} nor {PIECES}, so nothing says how text becomes ids")


def check_vocabulary(folder: Path, known: int) -> None:
    """Check that the vocabulary in `folder` can be read, and that its ids are among the `known` first.

    Raises:
        WeightsError: see `read_vocabulary`; or the text encoder has fewer ids.
    """
    files = (folder / name for name in (_SETTINGS, *TOKENS))
    check_ids(folder, _size(folder, tuple(stamp(path) for path in files if path.is_file())), known)


def check_ids(folder: Path | str, ids: int, known: int) -> None:
    """Raises WeightsError: a vocabulary of `ids` ids has some that the text encoder does not know."""
    if ids > known:
        raise WeightsError(f"{folder} has {ids} ids; text_encoder/config.json has vocab_size {known}")


@lru_cache(maxsize=16)
def _size(folder: Path, _: tuple[tuple[int, ...], ...]) -> int:
    """Large vocabularies take a second; one that is as it was is read once a process."""
    return read_vocabulary(folder)[0].size


def _pad(token: Any, where: Path) -> str:
    """The token's text; newer files have an object around it."""
    content = token.get("content") if isinstance(token, dict) else token
    if not isinstance(content, str):
        raise WeightsError(f"{where}: pad_token must be text, or an object with content; got {str(token)[:64]!r}")
    return content
