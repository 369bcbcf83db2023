#!/usr/bin/env bash
# A folder holds a network twice: model.safetensors, and model-0000x-of-0000y.safetensors with their index. Which one is loaded?
# transformers takes the whole file, diffusers the parts. A pipeline of both (a text encoder of the one, a transformer of the other) takes
# the new weights here and the old ones there, if somebody put a whole file in place of parts and left the index. Nothing is said.
# Within parts it is no better: where two of them hold one tensor, transformers takes that of the last file, whatever the index says.
set -euo pipefail
folder=$(mktemp -d /tmp/finding-XXXX)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" -qq --disable-pip-version-check install torch==2.13.0 diffusers==0.42.1 transformers==5.23.0 accelerate==1.15.0 \
  safetensors==0.8.0 numpy==2.4.6
cd "$folder"
HF_HUB_DISABLE_PROGRESS_BARS=1 HF_HUB_OFFLINE=1 venv/bin/python - <<'PY'
import json
import sys
from pathlib import Path

import diffusers
import torch
import transformers
from safetensors.torch import load_file, save_file

transformers.utils.logging.disable_progress_bar()
diffusers.utils.logging.disable_progress_bar()
print("diffusers", diffusers.__version__, "· transformers", transformers.__version__, "· torch", torch.__version__)
settings = transformers.T5Config(vocab_size=32, d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2)
networks = {
    "transformers": (transformers.T5EncoderModel(settings), "model", "shared.weight", "2KB"),
    "diffusers": (
        diffusers.WanTransformer3DModel(
            num_attention_heads=2, attention_head_dim=12, in_channels=4, out_channels=4, text_dim=8, freq_dim=8, ffn_dim=16, num_layers=1,
            rope_max_seq_len=16,
        ),
        "diffusion_pytorch_model", "proj_out.bias", "10KB",
    ),
}
taken = {}
for library, (network, base, tensor, size) in networks.items():
    folder = Path(library)
    network.save_pretrained(folder, max_shard_size=size)
    old = network.state_dict()[tensor].clone()
    named = json.loads((folder / f"{base}.safetensors.index.json").read_text())["weight_map"]
    whole = {name: value for file in sorted(set(named.values())) for name, value in load_file(folder / file).items()}
    save_file(whole | {tensor: old + 1}, folder / f"{base}.safetensors", metadata={"format": "pt"})
    loaded = type(network).from_pretrained(folder).state_dict()[tensor]
    taken[library] = "the parts" if torch.equal(loaded, old) else "the whole file"
    print(f"{library}: both are there, it loads {taken[library]}")

folder, tensor = Path("transformers"), "shared.weight"
(folder / "model.safetensors").unlink()
named = json.loads((folder / "model.safetensors.index.json").read_text())["weight_map"]
last = max(named.values())
right = load_file(folder / named[tensor])[tensor]
save_file(load_file(folder / last) | {tensor: right + 5}, folder / last, metadata={"format": "pt"})
loaded = transformers.T5EncoderModel.from_pretrained(folder).state_dict()[tensor]
kept = torch.equal(loaded, right)
print(f"transformers: the index says that {tensor} is in {named[tensor]}; {last} holds it too; loaded is that of the", "index" if kept else "last file")
same = taken == {"transformers": "the whole file", "diffusers": "the parts"} and not kept and named[tensor] != last
sys.exit(0 if same else "changed")
PY
