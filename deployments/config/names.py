"""The names of the application and of its deployments."""

from __future__ import annotations

from autoscaling.scaling import Stage

APP_NAME = "headrace"
FRONT_DOOR = "FrontDoor"
FUSED_DEPLOYMENT = "FusedPipeline"
STAGE_DEPLOYMENTS = {Stage.TEXT_ENCODER: "TextEncoder", Stage.DENOISER: "Denoiser", Stage.DECODER: "Decoder"}
