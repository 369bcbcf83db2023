"""Refuses to serve on a Ray cluster where anybody on the network could run code.

Ray's ports are open on every interface of a node and take pickled calls. Only its token keeps strangers out, and `ray start` asks for none
unless it is told to.
"""

from __future__ import annotations

from collections.abc import Collection

import ray
from ray._private.authentication.authentication_utils import is_token_auth_enabled

from deployments.config.addresses import is_loopback

ADVICE = "set RAY_AUTH_MODE=token, and a token, where Ray is started"


def reason_for_token(front_door_host: str, node_addresses: Collection[str]) -> str | None:
    """Why the cluster needs a token; None where all of it is behind one machine's loopback address."""
    if not is_loopback(front_door_host):
        return f"front_door.host {front_door_host} faces the network"
    if len(set(node_addresses)) > 1:
        return f"the cluster has {len(set(node_addresses))} nodes"
    return None


def check_token(front_door_host: str) -> None:
    """To be called in a process of the cluster that the application is for.

    Raises:
        RuntimeError: the cluster needs a token and asks for none.
    """
    alive = [str(node["NodeManagerAddress"]) for node in ray.nodes() if node["Alive"]]
    reason = reason_for_token(front_door_host, alive)
    if reason is not None and not is_token_auth_enabled():
        raise RuntimeError(f"{reason}, and Ray's ports run code for whoever reaches them: {ADVICE}")
