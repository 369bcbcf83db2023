"""`headrace models`: what a server offers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from headrace.cli import console, secure

if TYPE_CHECKING:
    from headrace.v1 import video_pb2 as wire


@secure.with_access
def models(
    context: typer.Context,
    address: Annotated[str, typer.Option(metavar="HOST:PORT", help="Server to ask.")] = console.DEFAULT_ADDRESS,
    access: secure.Access = secure.PLAIN,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")] = False,
) -> None:
    """List the models that a server offers, with their limits."""
    if context.invoked_subcommand is not None:
        return

    async def main() -> list[wire.Model]:
        async with access.client(address) as client:
            return await client.list_models()

    served = console.run(main, address)
    if as_json:
        print(json.dumps({"models": [describe(model) for model in served]}))
        return
    for model in served:
        facts = describe(model)
        print(f"{facts.pop('name')}{'  (default)' if facts.pop('default') else ''}\n  {facts.pop('description')}")
        for name, value in facts.items():
            print(f"  {name:<24}{', '.join(value) if isinstance(value, list) else value}")


def make_tiny(
    family: Annotated[str, typer.Argument(help="One of the families that come as checkpoints.")],
    folder: Annotated[Path, typer.Argument(help="Where to write; must be empty or new.")],
) -> None:
    """Write a small checkpoint with random weights, laid out as the family's real ones: for tests, without a network."""
    from model_core.families.registry import tiny_checkpoints
    from model_core.families.tiny import make_tiny as make

    if family not in (known := sorted(tiny_checkpoints())):
        raise typer.BadParameter(f"must be one of {', '.join(known)}; got {family[:64]!r}", param_hint="FAMILY")
    try:
        digest = make(family, folder)
    except OSError as error:
        raise typer.BadParameter(str(error), param_hint="FOLDER") from error
    print(f"{folder}\nsha256 {digest}")


def describe(model: wire.Model) -> dict[str, Any]:
    """A model as plain values, by the names of the wire."""
    from headrace.v1 import video_pb2 as pb

    return {
        "name": model.name,
        "default": model.default_model,
        "description": model.description,
        "fps": model.fps,
        "sizes": [f"{size.width}x{size.height}" for size in model.sizes],
        "frames_per_chunk": model.frames_per_chunk,
        "default_steps": model.default_steps,
        "min_steps": model.min_steps,
        "max_steps": model.max_steps,
        "default_guidance": model.default_guidance,
        "max_guidance": model.max_guidance,
        "default_negative_prompt": model.default_negative_prompt,
        "max_prompt_bytes": model.max_prompt_bytes,
        "max_prompt_tokens": model.max_prompt_tokens,
        "max_generate_seconds": model.max_generate_seconds,
        "max_stream_seconds": model.max_stream_seconds,
        "image": _footage(model, "image"),
        "video": _footage(model, "video"),
        "codecs": [pb.Codec.Name(codec).removeprefix("CODEC_").lower() for codec in model.codecs],
    }


def _footage(model: wire.Model, kind: Literal["image", "video"]) -> list[str]:
    """What the model takes of `kind`, as words."""
    if not model.HasField(kind):
        return ["none"]
    told: wire.FootageInput = getattr(model, kind)
    frames = [f"{told.min_frames} to {told.max_frames} frames"] if told.max_frames else []
    need = "required" if told.required else "optional"
    return [need, "/".join(told.formats), f"at most {told.max_bytes} bytes", f"{told.max_pixels} pixels", *frames]
