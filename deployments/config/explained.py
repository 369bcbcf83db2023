"""Says in words what a configuration would serve, and which settings an operator may not have meant. Starts nothing."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from deployments.config.addresses import is_loopback
from deployments.config.application import AppConfig
from deployments.config.names import ENHANCER_DEPLOYMENT, FRONT_DOOR, FUSED_DEPLOYMENT, STAGE_DEPLOYMENTS
from deployments.config.stages import RuntimeSettings
from model_core.stage import Stage

_AUTO_MOST = 100  # replicas, with `num_replicas: auto`


@dataclass(frozen=True, slots=True)
class DeploymentFacts:
    """How much of a deployment runs, and on what. `cpus`, `gpus` and `resources` are what Ray reserves for one replica."""

    name: str
    min_replicas: int
    max_replicas: int
    cpus: float
    gpus: float
    resources: Mapping[str, float]
    runtimes: tuple[str, ...]


def deployments(document: Mapping[str, Any], config: AppConfig) -> list[DeploymentFacts]:
    """The deployments of a document that `deployments.cluster.local.load` has accepted, in its order, with Serve's defaults filled in."""
    return [_facts(block, config) for block in document["applications"][0].get("deployments") or []]


def warnings(config: AppConfig, facts: list[DeploymentFacts]) -> Iterator[str]:
    """What an operator may not have meant, one sentence each: settings that Ray and Headrace accept."""
    yield from _of_the_front_door(config)
    if config.usage.events != "none" and not config.state.url:
        yield f"usage.events is {config.usage.events} and state.url is not set: without a database there is no usage to report"
    by_name = {each.name: each for each in facts}
    doors = by_name.get(FRONT_DOOR)
    if doors is not None and doors.max_replicas > 1 and not config.session_store.url:
        yield "several front doors without session_store.url: a session is resumed only at the front door that had it"
    for stage in (Stage.DENOISER, Stage.DECODER):
        found = by_name.get(STAGE_DEPLOYMENTS[stage])
        if found is not None and found.min_replicas == 0 and not config.scale_to_zero:
            yield f"{found.name} has min_replicas 0 and scale_to_zero is false: while it has no replica the server is NOT_SERVING"
    for each in facts:
        for device, reserved in (("cuda", each.gpus), ("neuron", sum(each.resources.values()))):
            if device in each.runtimes and not reserved:
                wanted = "num_gpus" if device == "cuda" else "resources: {neuron_cores: ...}"
                yield f"{each.name} runs on {device} and reserves none: set {wanted} in its ray_actor_options"


def _of_the_front_door(config: AppConfig) -> Iterator[str]:
    door = config.front_door
    if not is_loopback(door.host) and config.identity.insecure:
        yield f"identity.insecure is true and front_door.host {door.host} faces the network: anybody there can call"
    if not is_loopback(door.host) and door.tls is None:
        travels = "prompts, frames, API keys and resume tokens travel in clear"
        yield f"front_door.host {door.host} faces the network and tls is not set: {travels}"
    for name, path in () if door.tls is None else door.tls:
        if not os.access(path, os.R_OK):
            yield f"front_door.tls.{name} {path} cannot be read on this machine: it must be on every node that runs a front door"
    clients = config.identity.certificates
    if clients is not None and not os.access(clients.ca_file, os.R_OK):
        where = "it must be on every node that runs a front door"
        yield f"identity.certificates.ca_file {clients.ca_file} cannot be read on this machine: {where}"


def _facts(block: Mapping[str, Any], config: AppConfig) -> DeploymentFacts:
    options, scaling = block.get("ray_actor_options") or {}, block.get("autoscaling_config")
    auto = block.get("num_replicas") == "auto"
    fixed = block.get("num_replicas") or 1
    if auto or isinstance(scaling, Mapping):
        scaling = scaling or {}
        least, most = int(scaling.get("min_replicas", 1)), int(scaling.get("max_replicas", _AUTO_MOST if auto else 1))
    else:
        least = most = int(fixed)
    return DeploymentFacts(
        block["name"], least, most, _number(options, "num_cpus", 1.0), _number(options, "num_gpus", 0.0), options.get("resources") or {},
        tuple(dict.fromkeys(runtime.name for runtime in _runtimes(block["name"], config))),
    )  # fmt: skip


def _number(options: Mapping[str, Any], key: str, default: float) -> float:
    """Serve takes its default for a key without a value."""
    value = options.get(key)
    return default if value is None else float(value)


def _runtimes(name: str, config: AppConfig) -> tuple[RuntimeSettings, ...]:
    own = {
        STAGE_DEPLOYMENTS[Stage.TEXT_ENCODER]: (config.text_encoder.runtime,),
        STAGE_DEPLOYMENTS[Stage.DENOISER]: (config.engine.runtime,),
        STAGE_DEPLOYMENTS[Stage.DECODER]: (config.decoder.runtime,),
        ENHANCER_DEPLOYMENT: () if config.enhancer is None else (config.enhancer.runtime,),
    }
    return sum(own.values(), ()) if name == FUSED_DEPLOYMENT else own.get(name, ())
