"""Whose turn it is: weighted fair shares of accelerator time between tenants, by virtual time, at admission.

Each tenant has a counter of the accelerator-seconds it has used, divided by its weight. The next slot goes to the tenant with the lowest
counter, with what its running sessions are still expected to use added to it. A tenant that was away does not come back with credit: its
counter is lifted to the lowest of those present.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Waiter:
    """One in line: who it is, its tenant, and the accelerator-seconds that it is expected to use."""

    key: int
    tenant: str
    cost: float


class FairShares:
    """Counters by tenant. One owner; knows no time: usage is told."""

    def __init__(self) -> None:
        self._used: dict[str, float] = {}

    def join(self, tenant: str, present: Iterable[str]) -> None:
        """`tenant` had nobody here and has somebody now; `present` are the tenants that have."""
        floor = min((self._used.get(name, 0.0) for name in present), default=0.0)
        self._used[tenant] = max(self._used.get(tenant, 0.0), floor)

    def charge(self, tenant: str, seconds: float, weight: float) -> None:
        """It has used `seconds` of accelerator time."""
        self._used[tenant] = self._used.get(tenant, 0.0) + seconds / weight

    def order(self, line: Sequence[Waiter], outstanding: Mapping[str, float], weights: Mapping[str, float]) -> list[Waiter]:
        """`line`, which is in order of arrival, in the order in which its members are to be admitted.

        Args:
            line: first come first served within a tenant.
            outstanding: accelerator-seconds that each tenant's running sessions are expected to use from now on.
            weights: of every tenant in `line`.
        """
        queues: dict[str, list[Waiter]] = {}
        for waiter in reversed(line):
            queues.setdefault(waiter.tenant, []).append(waiter)
        arrival = {waiter.key: index for index, waiter in enumerate(line)}
        virtual = {name: self._used.get(name, 0.0) + outstanding.get(name, 0.0) / weights[name] for name in queues}
        ordered: list[Waiter] = []
        while queues:
            name = min(queues, key=lambda name: (virtual[name], arrival[queues[name][-1].key]))
            waiter = queues[name].pop()
            virtual[name] += waiter.cost / weights[name]
            ordered.append(waiter)
            if not queues[name]:
                del queues[name]
        return ordered
