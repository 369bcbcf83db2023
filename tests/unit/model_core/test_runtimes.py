"""What runs a stage's graphs: the CPU here, Trainium by stand-ins, and what each refuses."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn

from deployments.config.application import AppConfig
from deployments.config.stages import RuntimeSettings
from model_core.config import EngineConfig, Execution, RuntimeConfig
from model_core.errors import RuntimeUnavailable, ShapeNotServed
from model_core.families.millrace.parts import MillracePainter
from model_core.fingerprint import model_fingerprint
from model_core.graphs import DENOISER, Bucket, GraphSpec
from model_core.nn.graphs import causal_denoiser_graphs
from model_core.presets import millrace_64
from model_core.runtimes.cpu import CpuRuntime
from model_core.runtimes.environment import core_count, set_environment
from model_core.runtimes.interface import Capabilities
from model_core.runtimes.load import load_program, make_runtime
from model_core.runtimes.manifest import CompiledGraph, Manifest, manifest_path, versions
from model_core.runtimes.neuron import NeuronRuntime
from model_core.runtimes.program import CompiledProgram
from model_core.weights import load_vae
from tests.models import Collector, make, new_engine, random_context, random_dit, small_config

ROOT = Path(__file__).parents[3]
NEURON = RuntimeConfig(name="neuron", dtype="bfloat16", compiled=True, target="trn2", cores=2, cache="/shared/neff")
NEURON_ENVIRONMENT = {
    "TORCH_NEURONX_NEFF_CACHE_DIR": "/shared/neff/neff", "TORCH_NEURONX_DISABLE_FALLBACK_EXECUTION": "1",
    "NEURON_LOGICAL_NC_CONFIG": "2", "NEURON_RT_VISIBLE_CORES": "4,5",
}  # fmt: skip


class Toy(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def graph(self, x: Tensor) -> Tensor:
        return torch.tanh(self.layer(x.to(self.layer.weight.dtype)))


def _ones(rows: int, _: torch.dtype) -> tuple[Tensor]:
    return (torch.ones(rows, 4),)


def toy_graphs() -> list[GraphSpec]:
    network = Toy().requires_grad_(requires_grad=False)
    return [GraphSpec(DENOISER, "toy", Bucket(rows), network, "graph", partial(_ones, rows)) for rows in (1, 2)]


# -- CPU ----------------------------------------------------------------------------------------------------------------------


def compiled_toys(graphs: list[GraphSpec]) -> CompiledProgram:
    """Traced and guarded as any compiled graph; without Inductor, whose C++ compiler would take most of a minute."""
    where = Capabilities(torch.device("cpu"), torch.float32, compiled=True, asynchronous=False)
    return CompiledProgram(graphs, where, lambda call: torch.compile(call, fullgraph=True, dynamic=False, backend="eager"), RuntimeConfig())


@torch.inference_mode()
def test_a_compiled_program_refuses_every_shape_that_is_not_warm() -> None:
    compiled = compiled_toys(toy_graphs())
    for rows in (1, 2):
        assert compiled.run("toy", torch.randn(rows, 4)).result().shape == (rows, 4)
    with pytest.raises(ShapeNotServed, match=r"'toy' is compiled for shapes .*, not for \[\(\(3, 4\), torch.float32\)\]"):
        compiled.run("toy", torch.ones(3, 4))
    with pytest.raises(ShapeNotServed, match=r"torch.float64"):
        compiled.run("toy", torch.ones(2, 4, dtype=torch.float64))


class Pair(nn.Module):
    def graph(self, both: tuple[Tensor, Tensor]) -> Tensor:
        return both[0] + 2 * both[1]


def _the_same_twice(_: torch.dtype) -> tuple[tuple[Tensor, Tensor]]:
    return ((same := torch.zeros(1, 4), same),)


@torch.inference_mode()
def test_that_examples_share_a_tensor_is_no_rule_for_what_is_served() -> None:
    compiled = compiled_toys([GraphSpec(DENOISER, "pair", Bucket(1), Pair(), "graph", _the_same_twice)])
    assert compiled.run("pair", (torch.ones(1, 4), torch.full((1, 4), 3.0))).result().tolist() == [[7.0] * 4]


@torch.inference_mode()
def test_what_the_shapes_do_not_show_is_refused_by_the_compiler() -> None:
    """Views are made plain; weights that changed their shape behind the program's back are another graph."""
    graphs = toy_graphs()
    compiled = compiled_toys(graphs)
    assert compiled.run("toy", torch.ones(1, 4).expand(2, 4)).result().shape == (2, 4)
    assert compiled.run("toy", torch.ones(2, 8).view(2, 2, 4)[:1, 1]).result().shape == (1, 4)  # its first stride is 8
    graphs[0].network.layer = nn.Linear(4, 5)
    with pytest.raises(RuntimeError, match="fail_on_recompile"):
        compiled.run("toy", torch.ones(2, 4))


@torch.inference_mode()
def test_a_program_that_is_not_compiled_leaves_the_compiler_alone() -> None:
    where = Capabilities(torch.device("cpu"), torch.float32, compiled=False, asynchronous=False)
    CompiledProgram(toy_graphs(), where, lambda call: call, RuntimeConfig()).run("toy", torch.ones(1, 4))
    elsewhere = torch.compile(lambda x: x + 1, backend="eager")
    assert torch.equal(elsewhere(torch.zeros(2)), torch.ones(2))


@torch.inference_mode()
def test_an_eager_program_is_a_plain_call() -> None:
    graphs = toy_graphs()
    program = CpuRuntime(RuntimeConfig()).load(graphs)
    x = torch.ones(3, 4)
    assert program.put(x) is x
    assert program.fetch(x) is x
    assert torch.equal(program.run("toy", x).result(), graphs[0].module()(x))


@pytest.mark.parametrize(
    "runtime",
    [RuntimeConfig(dtype="bfloat16"), RuntimeConfig(weights="int8"), RuntimeConfig(weights="fp8")],
    ids=["bfloat16", "int8", "fp8"],
)
def test_with_fewer_bits_latents_are_close_and_rows_still_do_not_mix(runtime: RuntimeConfig) -> None:
    plain = small_config()
    config = replace(plain, execution=Execution(denoiser=runtime))
    context = random_context("in fewer bits", config, chunks=2)
    exact = make(new_engine(random_dit(), plain, EngineConfig(batch_buckets=(1,))), context)
    engine = new_engine(random_dit(), config, EngineConfig(batch_buckets=(1, 3)))
    alone = make(engine, context)
    collector = Collector(engine)
    together = [collector.open(c) for c in (context, random_context("a", config, chunks=2), random_context("b", config, chunks=2))]
    collector.run()
    for a, b, c in zip(exact, alone, collector.latents(together[0]), strict=True):
        assert b.dtype == np.float32
        assert np.abs(a - b).max() > 0
        assert (a * b).sum() / np.sqrt((a * a).sum() * (b * b).sum()) > 0.99
        assert np.array_equal(b, c)


def test_what_changes_frames_changes_the_fingerprint_and_nothing_else_does() -> None:
    config = small_config()

    def fingerprint(runtime: RuntimeConfig) -> str:
        return model_fingerprint(replace(config, execution=Execution(denoiser=runtime)))

    plain = fingerprint(RuntimeConfig())
    assert plain == model_fingerprint(config) == fingerprint(RuntimeConfig(cache="/somewhere", require_warm=True))
    others = {
        fingerprint(r)
        for r in (
            RuntimeConfig(dtype="bfloat16"),
            RuntimeConfig(compiled=True),
            RuntimeConfig(name="cuda"),
            RuntimeConfig(weights="int8"),
            RuntimeConfig(weights="fp8"),
            RuntimeConfig(channels_last=True),
            RuntimeConfig(ranks=2),
            NEURON,
        )
    }
    assert len(others | {plain}) == 9


@torch.inference_mode()
def test_a_decoder_whose_channels_are_last_draws_the_same_but_for_rounding() -> None:
    config = millrace_64()
    last = replace(config, execution=Execution(decoder=RuntimeConfig(channels_last=True)))
    latents = np.random.default_rng(2).standard_normal(config.latent_shape(0), np.float32)
    painters = [MillracePainter(load_vae(config), settings) for settings in (config, last)]
    plain, other = (painter.paint(latents, painter.fresh())[0].astype(int) for painter in painters)
    assert next(painters[1]._vae.decoder.parameters()).is_contiguous(memory_format=torch.channels_last)  # noqa: SLF001
    assert np.abs(plain - other).max() <= 1


@pytest.mark.gpu
def test_on_an_nvidia_gpu_latents_are_those_of_the_cpu_but_for_rounding() -> None:
    if not torch.cuda.is_available():
        pytest.skip("needs an NVIDIA GPU")
    assert_close_to_the_cpu(RuntimeConfig(name="cuda"), 0.9999)
    assert_close_to_the_cpu(RuntimeConfig(name="cuda", dtype="bfloat16"), 0.99)


@pytest.mark.neuron
def test_on_trainium_latents_are_those_of_the_cpu_but_for_rounding() -> None:
    if find_spec("torch_neuronx") is None:
        pytest.skip("needs an AWS Trainium device and its packages")
    cores = core_count(os.environ.get("NEURON_RT_VISIBLE_CORES", "0"))
    cache = os.environ.get("TORCH_NEURONX_NEFF_CACHE_DIR", "/neff").removesuffix("/neff")
    assert_close_to_the_cpu(replace(NEURON, cores=cores, cache=cache), 0.99)


def assert_close_to_the_cpu(runtime: RuntimeConfig, cosine: float) -> None:
    """Of three chunks, two sessions at once."""
    made = []
    for execution in (Execution(), Execution(denoiser=runtime)):
        config = replace(small_config(), execution=execution)
        collector = Collector(new_engine(random_dit(), config, EngineConfig(batch_buckets=(1, 2))))
        sessions = [collector.open(random_context(name, config, chunks=3)) for name in ("one", "two")]
        collector.run()
        made.append(np.concatenate([np.stack(collector.latents(session)) for session in sessions]))
    a, b = made
    assert (a * b).sum() / np.sqrt((a * a).sum() * (b * b).sum()) > cosine


# -- manifest -----------------------------------------------------------------------------------------------------------------


def manifest(folder: Path, **changes: object) -> Path:
    runtime = RuntimeConfig(compiled=True, cache=str(folder), require_warm=True)
    keys = [graph.key for graph in causal_denoiser_graphs(random_dit(), small_config(), (1,))]
    values = {
        "fingerprint": model_fingerprint(replace(small_config(), execution=Execution(denoiser=runtime))), "runtime": repr(runtime),
        "versions": versions(), "graphs": tuple(CompiledGraph(key, "0" * 64, 1.0) for key in keys),
    }  # fmt: skip
    path = manifest_path(folder, DENOISER, runtime, versions())
    Manifest(**(values | changes)).write(path)  # type: ignore[arg-type]
    return path


def start(folder: Path) -> None:
    """As a replica: only what the manifest has to do with."""
    runtime = RuntimeConfig(compiled=True, cache=str(folder), require_warm=True)
    config = replace(small_config(), execution=Execution(denoiser=runtime))
    load_program(config, causal_denoiser_graphs(random_dit(), config, (1,)))


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"fingerprint": "another"}, "was written for model another"),
        ({"versions": {"torch": "1.0"}}, "was written for versions"),
        ({"runtime": "another"}, "was written for runtime another"),
        ({"graphs": ()}, "lacks denoiser/condition"),
        ({"graphs": (CompiledGraph("denoiser/condition/rows1-tokens32", "", None),)}, "lacks denoiser/condition"),  # from a dry run
    ],
)
def test_a_replica_that_must_be_warm_does_not_start_on_another_manifest(tmp_path: Path, changes: dict[str, object], sentence: str) -> None:
    manifest(tmp_path, **changes)
    with pytest.raises(RuntimeUnavailable, match=sentence):
        start(tmp_path)


def test_nor_without_one_nor_on_a_damaged_one(tmp_path: Path) -> None:
    with pytest.raises(RuntimeUnavailable, match=r"no manifest of compiled graphs at .*: run `headrace compile`"):
        start(tmp_path)
    manifest(tmp_path).write_text("{")
    with pytest.raises(RuntimeUnavailable, match="is no manifest"):
        start(tmp_path)


# -- Trainium, by stand-ins ---------------------------------------------------------------------------------------------------


@pytest.mark.timeout(900)
def test_a_replica_on_neuron_sets_its_environment_first_keeps_to_the_device_and_never_compiles_while_it_serves(tmp_path: Path) -> None:
    """The device is a fake, without kernels: this shows shapes, types, places and order, not values."""
    stand_ins = ROOT / "tests" / "stand_ins"
    environment = os.environ | {
        "PYTHONPATH": f"{stand_ins}:{ROOT}", "NEURON_RT_VISIBLE_CORES": "0,1", "TORCH_DEVICE_BACKEND_AUTOLOAD": "0",
    }  # fmt: skip
    command = [sys.executable, str(stand_ins / "neuron_process.py"), str(tmp_path)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout)
    assert seen["torch_before"] is False
    assert seen["environment"] == {"TORCH_NEURONX_NEFF_CACHE_DIR": f"{tmp_path}/neff", "NEURON_LOGICAL_NC_CONFIG": "2"}
    assert seen["accelerator"] == "neuron"
    assert seen["devices"] == ["neuron:0"]
    assert seen["types"] == ["torch.float32", "torch.bfloat16"]
    assert seen["waits"] == 2  # a step and a commit, so that what they take is measured
    assert seen["graphs"] == 6  # condition, modulate; denoise and commit in two buckets
    assert seen["options"] == 1
    assert seen["fallback"] == [False] * 6
    assert "graph 'commit' is compiled for shapes" in seen["refusal"]
    assert seen["compiled_while_serving"] == 0
    assert len(seen["wan"]) == 5  # denoise in two buckets; decode in three kinds
    assert set(map(tuple, seen["wan"].values())) == {("neuron:0",)}


@pytest.mark.parametrize(
    ("environment", "sentence"),
    [
        ({"TORCH_NEURONX_NEFF_CACHE_DIR": "/elsewhere"}, r"TORCH_NEURONX_NEFF_CACHE_DIR must be '/shared/neff/neff'"),
        ({"NEURON_RT_VISIBLE_CORES": None}, "means every core of the machine"),
        ({"NEURON_RT_VISIBLE_CORES": "0-3"}, r"'0-3', which is not the 2 cores"),
        ({}, "torch_neuronx is not installed"),
    ],
)
def test_neuron_says_what_is_missing(environment: dict[str, str | None], sentence: str) -> None:
    merged = {name: value for name, value in (NEURON_ENVIRONMENT | environment).items() if value is not None}
    with pytest.raises(RuntimeUnavailable, match=sentence):
        NeuronRuntime(NEURON, merged).prepare()


def test_cuda_says_when_there_is_none() -> None:
    if torch.cuda.is_available():
        pytest.skip("there is an NVIDIA GPU here")
    with pytest.raises(RuntimeUnavailable, match="no NVIDIA GPU"):
        make_runtime(RuntimeConfig(name="cuda")).prepare()


def test_the_environment_is_set_before_torch_or_not_at_all() -> None:
    environ: dict[str, str] = {}
    set_environment([NEURON], environ, modules={})
    assert environ.items() <= NEURON_ENVIRONMENT.items()
    with pytest.raises(RuntimeUnavailable, match="before torch is imported; it is None"):
        set_environment([NEURON], {}, modules={"torch": torch})
    set_environment([NEURON], dict(NEURON_ENVIRONMENT), modules={"torch": torch})
    for stages in ([RuntimeConfig()], [RuntimeConfig(name="cuda"), RuntimeConfig()]):
        other: dict[str, str] = {}
        set_environment(stages, other, modules={"torch": torch})
        assert other == {"TORCH_DEVICE_BACKEND_AUTOLOAD": "0"}  # a process without cores must not load Neuron's package


@pytest.mark.parametrize(("visible", "count"), [("0", 1), ("0,1", 2), ("4-7", 4), ("0,4-6", 4)])
def test_cores_are_counted(visible: str, count: int) -> None:
    assert core_count(visible) == count


def test_a_list_of_cores_that_is_none_is_refused() -> None:
    with pytest.raises(RuntimeUnavailable, match="must be a list of cores"):
        core_count("all")


# -- configuration ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"name": "tpu"}, "'cpu', 'cuda' or 'neuron'"),
        ({"name": "neuron", "compiled": True, "cores": 1}, "target must be one of: trn2, trn3; got ''"),
        ({"name": "neuron", "compiled": True, "target": "trn2"}, "cores must be the neuron_cores of a replica, 1 or more; got 0"),
        ({"name": "neuron", "cores": 1, "target": "trn2"}, "compiled must be true"),
        ({"name": "cuda", "cores": 2}, "cores must be 0 with runtime cuda; got 2"),
        (
            {"name": "neuron", "cores": 1, "target": "trn2", "compiled": True, "weights": "int8"},
            "weights must be empty with runtime neuron",
        ),
        ({"name": "neuron", "cores": 3, "ranks": 2, "target": "trn2", "compiled": True}, "cores must divide by the 2 ranks; got 3"),
        ({"ranks": 2, "weights": "fp8"}, "weights must be empty with several ranks; got 'fp8'"),
        ({"ranks": 2, "compiled": True, "cache": "/x", "require_warm": True}, "require_warm must be false with several ranks"),
        ({"target": "trn2"}, "target must be empty with runtime cpu"),
        ({"compiled": True, "require_warm": True}, "cache must be a folder"),
        ({"cache": "/x", "require_warm": True}, "require_warm must be false where nothing is compiled"),
        ({"dtype": "float16"}, "'float32' or 'bfloat16'"),
    ],
)
def test_a_runtime_that_cannot_be_is_refused(settings: dict[str, object], sentence: str) -> None:
    with pytest.raises(ValidationError, match=sentence):
        RuntimeSettings.model_validate(settings)


def test_each_stage_has_a_runtime_of_its_own() -> None:
    app = AppConfig.model_validate({"engine": {"runtime": {"dtype": "bfloat16"}}, "decoder": {"runtime": {"name": "cuda"}}})
    assert app.preset().execution == Execution(denoiser=RuntimeConfig(dtype="bfloat16"), decoder=RuntimeConfig(name="cuda"))
