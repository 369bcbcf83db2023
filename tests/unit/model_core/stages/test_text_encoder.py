from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from transformers import AutoModel, AutoTokenizer

from model_core.config import TextEncoderConfig
from model_core.errors import StageUnavailable, WeightsError
from model_core.families.millrace.sentence import SentenceEmbedder, weights_folder
from model_core.presets import millrace_64
from model_core.stages.interface import TextEncoder
from model_core.stages.text_encoder import LocalTextEncoder
from tests.rounding import assert_rounds_alike

CONFIG = millrace_64().text
_SUMS = 6 * 6  # layers, and products in each
PROMPT = "a large red circle moves left over a blue background"
ODD_TEXTS = {
    "empty": "",
    "spaces": " \t\n\r ",
    "emoji": "🎬🟥 a 👩‍👩‍👧‍👦 rolls ⬅️",
    "control": "red\x00\x01\x07\x1b[31m circle\x7f",
    "one long word": "x" * 4096,
    "4 kB of text": "red circle " * 372,
    "right to left": "دائرة حمراء على خلفية زرقاء",
    "combining": "e\u0301" * 500,
    "lone surrogate": "red \ud800 circle",
    "special tokens": "[CLS] [SEP] [MASK] [PAD] [UNK]",
}


@pytest.fixture(scope="module")
def embedder() -> SentenceEmbedder:
    return SentenceEmbedder(CONFIG)


@pytest.fixture(scope="module")
def shared(embedder: SentenceEmbedder) -> Iterator[LocalTextEncoder]:
    encoder = LocalTextEncoder(embedder)
    yield encoder
    asyncio.run(encoder.aclose())


def reference(prompt: str) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """The plain way: the library's own tokenizer and loader."""
    folder = weights_folder(CONFIG.package)
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    model = AutoModel.from_pretrained(folder, local_files_only=True).eval()
    inputs = tokenizer(prompt, truncation=True, max_length=CONFIG.max_tokens, padding="max_length", return_tensors="pt")
    with torch.inference_mode():
        hidden = model(**inputs).last_hidden_state[0].numpy()
    mask = inputs["attention_mask"][0].numpy() != 0
    return hidden * mask[:, None], mask


@pytest.mark.parametrize("prompt", [PROMPT, "red circle " * 372])
async def test_agrees_with_the_library(shared: LocalTextEncoder, prompt: str) -> None:
    embedding = await shared.encode(prompt)
    tokens, mask = reference(prompt)
    np.testing.assert_array_equal(embedding.mask, mask)
    assert_rounds_alike(embedding.tokens, tokens, terms=4 * CONFIG.width, sums=_SUMS)


@pytest.mark.parametrize("prompt", ODD_TEXTS.values(), ids=ODD_TEXTS.keys())
async def test_any_text_gives_finite_features_of_the_static_shape(shared: LocalTextEncoder, prompt: str) -> None:
    embedding = await shared.encode(prompt)
    assert embedding.prompt == prompt
    assert embedding.tokens.shape == (CONFIG.max_tokens, CONFIG.width)
    assert embedding.tokens.dtype == np.float32
    assert embedding.mask.shape == (CONFIG.max_tokens,)
    assert embedding.mask.dtype == np.bool_
    assert embedding.mask.sum() >= 2  # the start and end tokens
    assert np.isfinite(embedding.tokens).all()
    assert not embedding.tokens[~embedding.mask].any()
    assert np.abs(embedding.tokens[embedding.mask]).max(axis=1).min() > 0


async def test_features_carry_meaning(shared: LocalTextEncoder, embedder: SentenceEmbedder) -> None:
    def sentence(tokens: NDArray[np.float32], mask: NDArray[np.bool_]) -> NDArray[np.float32]:
        mean: NDArray[np.float32] = tokens.sum(0) / mask.sum()
        return mean / np.linalg.norm(mean)

    tokens, mask = embedder.embed(["a red circle moves left", "a crimson disc slides to the left", "quarterly tax returns"])
    circle, disc, tax = (sentence(t, m) for t, m in zip(tokens, mask, strict=True))
    assert circle @ disc > circle @ tax + 0.2


async def test_many_at_once_agree_with_one_alone(shared: LocalTextEncoder, embedder: SentenceEmbedder) -> None:
    prompts = [f"prompt number {i}" for i in range(70)]  # more than one internal batch
    tokens, mask = embedder.embed(prompts)
    assert tokens.shape == (70, CONFIG.max_tokens, CONFIG.width)
    for i in (0, 63, 64, 69):
        alone = await shared.encode(prompts[i])
        assert_rounds_alike(tokens[i], alone.tokens, terms=4 * CONFIG.width, sums=_SUMS)
        np.testing.assert_array_equal(mask[i], alone.mask)


def test_no_prompts_give_no_rows(shared: LocalTextEncoder, embedder: SentenceEmbedder) -> None:
    tokens, mask = embedder.embed([])
    assert tokens.shape == (0, CONFIG.max_tokens, CONFIG.width)
    assert mask.shape == (0, CONFIG.max_tokens)


async def test_cached_arrays_cannot_be_changed_by_one_of_their_readers(shared: LocalTextEncoder) -> None:
    embedding = await shared.encode(PROMPT)
    with pytest.raises(ValueError, match="read-only"):
        embedding.tokens[0, 0] = 1.0


async def test_least_recently_used_prompt_is_forgotten_and_a_second_encoder_gives_the_same_bits(shared: LocalTextEncoder) -> None:
    encoder: LocalTextEncoder = LocalTextEncoder(SentenceEmbedder(CONFIG), cache_size=2)
    protocol: TextEncoder = encoder
    for prompt in ("a", "b", "a", "c", "a", "b"):
        embedding = await protocol.encode(prompt)
        np.testing.assert_array_equal(embedding.tokens, (await shared.encode(prompt)).tokens)
    counts = encoder.statistics()
    assert (counts.hits, counts.misses, counts.cached, counts.in_flight) == (2, 4, 2, 0)  # "b" went when "c" came
    assert counts.service_s > 0
    await encoder.aclose()


async def test_features_that_are_kept_are_bounded_by_what_they_take_and_the_newest_is_kept(shared: LocalTextEncoder) -> None:
    one = await shared.encode("a")
    for most, kept in ((2 * (one.tokens.nbytes + one.mask.nbytes), 2), (1, 1)):
        encoder = LocalTextEncoder(SentenceEmbedder(CONFIG), cache_bytes=most)
        for prompt in ("a", "b", "c", "c"):
            await encoder.encode(prompt)
        assert (encoder.statistics().hits, encoder.statistics().cached) == (1, kept)
        await asyncio.gather(*(encoder.encode("d") for _ in range(3)))
        assert encoder.statistics().cached == kept
        await encoder.aclose()


async def test_equal_prompts_at_the_same_time_run_once(shared: LocalTextEncoder) -> None:
    before = shared.statistics()
    embeddings = await asyncio.gather(*(shared.encode("eight callers, one run") for _ in range(8)))
    after = shared.statistics()
    assert (after.misses - before.misses, after.joined - before.joined) == (1, 7)
    assert all(e is embeddings[0] for e in embeddings)


async def test_a_cancelled_caller_does_not_disturb_one_that_waits_for_the_same_prompt(shared: LocalTextEncoder) -> None:
    first = asyncio.create_task(shared.encode("two callers, one leaves"))
    second = asyncio.create_task(shared.encode("two callers, one leaves"))
    await asyncio.sleep(0)
    first.cancel()
    assert (await second).prompt == "two callers, one leaves"
    assert first.cancelled()


async def test_work_nobody_waits_for_is_dropped_and_can_be_asked_for_again(shared: LocalTextEncoder) -> None:
    tasks = [asyncio.create_task(shared.encode(f"abandoned {i}")) for i in range(50)]
    await asyncio.sleep(0)
    assert shared.statistics().in_flight == 50
    for task in tasks:
        task.cancel()
    again = asyncio.create_task(shared.encode("abandoned 49"))
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert all(isinstance(r, asyncio.CancelledError) for r in results)
    assert (await again).prompt == "abandoned 49"
    assert shared.statistics().in_flight == 0


async def test_the_loop_runs_on_while_a_prompt_is_encoded(shared: LocalTextEncoder) -> None:
    work = asyncio.create_task(shared.encode("does the loop still turn"))
    turns = 0
    while not work.done():
        await asyncio.sleep(0)
        turns += 1
    assert turns > 3  # a blocking call would be done within the first turns


async def test_closing_finishes_what_is_under_way_and_refuses_the_rest() -> None:
    encoder = LocalTextEncoder(SentenceEmbedder(CONFIG))
    prompts = [f"{i} under way or waiting" for i in range(4)]
    under_way = [asyncio.create_task(encoder.encode(prompt)) for prompt in prompts]
    await asyncio.sleep(0)
    await encoder.aclose()
    assert [embedding.prompt for embedding in await asyncio.gather(*under_way)] == prompts
    with pytest.raises(StageUnavailable, match="closed"):
        await encoder.encode("too late")
    await encoder.aclose()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"weights_sha256": "0" * 64}, "pinned is 0000"),
        ({"width": 512}, "384 wide, configured is 512"),
        ({"package": "no_such_package_of_weights"}, "no_such_package_of_weights.*not installed"),
    ],
)
def test_wrong_weights_are_refused(change: dict[str, str | int], message: str) -> None:
    config: TextEncoderConfig = replace(CONFIG, **change)  # type: ignore[arg-type]  # a table of changes of different types
    with pytest.raises(WeightsError, match=message):
        SentenceEmbedder(config)


def test_an_incomplete_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "half_a_package").mkdir()
    (tmp_path / "half_a_package" / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(WeightsError, match=r"half_a_package/model/tokenizer\.json is missing"):
        SentenceEmbedder(replace(CONFIG, package="half_a_package"))


def test_loading_and_encoding_touch_no_network() -> None:
    script = """
import asyncio, sys
def refuse(event, args):
    if event in ("socket.connect", "socket.getaddrinfo"):
        raise SystemExit(f"network used: {event} {args[1:]}")
sys.addaudithook(refuse)
from model_core.presets import millrace_64
from model_core.stages.text_encoder import LocalTextEncoder
from model_core.families.millrace.sentence import SentenceEmbedder
print(asyncio.run(LocalTextEncoder(SentenceEmbedder(millrace_64().text)).encode("circle")).mask.sum())
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=600, check=False)
    assert (done.returncode, done.stdout) == (0, "3\n"), done.stderr
