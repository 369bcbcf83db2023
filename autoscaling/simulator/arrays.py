"""What the compiled data plane works on: a record of each session, row and replica, and what they hand each other; all of fixed size."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Places = npt.NDArray[np.uint32]  # before each use of a number with a sign as an index, compiled code asks whether it is negative
Records = npt.NDArray[Any]

RING = 16  # times of chunks that are kept, a power of two
_WHOLE, _REAL = np.dtype(np.int64), np.dtype(np.float64)
# One record each, so that what is read together lies together.
# Of a session: where its leg is, chunks sent when it began (`sent`), when its last one was sent.
SESSION = np.dtype(
    [(name, _WHOLE) for name in ("engine", "row", "steps", "end", "sent")] + [(name, _REAL) for name in ("origin", "ended_at")]
)
# Of a session's leg on its replica. In the first 64 bytes, which are all that most forwards read: when it may run next (`from_at`), the
# deadline of the chunk that it makes (`due`) and steps `left` on it. Then what finished chunks need, and rings of times by chunk.
ROW = np.dtype(
    [("from_at", _REAL), ("due", _REAL)]
    + [(name, _WHOLE) for name in ("left", "turn", "made", "taken", "end", "session", "decoder", "steps", "reduced", "base", "sent")]
    + [(name, _REAL) for name in ("origin", "base_due", "spare")]
    + [("made_at", _REAL, (RING // 2,)), ("sent_at", _REAL, (RING,))]
)
# Of a denoise replica: the end of its forward (`free_at`), suffixes to commit first (`owed_s`).
ENGINE = np.dtype(
    [(name, _WHOLE) for name in ("held", "key", "turns", "forwards")]
    + [(name, _REAL) for name in ("free_at", "owed_s", "busy_s", "expected_s")]
)
DECODER = np.dtype([("key", _WHOLE), ("chunks", _WHOLE), ("free_at", _REAL), ("busy_s", _REAL)])


def records(n: int, kind: np.dtype[Any]) -> Records:
    """Zeros, the first one at the beginning of a cache line."""
    room = np.zeros(n * kind.itemsize + 64, np.uint8)
    begin = -room.ctypes.data % 64
    return room[begin : begin + n * kind.itemsize].view(kind)


class Params(NamedTuple):
    """Constants of a run; `StageTimes` says what each one is.

    Attributes:
        steps: denoise steps of a chunk at full quality.
        bin_s: width of a time bin of `Tally`.
        suffix: at most so many chunks are committed when a leg reopens.
    """

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
    line: Places
    keys: Floats


class Taken(NamedTuple):
    """Chunks on their way to a decoder; the first `filled[0]` places count. Those of decoder k are `order[begin[k] : end[k]]`."""

    at: Floats
    row: Places
    chunk: Ints
    decoder: Places
    filled: Ints
    order: Places
    begin: Ints
    end: Ints


class Tally(NamedTuple):
    """Chunks by the time bin in which they were sent, what became known of sessions, and events counted (forwards, chunks, takes)."""

    on_time: Ints
    late: Ints
    degraded: Ints
    ended: Ints
    ended_count: Ints
    events: Ints
