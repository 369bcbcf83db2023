"""Our two hot graphs at the size of a production model on one NVIDIA GPU: `python -m bench.costs.gpu --compile --json FILE`.

The shape is that of causal Wan 2.1 1.3B at 480x832 (30 layers, width 1536, 12 heads, MLP 6x for Wan's 5.83x, 512 text tokens, chunks of
3 latent frames = 12 frames), random weights, bfloat16, 4 denoise steps and a commit for each chunk, attention over 9 or 21 latent
frames, the chunk itself among them. It is our `CausalDiT`, not Wan: figures say what the graphs cost, nothing about pictures. The
decoder is our `VAE` decoder, wider. The matrix-product ceiling is measured in the same run; the share of it counts the operations that
the graphs need.

Last run on an H100 on 2026-11-22. `--dry-run` goes through all of it on a CPU at a tiny size, to show that it runs; its figures mean
nothing.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from model_core.config import DiTConfig, VAEConfig
from model_core.diffusion.flow_match import euler_step, timesteps
from model_core.nn.causal_dit import CausalDiT, KeyValue, TextCondition
from model_core.nn.vae import VAE

STEPS = 4
FRAMES_PER_CHUNK = 12


@dataclass(frozen=True, slots=True)
class Setup:
    """Where to measure, and how large. `width`, `depth`, `heads`: of the transformer; `matrix`: of the product that is the ceiling."""

    device: torch.device
    height: int
    width_px: int
    width: int
    depth: int
    heads: int
    text_tokens: int
    text_width: int
    decoder_width: int
    matrix: int

    def shape(self, window_chunks: int) -> DiTConfig:
        """`window_chunks` are the cached ones; the chunk being made comes on top."""
        return DiTConfig(
            latent_channels=16, latent_frames=3, latent_height=self.height // 8, latent_width=self.width_px // 8, patch=2,
            width=self.width, depth=self.depth, heads=self.heads, mlp_ratio=6, window=window_chunks, text_width=self.text_width,
        )  # fmt: skip

    def noise(self, *size: int) -> Tensor:
        return torch.randn(*size, device=self.device, dtype=torch.bfloat16)


CARD = Setup(
    device=torch.device("cuda"),
    height=480,
    width_px=832,
    width=1536,
    depth=30,
    heads=12,
    text_tokens=512,
    text_width=4096,
    decoder_width=192,
    matrix=8192,
)
DRY = Setup(
    device=torch.device("cpu"),
    height=32,
    width_px=32,
    width=64,
    depth=2,
    heads=2,
    text_tokens=16,
    text_width=32,
    decoder_width=16,
    matrix=64,
)


def milliseconds(setup: Setup, work: Callable[[], object], repeats: int) -> float:
    """Median device time of `work`, by CUDA events, after two warm-ups; on a CPU, by the clock."""
    times = []
    for index in range(repeats + 2):
        if setup.device.type != "cuda":
            began = time.perf_counter()
            work()
            times.append(1000 * (time.perf_counter() - began))
            continue
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        work()
        end.record()
        end.synchronize()
        if index >= 2:
            times.append(start.elapsed_time(end))
    return float(statistics.median(times))


def ceiling_tflops(setup: Setup) -> float:
    """bfloat16 product of two square matrices."""
    n = setup.matrix
    a, b = setup.noise(n, n), setup.noise(n, n)
    return float(2 * n**3 / milliseconds(setup, lambda: a @ b, 20) / 1e9)


def chunk_tflop(config: DiTConfig, text_tokens: int) -> float:
    """Operations for one chunk: `STEPS` denoise forwards and a commit. Cross-attention keys and values are cached."""
    n, d, f = config.tokens_per_chunk, config.width, config.mlp_ratio * config.width
    linear = 2 * n * (4 * d * d + 2 * d * f)
    denoise = linear + 2 * n * 2 * d * d + 4 * n * d * ((config.window + 1) * n + text_tokens)
    commit = linear + 4 * n * n * d
    return config.depth * (STEPS * denoise + commit) / 1e12


class Load:
    """One batch size of one shape, with everything that a chunk needs on the device."""

    def __init__(self, setup: Setup, window_chunks: int, batch: int, *, compiled: bool) -> None:
        self.config = config = setup.shape(window_chunks)
        self.batch, self._setup, noise, device, tokens = batch, setup, setup.noise, setup.device, setup.text_tokens
        model = CausalDiT(config).to(device=device, dtype=torch.bfloat16).eval()
        self._denoise = torch.compile(model.denoise, dynamic=False, fullgraph=True) if compiled else model.denoise
        self._commit = torch.compile(model.commit, dynamic=False, fullgraph=True) if compiled else model.commit
        text = model.condition(noise(1, 64, config.text_width), torch.ones(1, 64, device=device, dtype=torch.bool))
        mask = torch.zeros(batch, tokens, device=device, dtype=torch.bfloat16)
        self._text = TextCondition(self._key_values(tokens), mask, text.pooled.expand(batch, -1))
        self._cache = self._key_values(config.window * config.tokens_per_chunk)
        self._x_1 = noise(batch, config.latent_channels, config.latent_frames, config.latent_height, config.latent_width)
        self._times = [torch.full((batch,), t, device=device, dtype=torch.bfloat16) for t in timesteps(STEPS, 3.0)]
        self._steps = [model.modulate(t, self._text.pooled) for t in self._times[:-1]]

    def step(self, x: Tensor, index: int) -> Tensor:
        x_0 = self._denoise(x, self._steps[index], self._text, self._cache, None)
        return euler_step(x, x_0, self._times[index], self._times[index + 1])

    def first_step(self) -> Tensor:
        return self.step(self._x_1, 0)

    def chunk(self) -> list[KeyValue]:
        x = self._x_1
        for index in range(STEPS):
            x = self.step(x, index)
        return self._commit(x)

    def _key_values(self, tokens: int) -> list[KeyValue]:
        return [KeyValue(*(self._setup.noise(self.batch, tokens, self.config.width) for _ in range(2))) for _ in range(self.config.depth)]


@torch.inference_mode()
def measure_dit(
    setup: Setup, window_chunks: int, batches: list[int], repeats: int, *, compiled: bool, ceiling: float
) -> list[dict[str, float]]:
    """One row a batch size: milliseconds a chunk, rates, memory."""
    rows = []
    for batch in batches:
        reset_peak(setup)
        load = Load(setup, window_chunks, batch, compiled=compiled)
        chunk_ms, step_ms = milliseconds(setup, load.chunk, repeats), milliseconds(setup, load.first_step, repeats)
        tflops = batch * chunk_tflop(load.config, setup.text_tokens) / chunk_ms * 1000
        rows.append({
            "window_latent_frames": (window_chunks + 1) * load.config.latent_frames, "batch": batch, "compiled": compiled,
            "step_ms": round(step_ms, 1), "chunk_ms": round(chunk_ms, 1), "fps_all_sessions": fps(batch, chunk_ms),
            "tflops": round(tflops), "share_of_matmul": round(tflops / ceiling, 3), "peak_gib": peak_gib(setup),
        })  # fmt: skip
        print(rows[-1], flush=True)
    return rows


@torch.inference_mode()
def measure_decoder(setup: Setup, batches: list[int], repeats: int) -> list[dict[str, float]]:
    """Our decoder at 480x832, one chunk of 3 latent frames."""
    width = setup.decoder_width
    vae = VAE(VAEConfig(latent_channels=16, encoder_width=width, decoder_width=width, decoder_blocks=3))
    vae = vae.to(device=setup.device, dtype=torch.bfloat16)
    for parameter in vae.parameters():
        if parameter.dim() == 4:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
    rows = []
    for batch in batches:
        reset_peak(setup)
        latents = setup.noise(batch, 16, 3, setup.height // 8, setup.width_px // 8)
        decode = partial(vae.decode, latents, vae.new_memory(vae.decoder, batch, setup.height, setup.width_px))
        chunk_ms = milliseconds(setup, decode, repeats)
        rows.append({"batch": batch, "chunk_ms": round(chunk_ms, 2), "fps_all_sessions": fps(batch, chunk_ms), "peak_gib": peak_gib(setup)})
        print("decoder", rows[-1], flush=True)
    return rows


def fps(batch: int, chunk_ms: float) -> float:
    return round(1000 * batch * FRAMES_PER_CHUNK / chunk_ms, 1)


def reset_peak(setup: Setup) -> None:
    if setup.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()


def peak_gib(setup: Setup) -> float:
    return round(torch.cuda.max_memory_allocated() / 2**30, 1) if setup.device.type == "cuda" else 0.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--repeats", type=int, default=8)
    parser.add_argument("--compile", action="store_true", help="also measure torch.compile at the first batch size")
    parser.add_argument("--dry-run", action="store_true", help="on a CPU, at a tiny size: only whether it runs")
    parser.add_argument("--json", type=Path)
    a = parser.parse_args()
    if not a.dry_run and not torch.cuda.is_available():
        sys.exit("bench.costs.gpu needs an NVIDIA GPU; this machine shows none")
    setup = DRY if a.dry_run else CARD
    ceiling = ceiling_tflops(setup)
    name = "dry run on a CPU: no figures" if a.dry_run else torch.cuda.get_device_name()
    report = {"device": name, "torch": torch.__version__, "matmul_tflops": round(ceiling)}
    print(report, flush=True)
    rows = [row for chunks in (2, 6) for row in measure_dit(setup, chunks, a.batches, a.repeats, compiled=False, ceiling=ceiling)]
    decoder = measure_decoder(setup, a.batches, a.repeats)
    if a.compile:
        rows += [row for chunks in (2, 6) for row in measure_dit(setup, chunks, a.batches[:1], a.repeats, compiled=True, ceiling=ceiling)]
    if a.json:
        a.json.write_text(json.dumps(report | {"denoiser": rows, "decoder": decoder}, indent=1) + "\n")


if __name__ == "__main__":
    main()
