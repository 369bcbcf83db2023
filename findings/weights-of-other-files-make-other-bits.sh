#!/usr/bin/env bash
# The same weights in one safetensors file and in two, loaded by diffusers into the same network: do they give the same numbers?
# from_pretrained maps the file into memory and leaves the weights there, where the file has them: at multiples of 8 bytes, and others in
# other files. PyTorch aligns what it allocates itself to 64 bytes. The product of one row and a matrix rounds by how the matrix is aligned,
# so two copies of one checkpoint, with equal weights, give other last bits. That depends on the processor; that weights lie askew does not.
set -euo pipefail
folder=$(mktemp -d /tmp/finding-XXXX)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" -qq --disable-pip-version-check install torch==2.13.0 diffusers==0.42.1 transformers==5.23.0 accelerate==1.15.0 \
  safetensors==0.8.0 numpy==2.4.6
cd "$folder"
HF_HUB_DISABLE_PROGRESS_BARS=1 HF_HUB_OFFLINE=1 venv/bin/python - <<'PY'
import sys

import diffusers
import safetensors
import torch

diffusers.utils.logging.disable_progress_bar()
torch.set_num_threads(1)
print("diffusers", diffusers.__version__, "· safetensors", safetensors.__version__, "· torch", torch.__version__)
print("processor:", torch.backends.cpu.get_cpu_capability())
torch.manual_seed(0)
network = diffusers.WanTransformer3DModel(
    num_attention_heads=2, attention_head_dim=24, in_channels=4, out_channels=4, text_dim=32, freq_dim=32, ffn_dim=64, num_layers=2,
    rope_max_seq_len=64,
)
network.save_pretrained("one")
network.save_pretrained("two", max_shard_size="200KB")
one, two = (diffusers.WanTransformer3DModel.from_pretrained(folder).eval() for folder in ("one", "two"))
equal = all(torch.equal(weights, two.state_dict()[name]) for name, weights in one.state_dict().items())
places = [sorted({weights.data_ptr() % 64 for weights in loaded.parameters()}) for loaded in (one, two)]
layers = [[module for module in loaded.modules() if isinstance(module, torch.nn.Linear)] for loaded in (one, two)]


def differ() -> int:
    """Linear layers that make something else of the same row than their twin does, which holds the same weights."""
    rows = [torch.randn(1, layer.in_features) for layer in layers[0]]
    with torch.inference_mode():
        return sum(not torch.equal(a(row), b(row)) for a, b, row in zip(*layers, rows, strict=True))


before = differ()
for loaded in (one, two):
    for weights in loaded.parameters():
        weights.data = weights.data.clone()
after = differ()
print("equal weights:", equal)
print("addresses modulo 64: from one file", places[0], "· from several files", places[1])
print(f"linear layers that make other bits of one row: {before} of {len(layers[0])} here, {after} with each weight cloned")
askew = all(any(place) for place in places)
sys.exit(0 if equal and askew and after == 0 else "changed")
PY
