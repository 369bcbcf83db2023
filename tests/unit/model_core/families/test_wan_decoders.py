"""Decoders of Wan's latents: chunk by chunk as the clip at once, and rebuilt from a suffix with the same frames."""

from __future__ import annotations

import shutil
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from model_core.errors import WeightsError
from model_core.families.checkpoints.checkpoint import CHECKSUMS, Checkpoint, shards
from model_core.families.checkpoints.whole import component_settings
from model_core.families.described import Choice, describe
from model_core.families.interface import Painter
from model_core.families.registry import family
from model_core.families.wan import vae as wan_vae
from model_core.families.wan.networks import TAEHV_REACH, WAN_VAE, wan_vae_reach
from model_core.families.wan.taehv import TaehvPainter
from model_core.families.wan.vae import WanPainter
from model_core.nn.taehv import TaehvDecoder, of_weights
from tests import checkpoints
from tests.rounding import assert_same_picture

DECODERS = ("vae", "taehv")
_TERMS = 9 * 2 * 16  # of a memory block's first convolution: 3 x 3 of two frames of 16 channels
_CONVOLUTIONS = 1 + 3 * (3 * 3 + 2) + 1  # three levels of three memory blocks


@cache
def painter(decoder: str) -> Painter:
    torch.set_num_threads(1)
    return family("causal-wan").parts.painter(checkpoints.config("causal-wan", decoder="" if decoder == "vae" else decoder))


def latents(frames: int, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).standard_normal((4, frames, 4, 6), np.float32)


def painted(decoder: str, parts: list[NDArray[np.float32]]) -> list[NDArray[np.uint8]]:
    made, memory = [], painter(decoder).fresh()
    with torch.inference_mode():
        for part in parts:
            frames, memory = painter(decoder).paint(part, memory)
            made.append(frames)
    return made


@pytest.mark.parametrize("decoder", DECODERS)
def test_chunk_by_chunk_as_the_clip_at_once(decoder: str) -> None:
    whole = painted(decoder, [latents(7)])
    streamed = painted(decoder, np.split(latents(7), (1, 3, 4), axis=1))
    assert [len(frames) for frames in streamed] == [1, 8, 4, 12]
    if decoder == "vae":  # it takes latent frames one by one, however they come; a TAEHV convolves as many frames as a chunk has
        np.testing.assert_array_equal(np.concatenate(streamed), whole[0])
    assert_same_picture(np.concatenate(streamed), whole[0], terms=_TERMS, sums=_CONVOLUTIONS)
    assert whole[0].std() > 1


@pytest.mark.parametrize("decoder", DECODERS)
def test_a_memory_may_be_kept_and_used_again(decoder: str) -> None:
    """It belongs to a session and to a place in it; painting on from it changes it as little as painting on elsewhere does."""
    first, second, other = (latents(3, seed) for seed in range(3))
    with torch.inference_mode():
        _, memory = painter(decoder).paint(first, painter(decoder).fresh())
        before, _ = painter(decoder).paint(second, memory)
        painter(decoder).paint(other, memory)
        painter(decoder).paint(other, painter(decoder).fresh())
        after, _ = painter(decoder).paint(second, memory)
    np.testing.assert_array_equal(before, after)


def decoded(decoder: str, parts: list[NDArray[np.float32]]) -> Tensor:
    """The last part, before it is rounded to levels of 255."""
    own: Any = painter(decoder)
    with torch.inference_mode():
        memory = own.fresh()
        for part in parts[:-1]:
            _, memory = own.paint(part, memory)
        if isinstance(own, WanPainter):
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(wan_vae, "bytes_of", lambda frames: frames.permute(0, 2, 3, 4, 1))
                return torch.tensor(own.paint(parts[-1], memory)[0])
        assert isinstance(own, TaehvPainter)
        return own._decoder.decode(torch.tensor(parts[-1])[None], memory.blocks)[0]  # noqa: SLF001 - its frames in full


@pytest.mark.parametrize("decoder", DECODERS)
def test_rebuilt_from_as_many_latent_frames_as_it_reaches_back_it_is_exact_and_from_fewer_it_is_not(decoder: str) -> None:
    settings = checkpoints.config("causal-wan")
    reach = wan_vae_reach(component_settings(settings.checkpoint, "vae", WAN_VAE)) if decoder == "vae" else TAEHV_REACH
    parts = [latents(1, seed) for seed in range(reach + 2)]
    undisturbed = decoded(decoder, parts)
    assert torch.equal(decoded(decoder, parts[-reach - 1 :]), undisturbed)
    assert not torch.equal(decoded(decoder, parts[-reach // 2 :]), undisturbed)
    settings = checkpoints.config("causal-wan", decoder="" if decoder == "vae" else decoder)
    assert settings.context_chunks >= settings.decoder_chunks == -(-reach // 3)


def test_how_far_the_published_autoencoder_of_wan_2_1_reaches() -> None:
    assert wan_vae_reach({"num_res_blocks": 2, "temperal_downsample": [False, True, True]}) == 38  # 13 chunks of 3 latent frames


# -- TAEHV --------------------------------------------------------------------------------------------------------------------------


class Reference(nn.Module):
    """TAEHV's decoder as its authors describe it: a clip at once, frame by frame through every layer, memory blocks looking one back."""

    def __init__(self, tensors: dict[str, Tensor]) -> None:
        super().__init__()
        self.w = tensors

    def conv(self, x: Tensor, name: str, padding: int = 1) -> Tensor:
        return nn.functional.conv2d(x, self.w[f"{name}.weight"], self.w.get(f"{name}.bias"), padding=padding)

    def forward(self, clip: Tensor) -> Tensor:
        """`[F, C, h, w]` → `[4F - 3, 3, H, W]`."""
        x = torch.relu(self.conv(torch.tanh(clip / 3) * 3, "decoder.1"))
        for level in range(3):
            for block in range(3):
                name = f"decoder.{3 + 6 * level + block}.conv"
                y = torch.cat((x, torch.cat((torch.zeros_like(x[:1]), x[:-1]))), 1)
                y = torch.relu(self.conv(y, f"{name}.0"))
                x = torch.relu(self.conv(torch.relu(self.conv(y, f"{name}.2")), f"{name}.4") + x)
            x = nn.functional.interpolate(x, scale_factor=2)
            x = self.conv(x, f"decoder.{7 + 6 * level}.conv", padding=0).reshape(-1, *x.shape[1:])
            x = self.conv(x, f"decoder.{8 + 6 * level}")
        return self.conv(torch.relu(x), "decoder.22").clamp(0, 1)[3:]


def test_taehv_is_what_its_authors_describe() -> None:
    checkpoint = checkpoints.config("causal-wan").checkpoint
    tensors = load_file(shards(checkpoint.verified("taehv"))[0])
    clip = latents(5)
    with torch.inference_mode():
        theirs = Reference(tensors)(torch.tensor(clip).transpose(0, 1))
    expected = (theirs * 255).round().permute(0, 2, 3, 1).byte().numpy()
    assert_same_picture(painted("taehv", [clip])[0], expected, terms=_TERMS, sums=_CONVOLUTIONS)


def test_the_published_sizes_are_read_off_the_weights() -> None:
    """Those of TAEW2.1, and of one that makes four pixels of a position, as TAEW2.2 does; with an encoder, which is left out."""
    for channels, patch in ((16, 1), (48, 2)):
        given = TaehvDecoder(channels, (256, 128, 64, 64), patch=patch).state_dict()
        own = of_weights(given | {"encoder.0.weight": torch.zeros(1)})
        assert (own.channels, own.strides, own.patch, own.growth) == (channels, (1, 2, 2), patch, 4)


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (lambda _: {}, "is no TAEHV"),
        (
            lambda t: {name: tensor for name, tensor in t.items() if name != "decoder.3.conv.0.bias"},
            r"is no TAEHV: (?s:.*)decoder\.3\.conv\.0\.bias",
        ),
        (lambda _: TaehvDecoder(16, (8, 8, 8, 8)).state_dict(), "has 16 latent channels, .* has 4"),
        (lambda _: TaehvDecoder(4, (8, 8, 8, 8), strides=(1, 1, 2)).state_dict(), "has 2 frames a latent frame, .* has 4"),
        (lambda _: TaehvDecoder(4, (8, 8, 8, 8), patch=2).state_dict(), "has 16 pixels a latent position, .* has 8"),
    ],
)
def test_a_taehv_that_is_none_or_fits_other_latents_is_refused(spoil: Any, sentence: str, tmp_path: Path) -> None:
    folder = checkpoints.copied("causal-wan", tmp_path)
    save_file(spoil(load_file(folder / "taehv/taehv.safetensors")), folder / "taehv/taehv.safetensors")
    config = describe(Choice(checkpoint=Checkpoint(folder=str(folder)), height=32, width=48, decoder="taehv"))
    with pytest.raises(WeightsError, match=sentence):
        family("causal-wan").parts.painter(config)


def test_a_taehv_for_latents_that_it_does_not_know_is_refused() -> None:
    with pytest.raises(WeightsError, match="decoder must be empty for ltx"):
        checkpoints.config("ltx", decoder="taehv")


def test_a_clip_may_be_decoded_by_a_taehv_too(tmp_path: Path) -> None:
    folder = tmp_path / "wan"
    shutil.copytree(checkpoints.folder("wan"), folder)
    shutil.copytree(checkpoints.folder("causal-wan") / "taehv", folder / "taehv")
    (folder / CHECKSUMS).unlink()
    config = describe(Choice(checkpoint=Checkpoint(folder=str(folder)), height=32, width=48, frames=9, decoder="taehv"))
    made = family("wan").parts.painter(config)
    with torch.inference_mode():
        frames, _ = made.paint(latents(3), made.fresh())
    np.testing.assert_array_equal(frames, painted("taehv", [latents(3)])[0])
