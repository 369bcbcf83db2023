"""Connects to one of several servers behind an address, some of which may have stopped.

A refused connection is an answer: nobody is there. Silence is not: the process that took the connection may have stopped, and the next
attempt may reach another one. gRPC by itself waits 20 s for a silent server, and then fails all calls that waited with it.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import grpc
import grpc.aio

from headrace.target import is_loopback


@dataclass(frozen=True, slots=True)
class Connecting:
    """How long to wait for a server that does not answer.

    Attributes:
        attempt_s: what one attempt may take, from the first packet to the first word of HTTP/2. Raise it for lines slower than that.
        give_up_after_s: after so long without an answer a call fails.
    """

    attempt_s: float = 2.0
    give_up_after_s: float = 15.0

    def options(self, address: str) -> tuple[tuple[str, int], ...]:
        """For gRPC's channel to `address`."""
        attempt = (("grpc.min_reconnect_backoff_ms", round(self.attempt_s * 1000)),)
        # A proxy of the environment is for other machines; gRPC would send even a call to this one through it.
        return (*attempt, ("grpc.enable_http_proxy", 0)) if is_loopback(address) else attempt


class Connection:
    """Tries a channel until a server answers. Each channel has its own."""

    def __init__(self, channel: grpc.aio.Channel, policy: Connecting) -> None:
        self._channel = channel
        self._policy = policy
        self._silent = False  # the server, when it was last asked

    async def ready(self, timeout_s: float | None = None) -> float | None:
        """Wait for a server. If there is none, the next call says why. Returns what is left of `timeout_s`."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        patience_s = self._policy.give_up_after_s if timeout_s is None else min(timeout_s, self._policy.give_up_after_s)
        try:
            async with asyncio.timeout(patience_s):
                await self._answered(began)
        except (TimeoutError, grpc.aio.UsageError):
            pass  # the call fails, with the reason of the last attempt, or because the channel is closed
        return None if timeout_s is None else max(0.0, timeout_s - (loop.time() - began))

    async def _answered(self, began: float) -> None:
        while (state := self._channel.get_state(try_to_connect=True)) not in (
            grpc.ChannelConnectivity.READY,
            grpc.ChannelConnectivity.SHUTDOWN,
        ):
            if state is grpc.ChannelConnectivity.TRANSIENT_FAILURE:
                waited_s = asyncio.get_running_loop().time() - began
                self._silent = self._silent or waited_s > self._policy.attempt_s / 2
                if not self._silent:
                    return
            await self._channel.wait_for_state_change(state)
        self._silent = False
