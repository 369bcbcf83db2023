"""Says whose turn it is in one line: tenants have weighted fair shares of accelerator time, by virtual time, at admission.

An account counts only while somebody waits. Each tenant has a counter of the accelerator-seconds that it has used in that time, divided by
its weight. The next slot goes to the tenant with the lowest counter, with what its running sessions are still expected to use added to it.

Nobody can save up: a tenant that begins to wait is lifted to what the lowest counter was when the last slot was given, as in start-time
fair queueing (Goyal, Vin and Cheng, 1997). Nobody is locked out either: of what a tenant has used beyond the others, only `DEBT_S`
accelerator-seconds count against it. When the line is empty, all accounts are closed.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

# Accelerator-seconds that a tenant can be in arrears; what it used beyond them is forgiven.
DEBT_S = 30.0


@dataclass(frozen=True, slots=True)
class Waiter:
    """One in line: who it is, its tenant, and the accelerator-seconds that it is expected to use."""

    key: int
    tenant: str
    cost: float


class FairShares:
    """The accounts of one line. It has one owner, who tells it of usage; it knows no time."""

    def __init__(self) -> None:
        self._used: dict[str, float] = {}
        self._reached = 0.0  # the lowest counter of those in line when the last slot was given

    @property
    def accounts(self) -> int:
        return len(self._used)

    def join(self, tenant: str) -> None:
        """`tenant`, which had nobody in line, has somebody now, behind others."""
        self._used[tenant] = max(self._used.get(tenant, 0.0), self._reached)

    def served(self, waiting: Collection[str]) -> None:
        """One of the `waiting` tenants, those in line, gets a slot."""
        self._reached = max(self._reached, self._floor(waiting))

    def charge(self, tenant: str, seconds: float, weight: float) -> None:
        """`tenant` has used `seconds` of accelerator time while somebody waited."""
        self._used[tenant] = self._used.get(tenant, 0.0) + seconds / weight

    def settle(self, waiting: Collection[str], weight: Callable[[str], float]) -> None:
        """Forgive arrears beyond the bound, and drop accounts that change nothing. `waiting` are the tenants in line."""
        if not waiting:
            self._used.clear()
            self._reached = 0.0
            return
        floor = self._floor(waiting)
        for name, used in list(self._used.items()):
            if used <= self._reached and name not in waiting:
                del self._used[name]  # it would be lifted to that when it comes back
            else:
                self._used[name] = min(used, floor + DEBT_S / weight(name))

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

    def _floor(self, waiting: Collection[str]) -> float:
        return min((self._used.get(name, 0.0) for name in waiting), default=0.0)
