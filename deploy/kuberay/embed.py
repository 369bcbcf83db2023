"""Put serve.yaml, with differences.yaml over it, into rayservice.yaml: `make kuberay`. The tests look whether that was done."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

FOLDER = Path(__file__).parent
SERVE, DIFFERENCES, MANIFEST = FOLDER.parents[1] / "serve.yaml", FOLDER / "differences.yaml", FOLDER / "rayservice.yaml"
_OPENS, _CLOSES = "  serveConfigV2: |\n", "  rayClusterConfig:\n"


def merged(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """`base` with `changes` in it, mappings key by key."""
    result = dict(base)
    for key, value in changes.items():
        result[key] = merged(result.get(key) or {}, value) if isinstance(value, dict) else value
    return result


def application(serve: Mapping[str, Any], differences: Mapping[str, Any]) -> dict[str, Any]:
    """The deploy document for Kubernetes.

    Raises:
        KeyError: a difference is for a deployment that serve.yaml does not have.
    """
    (app,) = serve["applications"]
    blocks = {block["name"]: block for block in app["deployments"]}
    for name, changes in differences["deployments"].items():
        blocks[name] = merged(blocks[name], changes)
    of_app = {key: value for key, value in differences.items() if key in app and key != "deployments"}
    app = {**merged(app, of_app), "deployments": list(blocks.values())}
    rest = {key: value for key, value in differences.items() if key not in app}
    return {**serve, **rest, "applications": [app]}


def embedded(manifest: str, document: Mapping[str, Any]) -> str:
    """The manifest with the document in the place of the one it had."""
    before, rest = manifest.split(_OPENS)
    _, after = rest.split(_CLOSES)
    text = yaml.safe_dump(document, sort_keys=False, width=130, default_flow_style=None)
    return before + _OPENS + textwrap.indent(text, "    ") + _CLOSES + after


def rendered() -> str:
    """What rayservice.yaml should be."""
    document = application(yaml.safe_load(SERVE.read_text()), yaml.safe_load(DIFFERENCES.read_text()))
    return embedded(MANIFEST.read_text(), document)


if __name__ == "__main__":
    MANIFEST.write_text(rendered())
    sys.stdout.write(f"{MANIFEST} is up to date\n")
