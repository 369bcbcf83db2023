"""The application: which deployments there are and who calls whom. The only `.bind()` calls stand here.

No `from __future__ import annotations` in this file: Ray validates the arguments of `build` only if the annotation is the class itself.
"""

from collections.abc import Callable
from typing import Any

import ray
from ray import serve
from ray.serve import Application
from ray.serve.config import RequestRouterConfig

from deployments.cluster.exposure import check_token
from deployments.config.application import AppConfig
from deployments.config.names import ENHANCER_DEPLOYMENT, FRONT_DOOR, FUSED_DEPLOYMENT, STAGE_DEPLOYMENTS
from deployments.replicas.front_door import FrontDoorReplica
from deployments.replicas.stages import DecoderReplica, DenoiserReplica, EnhancerReplica, FusedReplica, TextEncoderReplica
from model_core.stage import Stage

# Health probes and statistics are calls too; they must get through when every slot is taken.
_SPARE_CALLS = 16
# A stage that stops waits for its streams a little longer than the front door takes to end them.
_STOP_MARGIN_S = 2.0

# Of an enhancer that `serve.yaml` has no block for: one while somebody asks, none otherwise, beside the shipped ones on two cores.
_WHEN_ASKED = {"min_replicas": 0, "max_replicas": 1, "upscale_delay_s": 0, "downscale_delay_s": 60}
_ENHANCER_CPUS = 0.5

# How often a replica says how many sessions it can serve; that changes slowly.
_ROUTING_STATS_EVERY_S = 2.0


def build(args: AppConfig) -> Application:
    """The Serve application for `args`. What `serve.yaml` states for a deployment overrides what is set here.

    Raises:
        RuntimeError: the Ray cluster asks nobody for a token and others than this machine can reach it.
    """
    if ray.is_initialized():
        for host in args.front_door.hosts().values():
            check_token(host)
    enhancers = []
    match args.mode:
        case "staged":
            text_encoder = _deployment(TextEncoderReplica, STAGE_DEPLOYMENTS[Stage.TEXT_ENCODER], args, args.text_encoder.max_prompts).bind(
                args
            )
            denoiser = _deployment(DenoiserReplica, STAGE_DEPLOYMENTS[Stage.DENOISER], args, args.engine.slots).bind(args)
            decoder = _deployment(DecoderReplica, STAGE_DEPLOYMENTS[Stage.DECODER], args, args.decoder.slots).bind(args, denoiser)
            if args.enhancer is not None:
                made = _deployment(EnhancerReplica, ENHANCER_DEPLOYMENT, args, args.enhancer.slots)
                made = made.options(autoscaling_config=_WHEN_ASKED, ray_actor_options={"num_cpus": _ENHANCER_CPUS})
                enhancers = [made.bind(args, decoder)]
        case "fused":
            text_encoder = denoiser = decoder = _deployment(
                FusedReplica, FUSED_DEPLOYMENT, args, args.engine.slots + args.text_encoder.max_prompts
            ).bind(args)
            enhancers = [] if args.enhancer is None else [decoder]
    stages = (text_encoder, denoiser, decoder, *enhancers)
    return _deployment(FrontDoorReplica, FRONT_DOOR, args, args.front_door.watch.max_relays).bind(args, *stages)


def _deployment(shell: Callable[..., Any], name: str, args: AppConfig, slots: int) -> serve.Deployment:
    return serve.deployment(
        name=name,
        max_ongoing_requests=slots + _SPARE_CALLS,
        health_check_period_s=1.0,
        health_check_timeout_s=10.0,
        graceful_shutdown_timeout_s=args.front_door.drain_seconds + _STOP_MARGIN_S,
        graceful_shutdown_wait_loop_s=0.2,
        request_router_config=RequestRouterConfig.model_validate(
            {"request_router_class": "deployments.links.routing:AskingRouter", "request_routing_stats_period_s": _ROUTING_STATS_EVERY_S}
        ),
    )(shell)
