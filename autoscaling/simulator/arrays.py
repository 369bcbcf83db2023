"""What the compiled data plane works on: a record of each session, row and replica, and what they hand each other; all of fixed size."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Records = npt.NDArray[Any]

RING = 16  # times of chunks that are kept, a power of two
_WHOLE, _REAL = np.dtype(np.int64), np.dtype(np.float64)
# One record each, so that what is read together lies together.
# Of a session: its place among the replicas' rows, first chunk of the open leg (`base`), ring of times by chunk.
SESSION = np.dtype(
    [(name, _WHOLE) for name in ("engine", "row", "decoder", "steps", "asked", "end", "base", "sent")]
    + [("origin", _REAL), ("sent_at", _REAL, (RING,))]
)
# Of a session's leg on its replica: when it may run next (`from_at`), deadline of the chunk that it makes (`due`) and steps `left` on it;
# behind these 64 bytes, which are all that a forward reads, what a finished chunk needs, and a ring of times by chunk.
ROW = np.dtype(
    [("from_at", _REAL), ("due", _REAL)]
    + [(name, _WHOLE) for name in ("left", "turn", "made", "taken", "end", "session", "steps", "base")]
    + [("base_due", _REAL), ("made_at", _REAL, (RING // 2,))]
)
# Of a denoise replica: the end of its forward (`free_at`), suffixes to commit first (`owed_s`).
ENGINE = np.dtype(
    [(name, _WHOLE) for name in ("held", "key", "turns", "forwards")]
    + [(name, _REAL) for name in ("free_at", "owed_s", "busy_s", "expected_s")]
)
DECODER = np.dtype([("key", _WHOLE), ("chunks", _WHOLE), ("free_at", _REAL), ("busy_s", _REAL)])


class Params(NamedTuple):
    """Constants of a run, as of `StageTimes`. `steps`: most of a session; `bin_s`: of `Tally`; `suffix`: chunks to commit again."""

    buckets: Ints
    step_s: Floats
    commit_s: Floats
    decode_s: float
    hop_s: float
    chunk_s: float
    lead_s: float
    comfort_s: float
    steps: int
    max_lead: int
    ahead: int
    noise: float
    seed: int
    bin_s: float
    suffix: int
    slots: int


class Engines(NamedTuple):
    """Denoise replicas.

    Attributes:
        of: records of `ENGINE`.
        rows: records of `ROW`, `slots` for each; their `session` is -1 where nobody is.
        line, keys: scratch for one: its rows in the order of the scheduler, and by what they are ordered.
    """

    of: Records
    rows: Records
    line: Ints
    keys: Floats


class Taken(NamedTuple):
    """Chunks on their way to a decoder; the first `filled[0]` places count. Those of decoder k are `order[begin[k] : end[k]]`."""

    at: Floats
    session: Ints
    chunk: Ints
    decoder: Ints
    filled: Ints
    order: Ints
    begin: Ints
    end: Ints


class Orders(NamedTuple):
    """Legs to open and close before anything moves, in this order: columns session, engine (-1: close), decoder, steps; now, ready_at."""

    what: Ints
    when: Floats


class Tally(NamedTuple):
    """Chunks by the time bin in which they were sent, what became known of sessions, and events counted (forwards, chunks, takes)."""

    on_time: Ints
    late: Ints
    degraded: Ints
    ended: Ints
    ended_count: Ints
    events: Ints
