"""Checkpoints as people have them: served, or refused before a replica starts with a sentence in the checkpoint's own terms."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import CogVideoXTransformer3DModel, LTXVideoTransformer3DModel, WanTransformer3DModel
from safetensors.torch import load_file, save_file
from transformers import UMT5EncoderModel

from model_core.errors import WeightsError
from model_core.families.causal_wan.keys import load_transformer
from model_core.families.checkpoints.checkpoint import Checkpoint, write_checksums
from model_core.families.checkpoints.forms import as_published, as_variant, in_halves, in_shards, linked
from model_core.families.checkpoints.loading import load_module
from model_core.families.checkpoints.shards import weights_of
from model_core.families.registry import networks, tiny_checkpoints
from tests import checkpoints

TRANSFORMER = "transformer/diffusion_pytorch_model.safetensors"
BLOCK = "blocks.1.attn1.to_q.weight"


def settings(folder: Path, name: str, **changes: Any) -> None:
    """Change settings in a JSON file; those that are `...` go."""
    held = {**json.loads((folder / name).read_text()), **changes}
    (folder / name).write_text(json.dumps({key: value for key, value in held.items() if value is not ...}))


def tensors(folder: Path, change: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]], name: str = TRANSFORMER) -> None:
    save_file(change(load_file(folder / name)), folder / name)


def index(**changes: Any) -> Callable[[Path], None]:
    return lambda folder: settings(folder, "model_index.json", **changes)


def config(component: str, **changes: Any) -> Callable[[Path], None]:
    return lambda folder: settings(folder, f"{component}/config.json", **changes)


def weights(change: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]) -> Callable[[Path], None]:
    return lambda folder: tensors(folder, change)


def gone(name: str) -> Callable[[Path], None]:
    def remove(folder: Path) -> None:
        (shutil.rmtree if (folder / name).is_dir() else Path.unlink)(folder / name)

    return remove


def named(name: str) -> Callable[[Path], None]:
    def rename(folder: Path) -> None:
        (folder / TRANSFORMER).rename(folder / "transformer" / name)

    return rename


def one_more(folder: Path) -> None:
    save_file({BLOCK: torch.zeros(48, 48)}, folder / "transformer/diffusion_pytorch_model-00003-of-00003.safetensors")


def in_parts(then: Callable[[Path], None]) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        in_shards(folder, "transformer")
        then(folder)

    return change


def twice(folder: Path) -> None:
    """The index names both files, and one tensor is in both."""
    in_shards(folder, "transformer")
    first, second = sorted((folder / "transformer").glob("*.safetensors"))
    held = load_file(first)
    save_file(held | {min(load_file(second)): torch.zeros(1)}, first)


def stale(folder: Path) -> None:
    """What is left where whole weights took the place of shards."""
    whole = (folder / TRANSFORMER).read_bytes()
    in_shards(folder, "transformer")
    for path in (folder / "transformer").glob("*.safetensors"):
        path.unlink()
    (folder / TRANSFORMER).write_bytes(whole)


def moved(folder: Path) -> None:
    in_shards(folder, "transformer")
    (path,) = (folder / "transformer").glob("*.index.json")
    placed = json.loads(path.read_text())["weight_map"]
    (other,) = set(placed.values()) - {placed[BLOCK]}
    path.write_text(json.dumps({"weight_map": placed | {BLOCK: other}}))


def byte_order_mark(folder: Path) -> None:
    path = folder / "transformer/config.json"
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())


def authors_folder(folder: Path) -> None:
    (folder / "model_index.json").unlink()
    (folder / "config.json").write_text(json.dumps({"_class_name": "WanModel", "dim": 1536}))


def dangling(folder: Path) -> None:
    linked(folder)
    (folder / TRANSFORMER).resolve().unlink()


def variants(folder: Path) -> None:
    as_variant(folder, "transformer", "fp16")
    shutil.copy(
        folder / "transformer/diffusion_pytorch_model.fp16.safetensors", folder / "transformer/diffusion_pytorch_model.bf16.safetensors"
    )


REFUSED: dict[str, tuple[str, Callable[[Path], None], str]] = {
    # what model_index.json names
    "null": ("wan", index(vae=[None, None]), r"names no vae \(it says \[None, None\]\)"),
    "bare null": ("wan", index(text_encoder=None), "names no text_encoder"),
    "left out": ("ltx", index(transformer=...), "names no transformer"),
    "another class": ("wan", index(transformer=["diffusers", "WanVACETransformer3DModel"]), "is a 'WanVACE.*'; expected a Wan"),
    "one more": ("wan", index(controlnet=["diffusers", "X"]), "names controlnet, a 'X', for which the family has no use"),
    "causal setting": ("wan", index(num_frame_per_block=3), "has num_frame_per_block, .* need `family: causal-wan`"),
    "authors' folder": ("wan", authors_folder, "has no model_index.json, only a config.json of 'WanModel'"),
    # pairs
    "no second": ("wan-2.2", index(transformer_2=[None, None]), "has boundary_ratio 0.875, but names no transformer_2"),
    "bare second": ("wan-2.2", index(transformer_2=None), "but names no transformer_2"),
    "second's folder": ("wan-2.2", gone("transformer_2"), "transformer_2 is missing"),
    "no boundary": ("wan-2.2", index(boundary_ratio=None), "boundary_ratio does not say when it takes over"),
    "boundary of 900": ("wan-2.2", index(boundary_ratio=900), "boundary_ratio in model_index.json must be from 0 to 1; got 900"),
    "second's channels": ("wan-2.2", config("transformer_2", in_channels=12), "transformer_2/config.json has in_channels 12"),
    "no eye": ("wan-image", index(image_encoder=[None, None]), "image_dim 32, and model_index.json names no image_encoder"),
    "eye too much": ("wan-image", config("transformer", image_dim=None), "image_dim None, and model_index.json names an image_encoder"),
    "ti2v": ("wan-image", index(expand_timesteps=True), "gives each token a timestep"),
    # settings
    "first and last frame": ("wan-image", config("transformer", pos_embed_seq_len=514), "pos_embed_seq_len 514: .* a last frame"),
    "image's offset": ("cogvideox", config("transformer", ofs_embed_dim=8), "ofs_embed_dim 8: it is made for a given image"),
    "one size": ("cogvideox", config("transformer", use_learned_positional_embeddings=True), "use_learned_positional_embeddings True: "),
    "partition": ("anyflow-far", config("transformer", chunk_partition=[1, 4, 4]), r"chunk_partition \[1, 4, 4\]; only 1 and"),
    "authors' class": ("wan", config("transformer", _class_name="WanModel", dim=48), "describes a 'WanModel'; it has its authors' own"),
    "authors' settings": ("wan", config("transformer", _class_name=..., dim=48), r"authors' own names for settings \(dim, num_heads\)"),
    "image weights": ("wan", config("transformer", in_channels=12), "has in_channels 12; .* must be 4"),
    "another text": ("ltx", config("transformer", caption_channels=4096), "caption_channels 4096; .* d_model 32"),
    "t5 for umt5": ("wan", config("text_encoder", model_type="t5"), "model_type 't5', expected 'umt5'"),
    "autoencoder's patch": ("wan", config("vae", patch_size=2), "has scale_factor_spatial 8; its .* make 16"),
    "no settings": ("wan", gone("scheduler/scheduler_config.json"), "scheduler has no config.json"),
    "byte-order mark": ("wan", byte_order_mark, "is no JSON: .*BOM"),
    # files
    "no vocabulary": ("wan", gone("tokenizer/tokenizer.json"), "neither tokenizer.json nor spiece.model"),
    "no weights": ("wan", gone(TRANSFORMER), "holds no safetensors"),
    "another name": ("wan", named("wan.safetensors"), r"wan.safetensors is not read: only diffusion_pytorch_model.safetensors is"),
    "two variants": ("wan", variants, "offers bf16 and fp16 weights and no plain ones"),
    "dangling": ("wan", dangling, "is a link to nothing"),
    "shard gone": ("wan", in_parts(gone(TRANSFORMER.replace(".", "-00002-of-00002."))), "is missing: .*index.json names it"),
    "index gone": ("wan", in_parts(gone(f"{TRANSFORMER}.index.json")), "but diffusion_pytorch_model.safetensors.index.json is missing"),
    "shard beside": ("wan", in_parts(one_more), "00003-of-00003.safetensors is not named by .*index.json"),
    "stale index": ("wan", stale, "if diffusion_pytorch_model.safetensors took its place, remove .*.index.json"),
    "index of others": ("wan", moved, "index.json is stale: it says"),
    "tensor twice": ("wan", twice, "both hold"),
    # tensors
    "tensor gone": ("wan", weights(lambda t: {n: v for n, v in t.items() if n != BLOCK}), f"missing: {BLOCK}"),
    "part gone": ("wan", weights(lambda t: {n: v for n, v in t.items() if "proj_out" not in n}), "missing: proj_out"),
    "tensor more": ("wan", weights(lambda t: t | {"extra.weight": torch.zeros(1)}), "unexpected: extra.weight, 1 in all"),
    "block more": ("wan", weights(lambda t: t | {BLOCK.replace("1", "7", 1): t[BLOCK].clone()}), "num_layers 2; there are 3 blocks"),
    "another shape": ("wan", weights(lambda t: t | {BLOCK: torch.zeros(2, 2)}), r"blocks.1.attn1.to_q.weight has shape \[2, 2\]"),
    "repacked": (
        "wan", weights(lambda t: {f"model.diffusion_model.{n}": v for n, v in t.items()}),
        "begin with model.diffusion_model. .* remove that"
    ),
    "authors' names": ("wan", weights(lambda t: t | {"head.head.weight": torch.zeros(1)}), "head.head.weight, a name of Wan's authors"),
    "repacked text": (
        "ltx", lambda folder: tensors(folder, lambda t: {f"m.{n}": v for n, v in t.items()}, "text_encoder/model.safetensors"),
        "unexpected: m.encoder.block",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_served_is_refused_before_a_replica_starts(case: str, tmp_path: Path) -> None:
    name, spoil, sentence = REFUSED[case]
    folder = checkpoints.copied(name, tmp_path)
    spoil(folder)
    with pytest.raises(WeightsError, match=sentence):
        checkpoints.config(name, folder)


@pytest.mark.parametrize(
    ("name", "of", "height"), [("wan", 16, 48), ("wan", 16, 72), ("ltx", 32, 48), ("anyflow-far", 32, 48), ("wan-2.2", 16, 40)]
)
def test_latents_must_be_whole_patches(name: str, of: int, height: int, tmp_path: Path) -> None:
    folder = checkpoints.copied(name, tmp_path)
    if (name, height) == ("wan", 48):  # as Wan 2.2's autoencoder of 16 pixels a latent position
        of = 32
        settings(folder, "vae/config.json", patch_size=2, scale_factor_spatial=16, in_channels=12, out_channels=12)
    with pytest.raises(WeightsError, match=f"height must be a multiple of {of} for .*; got {height}"):
        checkpoints.config(name, folder, height=height)


def served(folder: Path) -> None:
    settings(folder, "model_index.json", safety_checker=[None, None], feature_extractor=None, _name_or_path="x", expand_timesteps=False)
    (folder / "README.md").write_text("é")
    (folder / "tokenizer/tokenizer_config.json").unlink()
    (folder / ".cache/huggingface").mkdir(parents=True)
    (folder / "transformer/notes ünd.txt").write_text("")
    (folder / "transformer/fp16").mkdir()
    shutil.copy(folder / TRANSFORMER, folder / "transformer/diffusion_pytorch_model.fp16.safetensors")  # the plain weights are taken
    tensors(folder, lambda t: t)  # and have no metadata


@pytest.mark.parametrize("change", [served, linked, as_published, lambda folder: folder.chmod(0o555)])
def test_what_differs_without_meaning_is_served(change: Callable[[Path], None], tmp_path: Path) -> None:
    folder = checkpoints.copied("wan", tmp_path)
    change(folder)
    assert checkpoints.config("wan", folder).family == "wan"
    write_checksums(folder)
    network = load_module(Checkpoint(folder=str(folder)), "transformer", WanTransformer3DModel)
    expected = load_file(checkpoints.folder("wan") / TRANSFORMER)
    assert all(torch.equal(value, expected[name]) for name, value in network.state_dict().items())


@pytest.mark.parametrize("name", ["wan", "causal-wan"])
@pytest.mark.parametrize("change", [lambda _: None, as_published])
def test_kernels_cannot_tell_from_what_files_weights_came(name: str, change: Callable[[Path], None], tmp_path: Path) -> None:
    """They round by where a number lies, which in a file is anywhere. What is loaded lies where PyTorch puts what it makes."""
    folder = checkpoints.copied(name, tmp_path)
    change(folder)
    where = Checkpoint(folder=str(folder))
    network = load_transformer(where) if name == "causal-wan" else load_module(where, "transformer", WanTransformer3DModel)
    for module in (network, load_module(where, "text_encoder", UMT5EncoderModel)):
        assert {tensor.data_ptr() % 64 for tensor in module.parameters()} == {0}


@pytest.mark.parametrize("variant", ["fp16", "bf16"])
@pytest.mark.parametrize("parts", [1, 2])
def test_the_only_variant_is_loaded(variant: str, parts: int, tmp_path: Path) -> None:
    folder = checkpoints.copied("wan", tmp_path)
    for component, kind in (("transformer", WanTransformer3DModel), ("text_encoder", UMT5EncoderModel)):
        if parts == 1:
            as_variant(folder, component, variant)
        else:  # as both libraries write them
            in_shards(folder, component, parts)
            (listed,) = (folder / component).glob("*.index.json")
            base = listed.name.removesuffix(".safetensors.index.json")
            for path in (folder / component).glob("*.safetensors"):
                path.rename(path.with_name(path.name.replace(base, f"{base}.{variant}")))
            listed.write_text(listed.read_text().replace(f"{base}-0", f"{base}.{variant}-0"))
            listed.rename(listed.with_name(f"{base}.safetensors.index.{variant}.json"))
        checkpoints.config("wan", folder)
        network = load_module(Checkpoint(folder=str(folder)), component, kind)
        expected = load_module(Checkpoint(folder=str(checkpoints.folder("wan"))), component, kind).state_dict()
        assert all(torch.equal(value, expected[name]) for name, value in network.state_dict().items())


@pytest.mark.parametrize(("name", "kind"), [("ltx", LTXVideoTransformer3DModel), ("cogvideox", CogVideoXTransformer3DModel)])
def test_weights_stored_in_halves_are_loaded_as_asked(name: str, kind: type, tmp_path: Path) -> None:
    folder = checkpoints.copied(name, tmp_path)
    in_halves(folder, "transformer")
    checkpoints.config(name, folder)
    network = load_module(Checkpoint(folder=str(folder)), "transformer", kind)
    stored = load_file(folder / TRANSFORMER)
    assert all(torch.equal(value, stored[name].float()) for name, value in network.state_dict().items())


@pytest.mark.parametrize("names", [["shared.weight"], ["encoder.embed_tokens.weight"], ["shared.weight", "encoder.embed_tokens.weight"]])
@pytest.mark.parametrize("family", ["wan", "ltx"])
def test_a_text_encoder_may_have_its_embedding_under_either_name(family: str, names: list[str], tmp_path: Path) -> None:
    folder = checkpoints.copied(family, tmp_path)
    shared = load_file(folder / "text_encoder/model.safetensors")["shared.weight"]

    def rename(held: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return {name: value for name, value in held.items() if name != "shared.weight"} | {name: shared.clone() for name in names}

    tensors(folder, rename, "text_encoder/model.safetensors")
    settled = checkpoints.config(family, folder)
    import transformers

    network = load_module(settled.checkpoint, "text_encoder", getattr(transformers, dict(settled.components)["text_encoder"]))
    assert torch.equal(network.get_input_embeddings().weight, shared)
    assert torch.equal(network.encoder.embed_tokens.weight, shared)


@pytest.mark.parametrize("name", sorted(tiny_checkpoints()))
def test_what_is_known_of_networks_is_what_they_are(name: str) -> None:
    settled = checkpoints.config(name)
    known = {kind: network for kind, network in networks().items() if network.parts}
    for component, kind in settled.components:
        if kind in known and (name, component) != ("causal-wan", "transformer"):
            words = {tensor.split(".")[0] for tensor in weights_of(settled.checkpoint.path() / component).tensors()}
            assert known[kind].parts <= words <= known[kind].parts | known[kind].optional
