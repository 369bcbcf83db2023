"""A cloud on this machine for Ray's autoscaler: what it launches are real Ray nodes, and a test decides what it refuses.

Ray's own fake provider starts and ends the nodes. This one also writes down what it was asked for, one JSON object a line, and raises
what Ray's AWS provider raises when EC2 has no capacity. It runs inside the autoscaler's process; a folder is all it shares with the test.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ray.autoscaler._private.fake_multi_node.node_provider import FakeMultiNodeProvider
from ray.autoscaler.node_launch_exception import NodeLaunchException
from ray.autoscaler.tags import TAG_RAY_USER_NODE_TYPE

FOLDER = "folder"  # the key of the provider's configuration that names the shared folder
EVENTS = "events.jsonl"
REFUSED = "refuse-"  # followed by a node type: while the file exists, none of that type can be had


class FakeCloud(FakeMultiNodeProvider):
    def __init__(self, provider_config: dict[str, Any], cluster_name: str) -> None:
        super().__init__(provider_config, cluster_name)
        self._folder = Path(provider_config[FOLDER])

    def create_node_with_resources_and_labels(
        self, node_config: Any, tags: Mapping[str, str], count: int, resources: Mapping[str, float], labels: Mapping[str, str]
    ) -> None:
        node_type = tags[TAG_RAY_USER_NODE_TYPE]
        if (self._folder / f"{REFUSED}{node_type}").exists():
            self._tell("refused", node_type, "")
            raise NodeLaunchException("InsufficientInstanceCapacity", f"no {node_type} to be had", None)
        with self.lock:  # launches come in several threads; what is new must be this one's
            for _ in range(count):
                before = set(self._nodes)
                super().create_node_with_resources_and_labels(node_config, tags, 1, resources, labels)  # type: ignore[no-untyped-call]
                for node in set(self._nodes) - before:
                    self._tell("launched", node_type, node)

    def terminate_node(self, node_id: str) -> None:
        node_type: str = self.node_tags(node_id)[TAG_RAY_USER_NODE_TYPE]  # type: ignore[no-untyped-call]
        self._tell("terminated", node_type, node_id)
        super().terminate_node(node_id)  # type: ignore[no-untyped-call]

    def _tell(self, event: str, node_type: str, node: str) -> None:
        ray_node: Any = self._nodes[node]["node"] if event == "launched" else None
        processes = () if ray_node is None else ray_node.all_processes.values()
        pids = [info.process.pid for infos in processes for info in infos]
        line = json.dumps({"at": time.time(), "event": event, "node_type": node_type, "node": node, "pids": pids})
        with (self._folder / EVENTS).open("a", encoding="utf-8") as file:
            file.write(line + "\n")
