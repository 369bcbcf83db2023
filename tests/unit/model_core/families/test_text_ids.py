"""How a checkpoint's text becomes ids: as the library says that its tokenizer's file is for, on texts that tokenizers disagree about."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from sentencepiece import SentencePieceProcessor
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

from model_core.errors import RuntimeUnavailable, WeightsError
from model_core.families.checkpoints.checkpoint import Checkpoint
from model_core.families.checkpoints.forms import piece_model, with_pieces
from model_core.families.checkpoints.loading import require
from model_core.families.common.text_ids import PromptTokenizer, load_tokenizer
from model_core.families.registry import family
from tests import checkpoints

ODD = (
    *("", " ", "a red circle", "  a   red\tcircle \n\n moves  ", "A RED Circle", "ﬁne ﬂag Ⅳ ½", "ＡＢＣ １２３", "e\u0301 é"),
    *(
        "\u200bzero\u00a0width\ufeff",
        "“curly” ‘quotes’ — dash…",
        "赤い円",
        "красный круг",
        "دائرة حمراء",
        "☃ snowman 🎈👩‍👩‍👧",
        "\x00\x07bell",
    ),
    *("☃ 🎈👩‍👩‍👧", "a</s>b", "<pad> <unk> <s> <extra_id_0>", "▁red ▁", "a" * 700, "circle " * 300, "\U0010ffff", "ß ẞ İ ı"),
)


def tokenizer_of(folder: Path, **files: str | bytes) -> PromptTokenizer:
    (folder / "tokenizer").mkdir()
    (folder / "model_index.json").write_text("{}")
    for name, content in files.items():
        data = content.encode() if isinstance(content, str) else content
        (folder / "tokenizer" / name.replace("__", ".")).write_bytes(data)
    return load_tokenizer(Checkpoint(folder=str(folder)))


def test_a_piece_model_alone_gives_the_ids_that_sentencepiece_gives(tmp_path: Path) -> None:
    model = piece_model()
    ours, theirs = tokenizer_of(tmp_path, spiece__model=model), SentencePieceProcessor(model_proto=model)
    for text in ODD:
        ids = theirs.encode(text)
        assert ours(text).input_ids.tolist() == [[*ids, 1]]
        cut = ours([text], padding="max_length", max_length=16, truncation=True)
        assert cut.input_ids.tolist() == [([*ids[:15], 1] + [0] * 16)[:16]]
        assert cut.attention_mask.sum().item() == min(len(ids) + 1, 16)
        assert ours.count(text) == len(ids) + 1


def umt5() -> Tokenizer:
    """As UMT5's file has it: `<s>` stands before `<unk>`."""
    pieces = [
        ("<pad>", 0.0),
        ("</s>", 0.0),
        ("<s>", 0.0),
        ("<unk>", 0.0),
        ("▁", -2.0),
        *((letter, -3.0) for letter in "abcdefghilmnorstuv"),
    ]
    made = Tokenizer(models.Unigram(pieces, unk_id=3))
    made.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Replace(" {2,}", " ")])
    made.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always")
    made.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return made


@pytest.mark.parametrize("kind", ["T5Tokenizer", "T5TokenizerFast", "PreTrainedTokenizerFast"])
def test_a_json_file_gives_the_ids_that_tokenizers_gives_whatever_class_is_named_beside_it(tmp_path: Path, kind: str) -> None:
    theirs = umt5()
    settings = {"tokenizer_class": kind, "pad_token": {"content": "<pad>"}, "model_max_length": 10**30}
    theirs.enable_truncation(5)  # left over from training; what is asked for counts
    theirs.enable_padding(length=9)
    ours = tokenizer_of(tmp_path, tokenizer__json=theirs.to_str(), tokenizer_config__json=json.dumps(settings))
    theirs.no_truncation()
    theirs.no_padding()
    assert ours("☃").input_ids.tolist() == [[4, 3, 1]]  # the unknown token, not `<s>`
    for text in ODD:
        assert ours(text).input_ids.tolist() == [theirs.encode(text).ids]
        assert ours([text], padding="max_length", max_length=600, truncation=True).input_ids.shape == (1, 600)


def test_a_json_file_comes_before_a_piece_model(tmp_path: Path) -> None:
    assert tokenizer_of(tmp_path, tokenizer__json=umt5().to_str(), spiece__model=piece_model())("☃").input_ids.tolist() == [[4, 3, 1]]


@pytest.mark.parametrize(
    ("files", "sentence"),
    [
        ({"vocab__txt": "a"}, "has neither tokenizer.json nor spiece.model"),
        ({"tokenizer__json": "{}"}, "tokenizer.json is no tokenizer: "),
        ({"spiece__model": "no model"}, "spiece.model is no tokenizer: "),
        ({"tokenizer__json": umt5().to_str(), "tokenizer_config__json": '{"pad_token": "[PAD]"}'}, r"has no token '\[PAD\]'"),
    ],
)
def test_what_is_no_tokenizer_is_refused(tmp_path: Path, files: dict[str, str], sentence: str) -> None:
    with pytest.raises(WeightsError, match=sentence):
        tokenizer_of(tmp_path, **files)


def test_ids_that_the_text_encoder_does_not_know_are_refused_before_a_replica_starts(tmp_path: Path) -> None:
    folder = checkpoints.copied("ltx", tmp_path)
    path = folder / "tokenizer/tokenizer.json"
    path.write_text(path.read_text().replace(": 258", ": 512"))
    with pytest.raises(WeightsError, match=r"tokenizer has 513 ids; text_encoder/config\.json has vocab_size 512"):
        checkpoints.config("ltx", folder)


def test_wan_reads_prompts_after_ftfy() -> None:
    _, embedder, _ = checkpoints.parts("wan")
    tokens, _ = embedder.embed(["a “red” circle", 'a "red" circle', "a red circle"])
    assert (tokens[0] == tokens[1]).all()
    assert (tokens[0] != tokens[2]).any()
    require("ftfy", "it is")
    with pytest.raises(RuntimeUnavailable, match="no_such_package is not installed: prompts are cleaned by it"):
        require("no_such_package", "prompts are cleaned by it")


@pytest.mark.parametrize("name", ["ltx", "cogvideox", "wan"])
def test_a_family_reads_prompts_by_a_piece_model(name: str, tmp_path: Path) -> None:
    """All the way through diffusers' own pipelines, which want a tokenizer of transformers."""
    folder = checkpoints.copied(name, tmp_path)
    with_pieces(folder)
    config = checkpoints.config(name, folder)
    embedder = family(config.family).parts.embedder(config)
    tokens, mask = embedder.embed(["a red circle", "a red circle moves left", "a red circle"])
    assert tokens.shape == (3, 1, config.max_tokens, 32)
    assert (tokens[0] == tokens[2]).all()
    assert (tokens[0] != tokens[1]).any()
    assert mask.any()
