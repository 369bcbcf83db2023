"""Who runs in the next forward. Pure decisions on plain numbers: no torch, no clock, no threads.

Every row has a deadline: a live session's is when its chunk is due on the viewer's screen; a job's is a patience after it could
have started, so a job is a session with a lenient deadline and nothing starves. The row with the least slack goes first, as in
least-laxity scheduling (Mok, 1983); rows that have slack to spare take turns.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Hashable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class RowView:
    """One open session, as the scheduler sees it.

    Attributes:
        slot: its cache slot, unique among the rows.
        due: deadline of the chunk it is making, in seconds on the engine's clock.
        remaining_steps: denoise steps left on that chunk.
        waiting_chunks: finished chunks that its reader has not taken.
        last_turn: number of its last row in a forward, counted over all rows, so that no two are equal; -1 before the first.
        finished: it has no chunk to make: none is left, or the source of its next one has not come.
        group: rows of other groups need another graph, or other shapes.
    """

    slot: int
    due: float
    remaining_steps: int
    waiting_chunks: int
    last_turn: int
    finished: bool = False
    group: Hashable = None


@dataclass(frozen=True, slots=True)
class StepCosts:
    """Seconds of one denoise step by compiled batch size; a batch is padded to the next one.

    Attributes:
        buckets: ascending.
        step_s: a step in each; 0 where nothing was measured yet.
    """

    buckets: tuple[int, ...]
    step_s: tuple[float, ...]

    def of(self, rows: int) -> float:
        """Seconds of a step for `rows` rows."""
        return self.step_s[bisect_left(self.buckets, rows)]


def slack(row: RowView, now: float, step_s: float) -> float:
    """Seconds that the row can still wait, if each of its steps takes `step_s`."""
    return row.due - now - row.remaining_steps * step_s


def schedule(rows: Sequence[RowView], costs: StepCosts, max_lead_chunks: int, comfort_s: float, now: float) -> tuple[int, ...]:
    """Slots of the rows that share the next forward; as many as the largest bucket holds.

    A session that has `max_lead_chunks` chunks waiting is skipped until its reader takes one: that is the backpressure. The rest are
    ordered by slack; those with more than `comfort_s` count as equal and take turns. Those of the first one's group go along, unless the
    larger batch is so much slower that a row ahead, on time until then, would come late.
    """
    ready = [row for row in rows if not row.finished and row.waiting_chunks < max_lead_chunks]
    alone_s = costs.of(1)
    ready.sort(key=lambda row: (min(slack(row, now, alone_s), comfort_s), row.last_turn, row.slot))
    alike = [row for row in ready if row.group == ready[0].group]
    chosen: list[RowView] = []
    for row in alike[: costs.buckets[-1]]:
        step_s = costs.of(len(chosen) + 1)
        if any(slack(ahead, now, alone_s) >= 0 > slack(ahead, now, step_s) for ahead in chosen):
            break
        chosen.append(row)
    return tuple(row.slot for row in chosen)
