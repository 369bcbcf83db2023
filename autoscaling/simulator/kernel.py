"""The compiled data plane: every forward of every denoise replica, every chunk through its decoder, on flat arrays.

The same events as in `fine`, which is its oracle: a test holds the two against each other. Between two calls of `advance` replicas
do not know of each other, so each runs through the whole window by itself, and the decoders follow with what came out, in the order of
time. A chunk's sending is known at the end of the window at the latest, long before its session can feel it.

A chunk c of a session goes through
    made    its last denoise step ends; at most `max_lead` wait for the next
    taken   by the decoder, `ahead` chunks before the front door asks for it
    sent    decoded, and asked for: not before the chunk before was sent, nor earlier than `lead_s` before it is due
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar, cast

import numba
import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Records = npt.NDArray[Any]
F = TypeVar("F", bound=Callable[..., Any])

RING = 16  # a power of two
_WHOLE, _REAL = np.dtype(np.int64), np.dtype(np.float64)
# One record each, so that what is read together lies together.
# Of a session: first chunk of the open leg (`base`), its deadline (`due`), rings of times by chunk.
SESSION = np.dtype(
    [(name, _WHOLE) for name in ("engine", "decoder", "steps", "asked", "end", "base", "made", "taken", "sent", "step", "turn")]
    + [(name, _REAL) for name in ("due", "ready_at", "origin")]
    + [(name, _REAL, (RING,)) for name in ("made_at", "sent_at")]
)
# Of a denoise replica: the end of its forward (`free_at`), suffixes to commit first (`owed_s`).
ENGINE = np.dtype(
    [(name, _WHOLE) for name in ("held", "key", "turns", "forwards")]
    + [(name, _REAL) for name in ("free_at", "owed_s", "busy_s", "expected_s")]
)
DECODER = np.dtype([("key", _WHOLE), ("chunks", _WHOLE), ("free_at", _REAL), ("busy_s", _REAL)])
EPSILON_S = 1e-9


def _compiled(function: F) -> F:
    return cast("F", numba.njit(cache=True, error_model="numpy")(function))


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


class Engines(NamedTuple):
    """Denoise replicas: `of`, records of `ENGINE`; `rows`: sessions by slot, or -1."""

    of: Records
    rows: Ints


class Taken(NamedTuple):
    """Chunks on their way to a decoder; the first `filled[0]` places count."""

    at: Floats
    session: Ints
    chunk: Ints
    filled: Ints


class Orders(NamedTuple):
    """Legs to open and close before anything moves, in this order: columns session, engine (-1: close), decoder, steps; now, ready_at."""

    what: Ints
    when: Floats
    filled: Ints


class Tally(NamedTuple):
    """Chunks by the time bin in which they were sent, what became known of sessions, and events counted (forwards, chunks, takes)."""

    on_time: Ints
    late: Ints
    degraded: Ints
    ended: Ints
    ended_count: Ints
    events: Ints


@_compiled
def noise_factor(seed: int, key: int, count: int, sigma: float) -> float:
    """Of mean 1 and standard deviation `sigma`, triangular: a function of its arguments alone (SplitMix64, Steele et al. 2014)."""
    if sigma <= 0.0:
        return 1.0
    z = np.uint64(seed) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(key) * np.uint64(0xD1B54A32D192ED03) + np.uint64(count)
    z = z * np.uint64(0x9E3779B97F4A7C15) + np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    z ^= z >> np.uint64(31)
    u, v = float(z >> np.uint64(32)), float(z & np.uint64(0xFFFFFFFF))
    return 1.0 + sigma * math.sqrt(6.0) * ((u + v + 1.0) / 4294967296.0 - 1.0)


@_compiled
def _bucket(p: Params, rows: int) -> int:
    for index in range(p.buckets.size):
        if p.buckets[index] >= rows:
            return index
    return p.buckets.size - 1


@_compiled
def _asked_at(p: Params, s: Records, i: int, chunk: int) -> float:
    """When the front door asks for `chunk` of the leg; infinity while that is not known."""
    if chunk < s[i].base or (chunk == s[i].base and s[i].origin == np.inf):
        return -np.inf
    pace = s[i].origin + chunk * p.chunk_s - p.lead_s
    if chunk == s[i].base:
        return float(pace)
    if s[i].sent < chunk:
        return np.inf
    return float(max(pace, s[i].sent_at[(chunk - 1) & (RING - 1)]))


@_compiled
def _take_at(p: Params, s: Records, i: int) -> float:
    """When the decoder takes the oldest chunk that waits; infinity if none does."""
    chunk = s[i].taken
    if chunk >= s[i].made:
        return np.inf
    return float(max(s[i].made_at[chunk & (RING - 1)], _asked_at(p, s, i, chunk - p.ahead)))


@_compiled
def _take(p: Params, s: Records, i: int, now: float, out: Taken) -> None:
    at = _take_at(p, s, i)
    while at <= now:
        n = out.filled[0]
        out.at[n], out.session[n], out.chunk[n] = at, i, s[i].taken
        out.filled[0] = n + 1
        s[i].taken += 1
        at = _take_at(p, s, i)


@_compiled
def _slack(p: Params, s: Records, i: int, now: float, step_s: float) -> float:
    due = s[i].due + (s[i].made - s[i].base) * p.chunk_s
    return float(due - now - (s[i].steps - s[i].step) * step_s)


@_compiled
def _schedule(p: Params, s: Records, e: Engines, r: int, now: float, chosen: Ints, slacks: Floats, out: Taken) -> int:
    """As `model_core.engine.step_scheduler.schedule`: fills `chosen`, best first, and returns how many.

    Rows are met by slot, so that equal ones stay in that order. A row whose chunks wait may have them taken by `now`.
    """
    ready, alone, left, slot = 0, p.step_s[0], e.of[r].held, -1
    while left:
        slot += 1
        i = e.rows[r, slot]
        if i < 0:
            continue
        left -= 1
        if s[i].ready_at > now or s[i].made >= s[i].end:
            continue
        if s[i].made - s[i].taken >= p.max_lead:
            _take(p, s, i, now, out)
            if s[i].made - s[i].taken >= p.max_lead:
                continue
        slack = _slack(p, s, i, now, alone)
        key, turn, k = min(slack, p.comfort_s), s[i].turn, ready
        while k > 0:
            before = min(slacks[k - 1], p.comfort_s)
            if before < key or (before == key and s[chosen[k - 1]].turn <= turn):
                break
            chosen[k], slacks[k] = chosen[k - 1], slacks[k - 1]
            k -= 1
        chosen[k], slacks[k] = i, slack
        ready += 1
    return _joined(p, s, now, chosen, slacks, min(ready, p.buckets[-1]))


@_compiled
def _joined(p: Params, s: Records, now: float, chosen: Ints, slacks: Floats, ready: int) -> int:
    """How many of the rows in order join before one would make another, on time until then, late."""
    # The first has the least slack, or as much as any that matters: if the largest batch does not make it late, all join.
    if ready and min(slacks[0], p.comfort_s) >= p.steps * (p.step_s[-1] - p.step_s[0]):
        return ready
    for n in range(1, ready):
        step_s = p.step_s[_bucket(p, n + 1)]
        for k in range(n):
            if slacks[k] >= 0.0 > _slack(p, s, chosen[k], now, step_s):
                return n
    return ready


@_compiled
def _account(p: Params, e: Engines, r: int, expected_s: float) -> float:
    seconds = expected_s * noise_factor(p.seed, e.of[r].key, e.of[r].forwards, p.noise)
    e.of[r].forwards += 1
    e.of[r].busy_s += seconds
    e.of[r].expected_s += expected_s
    return seconds


@_compiled
def _forward(p: Params, s: Records, e: Engines, r: int, now: float, chosen: Ints, n: int) -> float:
    """One step for `n` rows, and the commit of those whose chunk it finished. Returns its end."""
    now = now + e.of[r].owed_s + _account(p, e, r, p.step_s[_bucket(p, n)])
    e.of[r].owed_s = 0.0
    done = 0
    for k in range(n):
        i = chosen[k]
        e.of[r].turns += 1
        s[i].turn = e.of[r].turns
        s[i].step += 1
        if s[i].step >= s[i].steps:
            s[i].made_at[s[i].made & (RING - 1)] = now
            s[i].made += 1
            s[i].step = 0
            done += s[i].made < s[i].end
    if done:
        now += _account(p, e, r, p.commit_s[_bucket(p, done)])
    return now


@_compiled
def _next_ready(p: Params, s: Records, e: Engines, r: int, now: float) -> float:
    wake, left, slot = np.inf, e.of[r].held, -1
    while left:
        slot += 1
        i = e.rows[r, slot]
        if i < 0:
            continue
        left -= 1
        if s[i].made >= s[i].end:
            continue
        at = s[i].ready_at
        if s[i].made - s[i].taken >= p.max_lead:
            at = max(at, _take_at(p, s, i))
        wake = min(wake, max(at, now))
    return wake


@_compiled
def _run_engine(p: Params, s: Records, e: Engines, r: int, until: float, chosen: Ints, slacks: Floats, out: Taken) -> int:
    """Forwards that begin before `until`. Returns how many."""
    now, forwards = e.of[r].free_at, 0
    while now < until:
        n = _schedule(p, s, e, r, now, chosen, slacks, out)
        if n:
            now = _forward(p, s, e, r, now, chosen, n)
            forwards += 1
            continue
        wake = _next_ready(p, s, e, r, now)
        if wake >= until:
            break
        now = wake
    e.of[r].free_at = now
    for slot in range(e.rows.shape[1]):
        if e.rows[r, slot] >= 0:
            _take(p, s, e.rows[r, slot], until, out)
    return forwards


@_compiled
def _in_order(out: Taken) -> Ints:
    """Places of `out` by time, then session."""
    n = out.filled[0]
    order = np.argsort(out.at[:n], kind="mergesort")
    for k in range(1, n):
        place, j = order[k], k
        while j > 0 and out.at[order[j - 1]] == out.at[place] and out.session[order[j - 1]] > out.session[place]:
            order[j] = order[j - 1]
            j -= 1
        order[j] = place
    return order


@_compiled
def tally_chunk(p: Params, s: Records, i: int, chunk: int, at: float, tally: Tally, sign: int) -> None:
    """Count `chunk`, sent at `at`; with `sign` -1, take it back."""
    where = min(int(at / p.bin_s), tally.late.size - 1)
    if at > s[i].origin + chunk * p.chunk_s + EPSILON_S:
        tally.late[where] += sign
    else:
        tally.on_time[where] += sign
    if s[i].steps < s[i].asked:
        tally.degraded[where] += sign


@_compiled
def _decode(p: Params, s: Records, d: Records, out: Taken, tally: Tally) -> None:
    for place in _in_order(out):
        i, chunk = out.session[place], out.chunk[place]
        k = s[i].decoder
        seconds = p.decode_s * noise_factor(p.seed, d[k].key, d[k].chunks, p.noise)
        d[k].free_at = max(d[k].free_at, out.at[place] + p.hop_s) + seconds
        d[k].busy_s += seconds
        d[k].chunks += 1
        at = max(d[k].free_at + p.hop_s, _asked_at(p, s, i, chunk))
        if s[i].origin == np.inf:
            s[i].origin = at - chunk * p.chunk_s
        s[i].sent_at[chunk & (RING - 1)] = at
        s[i].sent = chunk + 1
        tally_chunk(p, s, i, chunk, at, tally, 1)
        if chunk == s[i].end - 1:
            tally.ended[tally.ended_count[0]] = i
            tally.ended_count[0] += 1


@_compiled
def sent_by(p: Params, s: Records, i: int, now: float, tally: Tally) -> int:
    """Take back what was to be sent after `now`, which a leg that closes now will not send. Returns the next chunk to send."""
    while s[i].sent > s[i].base and s[i].sent_at[(s[i].sent - 1) & (RING - 1)] > now:
        s[i].sent -= 1
        tally_chunk(p, s, i, s[i].sent, s[i].sent_at[s[i].sent & (RING - 1)], tally, -1)
        if s[i].sent == 0:
            s[i].origin = np.inf
    return int(s[i].sent)


@_compiled
def _slot_of(e: Engines, r: int, row: int) -> int:
    """Where on engine `r` that row is; its first free slot for -1."""
    slot = 0
    while e.rows[r, slot] != row:
        slot += 1
    return slot


@_compiled
def _open(p: Params, s: Records, e: Engines, i: int, r: int, next_chunk: int, ready_at: float) -> None:
    e.rows[r, _slot_of(e, r, -1)] = i
    e.of[r].held += 1
    s[i].turn, s[i].step = -1, 0
    s[i].base = s[i].made = s[i].taken = next_chunk
    s[i].ready_at = ready_at
    s[i].due = ready_at if s[i].origin == np.inf else s[i].origin + next_chunk * p.chunk_s
    suffix = min(p.suffix, next_chunk)
    if suffix:
        e.of[r].owed_s += p.commit_s[_bucket(p, suffix)]


@_compiled
def obey(p: Params, s: Records, e: Engines, orders: Orders, tally: Tally) -> None:
    """All of `orders`."""
    for k in range(orders.filled[0]):
        i, r, now = orders.what[k, 0], orders.what[k, 1], orders.when[k, 0]
        next_chunk, old = s[i].sent, s[i].engine
        if old >= 0:
            e.rows[old, _slot_of(e, old, i)] = -1
            e.of[old].held -= 1
            next_chunk = sent_by(p, s, i, now, tally)
        s[i].engine = r
        if r >= 0:
            s[i].decoder, s[i].steps = orders.what[k, 2], orders.what[k, 3]
            _open(p, s, e, i, r, next_chunk, orders.when[k, 1])
    orders.filled[0] = 0


@_compiled
def advance(p: Params, s: Records, e: Engines, d: Records, orders: Orders, until: float, out: Taken, tally: Tally) -> None:
    """Obey, then move every replica on to `until`."""
    obey(p, s, e, orders, tally)
    chosen, slacks = np.empty(e.rows.shape[1], np.int64), np.empty(e.rows.shape[1])
    out.filled[0] = 0
    for r in range(e.of.size):
        if e.of[r].held:
            tally.events[0] += _run_engine(p, s, e, r, until, chosen, slacks, out)
    tally.events[1] += out.filled[0]
    tally.events[2] += out.filled[0]
    _decode(p, s, d, out, tally)
