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
F = TypeVar("F", bound=Callable[..., Any])

RING = 16  # a power of two
EPSILON_S = 1e-9


def _compiled(function: F) -> F:
    return cast("F", numba.njit(cache=True, error_model="numpy")(function))


class Params(NamedTuple):
    """Constants of a run. `buckets`, `step_s`, `commit_s`: as of `StepProfile`; `steps`: most of a session; `bin_s`: of `Tally`."""

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


class Sessions(NamedTuple):
    """By session. `base`: first chunk of the open leg; `due`: its deadline; `sent_at`, `made_at`: rings of times by chunk."""

    engine: Ints
    decoder: Ints
    steps: Ints
    asked: Ints
    end: Ints
    base: Ints
    made: Ints
    taken: Ints
    sent: Ints
    step: Ints
    turn: Ints
    due: Floats
    ready_at: Floats
    origin: Floats
    made_at: Floats
    sent_at: Floats


class Engines(NamedTuple):
    """By denoise replica. `rows`: sessions by slot, or -1; `free_at`: end of the forward; `owed_s`: of suffixes to commit first."""

    rows: Ints
    held: Ints
    key: Ints
    turns: Ints
    forwards: Ints
    free_at: Floats
    owed_s: Floats
    busy_s: Floats
    expected_s: Floats


class Decoders(NamedTuple):
    """By decode replica."""

    key: Ints
    chunks: Ints
    free_at: Floats
    busy_s: Floats


class Taken(NamedTuple):
    """Chunks on their way to a decoder; the first `filled[0]` places count."""

    at: Floats
    session: Ints
    chunk: Ints
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
def _asked_at(p: Params, s: Sessions, i: int, chunk: int) -> float:
    """When the front door asks for `chunk` of the leg; infinity while that is not known."""
    if chunk < s.base[i] or (chunk == s.base[i] and s.origin[i] == np.inf):
        return -np.inf
    pace = s.origin[i] + chunk * p.chunk_s - p.lead_s
    if chunk == s.base[i]:
        return float(pace)
    if s.sent[i] < chunk:
        return np.inf
    return float(max(pace, s.sent_at[i, (chunk - 1) & (RING - 1)]))


@_compiled
def _take_at(p: Params, s: Sessions, i: int) -> float:
    """When the decoder takes the oldest chunk that waits; infinity if none does."""
    chunk = s.taken[i]
    if chunk >= s.made[i]:
        return np.inf
    return float(max(s.made_at[i, chunk & (RING - 1)], _asked_at(p, s, i, chunk - p.ahead)))


@_compiled
def _take(p: Params, s: Sessions, i: int, now: float, out: Taken) -> None:
    at = _take_at(p, s, i)
    while at <= now:
        n = out.filled[0]
        out.at[n], out.session[n], out.chunk[n] = at, i, s.taken[i]
        out.filled[0] = n + 1
        s.taken[i] += 1
        at = _take_at(p, s, i)


@_compiled
def _slack(p: Params, s: Sessions, i: int, now: float, step_s: float) -> float:
    due = s.due[i] + (s.made[i] - s.base[i]) * p.chunk_s
    return float(due - now - (s.steps[i] - s.step[i]) * step_s)


@_compiled
def _schedule(p: Params, s: Sessions, e: Engines, r: int, now: float, chosen: Ints, slacks: Floats, out: Taken) -> int:
    """As `model_core.engine.step_scheduler.schedule`: fills `chosen`, best first, and returns how many.

    Rows are met by slot, so that equal ones stay in that order. A row whose chunks wait may have them taken by `now`.
    """
    ready, alone = 0, p.step_s[0]
    for slot in range(e.rows.shape[1]):
        i = e.rows[r, slot]
        if i < 0 or s.ready_at[i] > now or s.made[i] >= s.end[i]:
            continue
        if s.made[i] - s.taken[i] >= p.max_lead:
            _take(p, s, i, now, out)
            if s.made[i] - s.taken[i] >= p.max_lead:
                continue
        slack = _slack(p, s, i, now, alone)
        key, turn, k = min(slack, p.comfort_s), s.turn[i], ready
        while k > 0:
            before = min(slacks[k - 1], p.comfort_s)
            if before < key or (before == key and s.turn[chosen[k - 1]] <= turn):
                break
            chosen[k], slacks[k] = chosen[k - 1], slacks[k - 1]
            k -= 1
        chosen[k], slacks[k] = i, slack
        ready += 1
    return _joined(p, s, now, chosen, slacks, min(ready, p.buckets[-1]))


@_compiled
def _joined(p: Params, s: Sessions, now: float, chosen: Ints, slacks: Floats, ready: int) -> int:
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
    seconds = expected_s * noise_factor(p.seed, e.key[r], e.forwards[r], p.noise)
    e.forwards[r] += 1
    e.busy_s[r] += seconds
    e.expected_s[r] += expected_s
    return seconds


@_compiled
def _forward(p: Params, s: Sessions, e: Engines, r: int, now: float, chosen: Ints, n: int) -> float:
    """One step for `n` rows, and the commit of those whose chunk it finished. Returns its end."""
    now = now + e.owed_s[r] + _account(p, e, r, p.step_s[_bucket(p, n)])
    e.owed_s[r] = 0.0
    done = 0
    for k in range(n):
        i = chosen[k]
        e.turns[r] += 1
        s.turn[i] = e.turns[r]
        s.step[i] += 1
        if s.step[i] >= s.steps[i]:
            s.made_at[i, s.made[i] & (RING - 1)] = now
            s.made[i] += 1
            s.step[i] = 0
            done += s.made[i] < s.end[i]
    if done:
        now += _account(p, e, r, p.commit_s[_bucket(p, done)])
    return now


@_compiled
def _next_ready(p: Params, s: Sessions, e: Engines, r: int, now: float) -> float:
    wake = np.inf
    for slot in range(e.rows.shape[1]):
        i = e.rows[r, slot]
        if i < 0 or s.made[i] >= s.end[i]:
            continue
        at = s.ready_at[i]
        if s.made[i] - s.taken[i] >= p.max_lead:
            at = max(at, _take_at(p, s, i))
        wake = min(wake, max(at, now))
    return wake


@_compiled
def _run_engine(p: Params, s: Sessions, e: Engines, r: int, until: float, chosen: Ints, slacks: Floats, out: Taken) -> int:
    """Forwards that begin before `until`. Returns how many."""
    now, forwards = e.free_at[r], 0
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
    e.free_at[r] = now
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
def tally_chunk(p: Params, s: Sessions, i: int, chunk: int, at: float, tally: Tally, sign: int) -> None:
    """Count `chunk`, sent at `at`; with `sign` -1, take it back."""
    where = min(int(at / p.bin_s), tally.late.size - 1)
    if at > s.origin[i] + chunk * p.chunk_s + EPSILON_S:
        tally.late[where] += sign
    else:
        tally.on_time[where] += sign
    if s.steps[i] < s.asked[i]:
        tally.degraded[where] += sign


@_compiled
def _decode(p: Params, s: Sessions, d: Decoders, out: Taken, tally: Tally) -> None:
    for place in _in_order(out):
        i, chunk = out.session[place], out.chunk[place]
        k = s.decoder[i]
        seconds = p.decode_s * noise_factor(p.seed, d.key[k], d.chunks[k], p.noise)
        d.free_at[k] = max(d.free_at[k], out.at[place] + p.hop_s) + seconds
        d.busy_s[k] += seconds
        d.chunks[k] += 1
        at = max(d.free_at[k] + p.hop_s, _asked_at(p, s, i, chunk))
        if s.origin[i] == np.inf:
            s.origin[i] = at - chunk * p.chunk_s
        s.sent_at[i, chunk & (RING - 1)] = at
        s.sent[i] = chunk + 1
        tally_chunk(p, s, i, chunk, at, tally, 1)
        if chunk == s.end[i] - 1:
            tally.ended[tally.ended_count[0]] = i
            tally.ended_count[0] += 1


@_compiled
def advance(p: Params, s: Sessions, e: Engines, d: Decoders, until: float, out: Taken, tally: Tally) -> None:
    """Move every replica on to `until`."""
    chosen, slacks = np.empty(e.rows.shape[1], np.int64), np.empty(e.rows.shape[1])
    out.filled[0] = 0
    for r in range(e.held.size):
        if e.held[r]:
            tally.events[0] += _run_engine(p, s, e, r, until, chosen, slacks, out)
    tally.events[1] += out.filled[0]
    tally.events[2] += out.filled[0]
    _decode(p, s, d, out, tally)


@_compiled
def sent_by(p: Params, s: Sessions, i: int, now: float, tally: Tally) -> int:
    """Take back what was to be sent after `now`, which a leg that closes now will not send. Returns the next chunk to send."""
    while s.sent[i] > s.base[i] and s.sent_at[i, (s.sent[i] - 1) & (RING - 1)] > now:
        s.sent[i] -= 1
        tally_chunk(p, s, i, s.sent[i], s.sent_at[i, s.sent[i] & (RING - 1)], tally, -1)
        if s.sent[i] == 0:
            s.origin[i] = np.inf
    return int(s.sent[i])
