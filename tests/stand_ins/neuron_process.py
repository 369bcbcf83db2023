"""A denoise replica's process on a Trainium that is not there; prints what it saw as JSON. Run it with this folder on the path."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import replace
from typing import Any

from model_core.config import Execution, RuntimeConfig
from model_core.runtimes.environment import set_environment

RUNTIME = RuntimeConfig(name="neuron", dtype="bfloat16", compiled=True, target="trn2", cores=2, cache=sys.argv[1])


def main() -> dict[str, Any]:
    """Environment, sampler, one step and one commit, one refusal."""
    set_environment([RUNTIME], os.environ)
    torch_before = "torch" in sys.modules
    import torch
    import torch_neuronx  # type: ignore[import-not-found]  # as `import torch` does where the real one is installed
    from torch._subclasses.fake_tensor import FakeTensorMode

    from model_core.errors import ShapeNotServed
    from model_core.families.millrace.parts import MillraceSampler
    from tests.models import SMALL_DIT, random_context, small_config

    config = replace(small_config(), execution=Execution(denoiser=RUNTIME))
    context = replace(random_context("a stand-in", config), next_chunk=1)
    with FakeTensorMode(), torch.inference_mode():
        sampler = MillraceSampler(_network(SMALL_DIT), config, (1, 2))
        leg = sampler.open(context)
        sampler.start(leg, 1)
        sampler.step([leg, leg])
        sampler.commit([leg])
        waits = len(torch_neuronx.WAITS)
        compiled = list(torch_neuronx.COMPILED)
        try:
            sampler._program.run("commit", torch.zeros(3, 4, 2, 8, 8, device="neuron"))  # noqa: SLF001  past the padding of `commit`
            refusal = ""
        except ShapeNotServed as error:
            refusal = str(error)
    seen = {
        "torch_before": torch_before,
        "environment": {name: torch_neuronx.ENVIRONMENT.get(name) for name in ("TORCH_NEURONX_NEFF_CACHE_DIR", "NEURON_LOGICAL_NC_CONFIG")},
        "accelerator": str(torch.accelerator.current_accelerator()),
        "devices": sorted({str(t.device) for t in (leg.x_t, leg.steps.blocks, leg.window[0][0].key, leg.text.pooled)}),
        "types": [str(leg.x_t.dtype), str(leg.window[0][0].key.dtype)],
        "waits": waits,
        "graphs": len(compiled),
        "options": len({identity for identity, _ in compiled}),
        "fallback": [options["fallback_execution"] for _, options in compiled],
        "refusal": refusal,
        "compiled_while_serving": len(torch_neuronx.COMPILED) - len(compiled),
    }
    return seen | {"wan": _wan()}


def _wan() -> dict[str, list[str]]:
    """By graph of a checkpoint family, where its outputs stand; each has run once more after it was warm."""
    import torch
    from diffusers import AutoencoderKLWan, WanTransformer3DModel
    from torch._subclasses.fake_tensor import FakeTensorMode
    from torch.utils import _pytree as pytree

    from model_core.families.wan.parts import WanGraph, denoiser_graphs
    from model_core.families.wan.vae import WanDecoder, wan_decoder_graphs
    from model_core.runtimes.neuron import NeuronRuntime
    from tests import checkpoints

    config = checkpoints.config("wan")
    transformer, vae = (config.checkpoint.settings(part) for part in ("transformer", "vae"))
    with FakeTensorMode(), torch.inference_mode():
        torch.set_default_dtype(torch.bfloat16)
        with torch.device("neuron"):
            network = WanGraph(WanTransformer3DModel.from_config(transformer), config).requires_grad_(requires_grad=False)
            decoder = WanDecoder(AutoencoderKLWan.from_config(vae)).requires_grad_(requires_grad=False)
        torch.set_default_dtype(torch.float32)
        seen = {}
        for graphs in (denoiser_graphs([network], config, (1, 2)), wan_decoder_graphs(decoder, config)):
            program = NeuronRuntime(RUNTIME).load(graphs)
            for graph in graphs:
                ticket = program.run(graph.name, *program.put(graph.inputs(torch.bfloat16)))
                seen[graph.key] = sorted({str(leaf.device) for leaf in pytree.tree_leaves(ticket.state)})
    return seen


def _network(config: Any) -> Any:
    """Made on the device in its type: fake weights cannot be moved."""
    import torch

    from model_core.nn.causal_dit import CausalDiT

    torch.set_default_dtype(torch.bfloat16)
    with torch.device("neuron"):
        network = CausalDiT(config).requires_grad_(requires_grad=False)
    torch.set_default_dtype(torch.float32)
    network.rotary_cos, network.rotary_sin = network.rotary_cos.bfloat16(), network.rotary_sin.bfloat16()
    return network


if __name__ == "__main__":
    print(json.dumps(main()))  # noqa: T201  for the test that started it
