"""Settings of a checkpoint's components: each has a value that its network takes, or is refused by its name."""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from model_core.errors import WeightsError
from model_core.families.checkpoints.loading import load_module
from model_core.families.checkpoints.shards import weights_of
from model_core.families.checkpoints.whole import component_settings
from model_core.families.common.solvers import SOLVERS, solving
from model_core.families.registry import kinds, networks, tiny_checkpoints
from model_core.families.wan.parts import image_shape
from tests import checkpoints

NETWORKS = networks()
CONFIGS = {
    "T5EncoderModel": transformers.T5Config,
    "UMT5EncoderModel": transformers.UMT5Config,
    "CLIPVisionModel": transformers.CLIPVisionConfig,
}
FLOW = {"prediction_type": "flow_prediction", "use_flow_sigmas": True}


def changed(folder: Path, name: str, **changes: Any) -> Path:
    path = folder / name
    held = {**json.loads(path.read_text()), **changes}
    path.write_text(json.dumps({key: value for key, value in held.items() if value is not ...}))
    return folder


def plain(value: object) -> object:
    return list(value) if isinstance(value, tuple) else value


@pytest.mark.parametrize("kind", sorted(NETWORKS))
def test_what_is_known_of_settings_is_what_the_libraries_declare(kind: str) -> None:
    told = {name: default for name, (_, default) in NETWORKS[kind].settings.items()}
    if kind in CONFIGS:
        made = CONFIGS[kind]()
        assert told == {name: getattr(made, name) for name in told}
    else:
        parameters = list(inspect.signature(getattr(diffusers, kind).__init__).parameters.values())[1:]
        assert told == {each.name: plain(each.default) for each in parameters}


@pytest.mark.parametrize("name", ["wan", "ltx", "cogvideox", "anyflow-far"])
def test_every_setting_of_another_type_is_refused_by_name(name: str, tmp_path: Path) -> None:
    folder = checkpoints.copied(name, tmp_path)
    for component, kind in checkpoints.config(name, folder).components:
        path = folder / component / "config.json"
        for key in NETWORKS[kind].settings if kind in NETWORKS else ():
            whole = path.read_text()
            wrongs: tuple[object, ...] = ({}, float("nan"))
            for wrong in wrongs:
                changed(folder, f"{component}/config.json", **{key: wrong})
                with pytest.raises(WeightsError, match=f"{component}.*{key}"):
                    checkpoints.config(name, folder)
                path.write_text(whole)


@pytest.mark.parametrize("name", sorted(set(tiny_checkpoints()) - {"causal-wan"}))
def test_shapes_that_follow_from_settings_are_those_of_the_weights(name: str) -> None:
    settled = checkpoints.config(name)
    for component, kind in settled.components:
        if kind in NETWORKS:
            held = weights_of(settled.checkpoint.path() / component).tensors()
            network = NETWORKS[kind]
            follow = network.shapes(component_settings(settled.checkpoint, component, network))
            assert follow
            assert {tensor: held[tensor].shape for tensor in follow if tensor in held} == {t: s for t, s in follow.items() if t in held}


@pytest.mark.parametrize(
    ("name", "file", "changes", "sentence"),
    [
        ("wan", "transformer/config.json", {"num_attention_heads": 3}, r"settings make .* of shape \[72"),
        ("wan", "transformer/config.json", {"ffn_dim": 128}, r"ffn.net.0.proj.weight of shape \[128, 48\]; it has shape \[64, 48\]"),
        ("wan", "transformer/config.json", {"patch_size": [1, 2]}, "patch_size must be three numbers"),
        ("wan", "transformer/config.json", {"patch_size": [2, 2, 2]}, "patch_size must be three numbers, of which the first is 1"),
        ("wan", "transformer/config.json", {"quantization": "fp8"}, "has quantization, a setting that WanTransformer3DModel does not know"),
        ("wan", "transformer/config.json", {"qk_norm": "rms_norm"}, "qk_norm must be rms_norm_across_heads; got 'rms_norm'"),
        ("wan", "vae/config.json", {"latents_mean": [0.5]}, "latents_mean must have 4 numbers, as z_dim says; got 1"),
        ("wan", "vae/config.json", {"out_channels": 4}, "out_channels must be 3, for red, green and blue; got 4"),
        ("wan", "vae/config.json", {"latents_std": [0, 1, 1, 1]}, "latents_std must be a list, each a number above 0"),
        ("wan", "text_encoder/config.json", {"vocab_size": 32128}, r"shared.weight of shape \[32128, 32\]"),
        ("wan", "model_index.json", {"expand_timesteps": "no"}, "expand_timesteps must be true or false; got 'no'"),
        ("wan", "model_index.json", {"transformer_2": "none"}, "transformer_2 must be a library and a class, or null; got 'none'"),
        (
            "wan",
            "model_index.json",
            {"scheduler": ["diffusers", "EulerDiscreteScheduler"]},
            "scheduler is a 'Euler.*config.json says 'UniPC",
        ),
        ("ltx", "transformer/config.json", {"patch_size": 2}, "patch_size must be 1; got 2"),
        ("ltx", "vae/config.json", {"spatio_temporal_scaling": [True] * 4}, "latents 64 times smaller .* frames 32 times larger"),
        ("cogvideox", "transformer/config.json", {"patch_size_t": 4}, "patch_size_t must be null or 1 or 2; got 4"),
        ("cogvideox", "vae/config.json", {"temporal_compression_ratio": 3}, "temporal_compression_ratio must be a power of 2; got 3"),
        ("ltx", "vae/config.json", {"layers_per_block": [1, 2, 1]}, "layers_per_block must be a list of 5, as block_out_channels says"),
        ("ltx", "vae/config.json", {"decoder_inject_noise": [True] * 4}, "decoder_inject_noise must be a list of 5, as decoder_block_out"),
        ("ltx", "vae/config.json", {"upsample_factor": [1, 1, 1, 1, 2]}, "upsample_factor must be a list of 4, as decoder_block_out"),
        (
            "ltx",
            "vae/config.json",
            {"down_block_types": ["DownBlock2D"] * 4},
            "down_block_types must be a list, each LTXVideoDown.* or LTX",
        ),
        ("ltx", "vae/config.json", {"layers_per_block": [1, 2, 1, 1, 1]}, r"layers_per_block makes 2 of encoder.down_blocks.1.resnets.\*"),
        ("ltx", "vae/config.json", {"decoder_layers_per_block": [1, 1, 1, 1, 3]}, r"makes 3 of decoder.mid_block.resnets.\*; there are 1"),
        ("cogvideox", "vae/config.json", {"down_block_types": ["CogVideoXDownBlock3D"] * 3}, "down_block_types must be a list of 4"),
        ("cogvideox", "vae/config.json", {"up_block_types": ["UpBlock"] * 4}, "up_block_types must be a list, each CogVideoXUpBlock3D"),
        ("cogvideox", "vae/config.json", {"norm_num_groups": 3}, "norm_num_groups must be a divisor of all block_out_channels"),
        ("cogvideox", "vae/config.json", {"layers_per_block": 3}, r"layers_per_block makes 3 of encoder.down_blocks.0.resnets.\*; .* 1"),
        ("wan", "vae/config.json", {"num_res_blocks": 2}, r"num_res_blocks makes 3 of decoder.up_blocks.0.resnets.\*; there are 2"),
        ("wan", "vae/config.json", {"is_residual": True}, r"is_residual makes 1 of encoder.down_blocks.0.resnets.\*; there are 0"),
        ("wan-2.2-5b", "vae/config.json", {"is_residual": False}, r"is_residual makes 0 of encoder.down_blocks.0.resnets.\*; there are 1"),
        ("wan-image", "image_encoder/config.json", {"image_size": "28"}, "image_encoder.*image_size must be a whole number from 1 on"),
        ("wan-image", "image_encoder/config.json", {"image_size": ...}, "crop_size must be 224 high and wide, as .* has image_size"),
        ("wan-image", "image_encoder/config.json", {"hidden_size": ...}, "hidden_size 768; transformer/config.json has image_dim 32"),
        ("wan-image", "image_encoder/config.json", {"num_attention_heads": 3}, "hidden_size must be a multiple of num_attention_heads, 3"),
        ("wan-image", "image_encoder/config.json", {"patch_size": 7}, r"embeddings.patch_embedding.weight of shape \[32, 3, 7, 7\]"),
        ("wan-image", "image_encoder/config.json", {"patch_size": 56}, "image_size must be at least patch_size, 56; got 28"),
        ("wan-image", "image_encoder/config.json", {"model_type": "clip"}, "model_type 'clip', expected 'clip_vision_model'"),
        ("wan-image", "image_encoder/config.json", {"num_hidden_layers": 5}, "num_hidden_layers makes 5 of encoder.layers"),
        ("wan-image", "image_processor/preprocessor_config.json", {"crop_size": {"height": 14, "width": 28}}, "crop_size must be 28 high"),
        ("wan-image", "image_processor/preprocessor_config.json", {"do_center_crop": False}, "size must be 28 high and wide"),
        ("wan-image", "image_processor/preprocessor_config.json", {"do_resize": "no"}, "do_resize must be true or false; got 'no'"),
        ("wan-image", "model_index.json", {"image_processor": None}, "names image_encoder, but no image_processor"),
        ("causal-wan", "model_index.json", {"timestep_shift": float("nan")}, "timestep_shift in model_index.json must be a number"),
    ],
)
def test_a_setting_that_does_not_fit_is_refused(name: str, file: str, changes: dict[str, Any], sentence: str, tmp_path: Path) -> None:
    folder = changed(checkpoints.copied(name, tmp_path), file, **changes)
    with pytest.raises(WeightsError, match=sentence):
        checkpoints.config(name, folder)


@pytest.mark.parametrize("names", ["", "vision_model."])
def test_an_image_encoder_may_have_its_names_with_the_prefix_of_earlier_releases(names: str, tmp_path: Path) -> None:
    folder = checkpoints.copied("wan-image", tmp_path)
    path = folder / "image_encoder/model.safetensors"
    save_file({names + name: tensor for name, tensor in load_file(path).items()}, path, metadata={"format": "pt"})
    changed(folder, "image_processor/preprocessor_config.json", crop_size=28)
    settled = checkpoints.config("wan-image", folder)
    assert image_shape(settled) == (5, 32)
    network = load_module(settled.checkpoint, "image_encoder", transformers.CLIPVisionModel)
    expected = load_file(checkpoints.folder("wan-image") / "image_encoder/model.safetensors")
    assert all(torch.equal(tensor, expected[name]) for name, tensor in network.state_dict().items() if name in expected)


def test_a_list_that_is_longer_than_needed_and_all_alike_is_taken(tmp_path: Path) -> None:
    folder = changed(checkpoints.copied("ltx", tmp_path), "vae/config.json", upsample_factor=[1] * 9, layers_per_block=[1] * 9)
    assert checkpoints.config("ltx", folder).family == "ltx"


def test_an_autoencoder_that_says_how_small_latents_are_is_believed(tmp_path: Path) -> None:
    """LTX-Video 0.9.5 has four scalings, of which some halve time or space alone."""
    ratios = {"spatial_compression_ratio": 32, "temporal_compression_ratio": 8}
    folder = changed(checkpoints.copied("ltx", tmp_path), "vae/config.json", spatio_temporal_scaling=[True] * 4, **ratios)
    settled = checkpoints.config("ltx", folder)
    assert (settled.factor, settled.grid.factor) == (32, 8)


@pytest.mark.parametrize(
    ("family", "name", "settings", "sentence"),
    [
        ("wan", "UniPCMultistepScheduler", {"solver_type": "bh1"}, "solver_type must be 'bh2' or .*; got 'bh1'"),
        ("wan", "UniPCMultistepScheduler", {"predict_x0": False}, "predict_x0 must be true with UniPC.* for wan; got false"),
        ("wan", "UniPCMultistepScheduler", {"lower_order_final": False}, "lower_order_final must be true"),
        ("wan", "UniPCMultistepScheduler", {"use_beta_sigmas": True}, "use_beta_sigmas must be false"),
        ("wan", "UniPCMultistepScheduler", {"flow_shift": 0}, "flow_shift must be a number above 0; got 0"),
        ("wan", "UniPCMultistepScheduler", {"use_karras_sigmas": "no"}, "use_karras_sigmas must be true or false; got 'no'"),
        ("wan", "UniPCMultistepScheduler", {"timestep_spacing": "even"}, "timestep_spacing must be one of linspace, leading, trailing"),
        ("wan", "DPMSolverMultistepScheduler", {"use_karras_sigmas": True}, "use_karras_sigmas must be false"),
        ("wan", "DPMSolverMultistepScheduler", {"algorithm_type": "dpmsolver"}, r"algorithm_type must be 'dpmsolver\+\+' or 'sde-"),
        ("wan", "DEISMultistepScheduler", {"use_exponential_sigmas": True}, "use_exponential_sigmas must be false"),
        ("wan", "FlowMatchEulerDiscreteScheduler", {"shift": 0}, "shift must be a number above 0"),
        ("wan", "FlowMatchEulerDiscreteScheduler", {"num_train_timesteps": 10}, "num_train_timesteps must be at least 100"),
        ("ltx", "FlowMatchEulerDiscreteScheduler", {"max_image_seq_len": 256}, "max_image_seq_len must be above base_image_seq_len, 256"),
        ("wan", "FlowMatchEulerDiscreteScheduler", {"flow_shift": 3.0}, "flow_shift must be left out or equal to shift, 1, which is what"),
        ("wan", "UniPCMultistepScheduler", {"shift": 5.0}, "shift must be left out or equal to flow_shift, 1, which is what UniPC.* reads"),
        ("ltx", "FlowMatchEulerDiscreteScheduler", {"base_shift": None}, "base_shift must be a number with"),
        ("cogvideox", "DDIMScheduler", {"beta_end": 1.0}, "beta_end must be at least beta_start, 0.0001, and below 1"),
        ("cogvideox", "DDIMScheduler", {"trained_betas": [0.1]}, "trained_betas must be null"),
        ("cogvideox", "HeunDiscreteScheduler", {"beta_schedule": "squaredcos_cap_v2"}, "beta_schedule must be 'linear' or 'scaled"),
        ("cogvideox", "EulerDiscreteScheduler", {"prediction_type": "sample"}, "prediction_type must be 'v_prediction' or 'epsilon'"),
        ("cogvideox", "LCMScheduler", {"original_inference_steps": 2000}, "original_inference_steps must be at most num_train_"),
    ],
)
def test_options_of_schedules_that_make_no_clip_are_refused(family: str, name: str, settings: dict[str, Any], sentence: str) -> None:
    told = FLOW if family == "wan" and SOLVERS[name].told else {}
    solved = kinds()[family].solved
    assert solved is not None
    solving(family, solved, {"_class_name": name, **told})
    with pytest.raises(WeightsError, match=sentence):
        solving(family, solved, {"_class_name": name, **told, **settings})


def test_a_request_may_not_ask_for_more_steps_than_a_distilled_schedule_has(tmp_path: Path) -> None:
    folder = checkpoints.copied("cogvideox", tmp_path)
    (folder / "scheduler/scheduler_config.json").write_text(json.dumps({"_class_name": "LCMScheduler", "original_inference_steps": 20}))
    changed(folder, "model_index.json", scheduler=["diffusers", "LCMScheduler"])
    assert checkpoints.config("cogvideox", folder, steps=4).max_steps == 20
    with pytest.raises(WeightsError, match="steps must be at most 20, which its LCMScheduler has; got 50"):
        checkpoints.config("cogvideox", folder, steps=50)
