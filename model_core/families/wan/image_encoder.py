"""Whether a checkpoint's image encoder fits its transformer and its image processor, as their settings say. Without torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from model_core.errors import WeightsError
from model_core.families.checkpoints.checkpoint import Checkpoint
from model_core.families.checkpoints.networks import Network, Shape, settled
from model_core.families.checkpoints.settings import COUNT, POSITIVE, TEXT

_TYPE = "clip_vision_model"
_WHERE, _PROCESSOR = "image_encoder/config.json", "image_processor/preprocessor_config.json"
_CROP = 224  # what CLIP's processor cuts to where its file does not say


def _shapes(settings: Mapping[str, Any]) -> dict[str, Shape]:
    width, patch = settings["hidden_size"], settings["patch_size"]
    return {
        "embeddings.patch_embedding.weight": (width, settings["num_channels"], patch, patch),
        "embeddings.position_embedding.weight": ((settings["image_size"] // patch) ** 2 + 1, width),
        "encoder.layers.0.mlp.fc1.weight": (settings["intermediate_size"], width),
    }


def _counts(settings: Mapping[str, Any]) -> dict[str, tuple[int, str]]:
    return {"encoder.layers.": (settings["num_hidden_layers"], "num_hidden_layers")}


CLIP = Network(
    name="CLIPVisionModel", open=True, earlier="vision_model.", shapes=_shapes, counts=_counts,
    settings={
        "hidden_size": (COUNT, 768), "intermediate_size": (COUNT, 3072), "num_hidden_layers": (COUNT, 12),
        "num_attention_heads": (COUNT, 12), "num_channels": (COUNT, 3), "image_size": (COUNT, 224), "patch_size": (COUNT, 32),
        "layer_norm_eps": (POSITIVE, 1e-5), "hidden_act": (TEXT, "quick_gelu"),
    },
)  # fmt: skip


def encoder_settings(checkpoint: Checkpoint) -> dict[str, Any]:
    """The image encoder's settings, with what its file leaves out.

    Raises:
        WeightsError: it is another network, or has a value that the network does not take.
    """
    given = checkpoint.settings("image_encoder")
    if given.get("model_type", _TYPE) != _TYPE:
        raise WeightsError(f"{_WHERE} has model_type {str(given['model_type'])[:64]!r}, expected {_TYPE!r} for a {CLIP.name}")
    settings = settled(CLIP, given, _WHERE)
    for name, of in (("hidden_size", "num_attention_heads"), ("image_size", "patch_size")):
        if settings[name] < settings[of] or (name == "hidden_size" and settings[name] % settings[of]):
            what = "a multiple of" if name == "hidden_size" else "at least"
            raise WeightsError(f"{_WHERE}: {name} must be {what} {of}, {settings[of]}; got {settings[name]}")
    return settings


def check_eye(checkpoint: Checkpoint, component: str) -> None:
    """Check that a transformer of Wan's kind attends to an image where the checkpoint has an encoder for it, and that the two fit.

    Raises:
        WeightsError: one of the two is missing, or they do not fit.
    """
    eye, image_dim = checkpoint.names("image_encoder"), checkpoint.settings(component).get("image_dim")
    if eye != (image_dim is not None):
        raise WeightsError(
            f"{component}/config.json has image_dim {image_dim}, and model_index.json names {'an' if eye else 'no'} image_encoder: "
            "they go together"
        )
    if eye and image_dim is not None:
        check_image_encoder(checkpoint, image_dim)


def check_image_encoder(checkpoint: Checkpoint, image_dim: int) -> None:
    """Check that the encoder sees images as large as the processor makes them, and that the transformer takes features as wide as its own.

    Raises:
        WeightsError: they do not fit, or the processor is missing.
    """
    settings = encoder_settings(checkpoint)
    if settings["hidden_size"] != image_dim:
        raise WeightsError(f"{_WHERE} has hidden_size {settings['hidden_size']}; transformer/config.json has image_dim {image_dim}")
    if not checkpoint.names("image_processor"):
        raise WeightsError("model_index.json names image_encoder, but no image_processor that makes its images: one of two is missing")
    processor, must = checkpoint.settings("image_processor"), settings["image_size"]
    for name in ("do_center_crop", "do_resize", "do_rescale", "do_normalize"):
        if not isinstance(processor.get(name), bool | None):
            raise WeightsError(f"{_PROCESSOR}: {name} must be true or false; got {str(processor[name])[:64]!r}")
    cut = "size" if processor.get("do_center_crop") is False else "crop_size"
    found = processor.get(cut, _CROP if cut == "crop_size" else None)
    sides = [found.get("height"), found.get("width")] if isinstance(found, dict) else [found, found]
    if sides != [must, must]:
        raise WeightsError(f"{_PROCESSOR}: {cut} must be {must} high and wide, as {_WHERE} has image_size; got {str(found)[:64]}")
