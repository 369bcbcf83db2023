"""The names of the application and of its deployments."""

from __future__ import annotations

from model_core.stage import Stage

APP_NAME = "headrace"
FRONT_DOOR = "FrontDoor"
FUSED_DEPLOYMENT = "FusedPipeline"
ENHANCER_DEPLOYMENT = "Enhancer"  # of an application whose `args` have an enhancer

_OF_THE_DEFAULT_MODEL = {Stage.TEXT_ENCODER: "TextEncoder", Stage.DENOISER: "Denoiser", Stage.DECODER: "Decoder"}


def deployment_name(stage: Stage, model: str = "") -> str:
    """The deployment that runs `stage` of `model`; without one, of the application's default model.

    The default model's deployments have no model in their names, so `serve.yaml` need not change with the model. Serve refuses `#` in a
    name, and so does this.

    Raises:
        ValueError: `model` holds a `#` or an `@`.
    """
    if set(model) & set("#@"):
        raise ValueError(f"the name of a model must be without # and @; got {model!r}")
    bare = _OF_THE_DEFAULT_MODEL[stage]
    return f"{bare}@{model}" if model else bare


STAGE_DEPLOYMENTS = {stage: deployment_name(stage) for stage in Stage}
