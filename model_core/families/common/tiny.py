"""What small checkpoints with random weights have in common: a tokenizer of bytes, and text encoders. Nothing is fetched."""

from __future__ import annotations

from typing import Any

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast, T5Config, T5EncoderModel, UMT5Config, UMT5EncoderModel

TEXT_WIDTH = 32
_PAD, _END, _UNKNOWN = "<pad>", "</s>", "<unk>"
_TEXT: dict[str, Any] = {
    "vocab_size": 512, "d_model": TEXT_WIDTH, "d_kv": 8, "d_ff": 64, "num_layers": 2, "num_heads": 4,
    "relative_attention_num_buckets": 8,
}  # fmt: skip


def byte_tokenizer(max_length: int) -> PreTrainedTokenizerFast:
    """A token a byte, closed by `</s>`, padded with `<pad>`: any text has one."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: number for number, token in enumerate([_PAD, _END, _UNKNOWN, *alphabet])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[], unk_token=_UNKNOWN))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.TemplateProcessing(single=f"$A {_END}", special_tokens=[(_END, vocabulary[_END])])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token=_PAD, eos_token=_END, unk_token=_UNKNOWN, model_max_length=max_length
    )


def umt5() -> Any:
    return UMT5EncoderModel(UMT5Config(**_TEXT))


def t5() -> Any:
    return T5EncoderModel(T5Config(**_TEXT))
