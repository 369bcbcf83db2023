"""The compiled data plane: every forward of every denoise replica, every chunk through its decoder, on `arrays`.

The same events as in `fine`, which is its oracle: a test holds the two against each other. Between two calls of `advance` replicas
do not know of each other, so each runs through the whole window by itself, and the decoders follow with what came out, each in the order
of time. A chunk's sending is known at the end of the window at the latest, long before its session can feel it.

A chunk c of a session goes through
    made    its last denoise step ends; at most `max_lead` wait for the next
    taken   by the decoder, `ahead` chunks before the front door asks for it
    sent    decoded, and asked for: not before the chunk before was sent, nor earlier than `lead_s` before it is due
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba
import numpy as np

from autoscaling.simulator.arrays import RING, Engines, Floats, Params, Records, Taken, Tally

F = TypeVar("F", bound=Callable[..., Any])

EPSILON_S = 1e-9


# Without reference counts, whose atomic operations took half of the time: nothing in here may make an array or a view of one.
_OPTIONS: dict[str, Any] = {"cache": True, "error_model": "numpy", "_nrt": False}


def _compiled(function: F) -> F:
    return cast("F", numba.njit(**_OPTIONS)(function))


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
def _asked_at(p: Params, e: Engines, row: int, chunk: int) -> float:
    """When the front door asks for `chunk` of the leg; infinity while that is not known."""
    base = e.rows[row].base
    if chunk < base or (chunk == base and e.rows[row].origin == np.inf):
        return -np.inf
    pace = e.rows[row].origin + chunk * p.chunk_s - p.lead_s
    if chunk == base:
        return float(pace)
    if e.rows[row].sent < chunk:
        return np.inf
    return float(max(pace, e.rows[row].sent_at[(chunk - 1) & (RING - 1)]))


@_compiled
def _take_at(p: Params, e: Engines, row: int) -> float:
    """When the decoder takes the oldest chunk that waits; infinity if none does."""
    chunk = e.rows[row].taken
    if chunk >= e.rows[row].made:
        return np.inf
    return float(max(e.rows[row].made_at[chunk & (RING // 2 - 1)], _asked_at(p, e, row, chunk - p.ahead)))


@_compiled
def _take(p: Params, e: Engines, row: int, now: float, out: Taken) -> None:
    at = _take_at(p, e, row)
    while at <= now:
        n = out.filled[0]
        out.at[n], out.row[n], out.chunk[n], out.decoder[n] = at, row, e.rows[row].taken, e.rows[row].decoder
        out.filled[0] = n + 1
        e.rows[row].taken += 1
        at = _take_at(p, e, row)


@_compiled
def _begin_chunk(p: Params, e: Engines, row: int) -> None:
    """The next one: its deadline, and when it may be worked on; infinity if none is to be made or the decoder must take one first."""
    made = e.rows[row].made
    e.rows[row].left = e.rows[row].steps
    e.rows[row].due = e.rows[row].base_due + (made - e.rows[row].base) * p.chunk_s
    if made >= e.rows[row].end:
        e.rows[row].from_at = np.inf
    elif made - e.rows[row].taken >= p.max_lead:
        e.rows[row].from_at = _take_at(p, e, row)


@_compiled
def _slack(e: Engines, row: int, now: float, step_s: float) -> float:
    return float(e.rows[row].due - now - e.rows[row].left * step_s)


@_compiled
def _line_up(p: Params, e: Engines, now: float, held: int, out: Taken) -> tuple[int, float]:
    """Order rows as `model_core.engine.step_scheduler.schedule` does; how many may run, and when the next of the others may.

    They stand in the order of last time, so that little moves. Who may not run comes last.
    """
    ready, wake = 0, np.inf
    for k in range(held):
        row, key, j = e.line[k], np.inf, k
        if e.rows[row].from_at <= now:
            if e.rows[row].made - e.rows[row].taken >= p.max_lead:
                _take(p, e, row, now, out)
            key = min(_slack(e, row, now, p.step_s[0]), p.comfort_s)
            ready += 1
        else:
            wake = min(wake, e.rows[row].from_at)
        while j > 0 and (key < e.keys[j - 1] or (key == e.keys[j - 1] and _goes_before(e, row, e.line[j - 1]))):
            e.line[j], e.keys[j] = e.line[j - 1], e.keys[j - 1]
            j -= 1
        e.line[j], e.keys[j] = row, key
    return ready, wake


@_compiled
def _goes_before(e: Engines, row: int, other: int) -> bool:
    """Of two with as much slack: whoever's turn is longer ago; of two that had none, by row."""
    return bool(e.rows[row].turn < e.rows[other].turn or (e.rows[row].turn == e.rows[other].turn and row < other))


@_compiled
def _joined(p: Params, e: Engines, now: float, ready: int) -> int:
    """How many of the rows in order join before one would make another, on time until then, late."""
    ready = min(ready, p.buckets[-1])
    # The first has the least slack, or as much as any that matters: if the largest batch does not make it late, all join.
    if e.keys[0] >= p.steps * (p.step_s[-1] - p.step_s[0]):
        return ready
    bucket, fine = -1, 0  # so many of the first are not made late by this bucket
    for n in range(1, ready):
        before, bucket = bucket, _bucket(p, n + 1)
        for k in range(fine if bucket == before else 0, n):
            if _slack(e, e.line[k], now, p.step_s[0]) >= 0.0 > _slack(e, e.line[k], now, p.step_s[bucket]):
                return n
        fine = n
    return ready


@_compiled
def _account(p: Params, e: Engines, r: int, expected_s: float) -> float:
    seconds = expected_s * noise_factor(p.seed, e.of[r].key, e.of[r].forwards, p.noise)
    e.of[r].forwards += 1
    e.of[r].busy_s += seconds
    e.of[r].expected_s += expected_s
    return seconds


@_compiled
def _forward(p: Params, e: Engines, r: int, now: float, n: int) -> float:
    """One step for `n` rows, and the commit of those whose chunk it finished. Returns its end."""
    now = now + e.of[r].owed_s + _account(p, e, r, p.step_s[_bucket(p, n)])
    e.of[r].owed_s = 0.0
    turn, done = e.of[r].turns, 0
    for k in range(n):
        row, turn = e.line[k], turn + 1
        e.rows[row].turn = turn
        e.rows[row].left -= 1
        if e.rows[row].left <= 0:
            e.rows[row].made_at[e.rows[row].made & (RING // 2 - 1)] = now
            e.rows[row].made += 1
            _begin_chunk(p, e, row)
            done += e.rows[row].made < e.rows[row].end
    e.of[r].turns = turn
    if done:
        now += _account(p, e, r, p.commit_s[_bucket(p, done)])
    return now


@_compiled
def _run_engine(p: Params, e: Engines, r: int, until: float, out: Taken) -> int:
    """Forwards that begin before `until`. Returns how many."""
    held, row = 0, r * p.slots
    while held < e.of[r].held:
        if e.rows[row].session >= 0:
            if e.rows[row].made - e.rows[row].taken >= p.max_lead and e.rows[row].made < e.rows[row].end:
                e.rows[row].from_at = _take_at(p, e, row)  # what was sent meanwhile is known only now
            e.line[held] = row
            held += 1
        row += 1
    now, forwards = e.of[r].free_at, 0
    while now < until:
        ready, wake = _line_up(p, e, now, held, out)
        if ready:
            now = _forward(p, e, r, now, _joined(p, e, now, ready))
            forwards += 1
        elif wake < until:
            now = wake
        else:
            break
    e.of[r].free_at = now
    for k in range(held):
        _take(p, e, e.line[k], until, out)
    return forwards


@_compiled
def _by_decoder(e: Engines, decoders: int, out: Taken) -> None:
    """Order places by decoder, then time, then session."""
    for k in range(decoders):
        out.end[k] = 0
    for place in range(out.filled[0]):
        out.end[out.decoder[place]] += 1
    begin = 0
    for k in range(decoders):
        out.begin[k], begin = begin, begin + out.end[k]
        out.end[k] = out.begin[k]
    for place in range(out.filled[0]):
        k = out.decoder[place]
        j = out.end[k]
        out.end[k] += 1
        while j > out.begin[k] and _comes_before(e, out, place, out.order[j - 1]):  # few are of one decoder
            out.order[j] = out.order[j - 1]
            j -= 1
        out.order[j] = place


@_compiled
def _comes_before(e: Engines, out: Taken, place: int, other: int) -> bool:
    if out.at[place] != out.at[other]:
        return bool(out.at[place] < out.at[other])
    return bool(e.rows[out.row[place]].session < e.rows[out.row[other]].session)


@_compiled
def _tally_chunk(p: Params, e: Engines, row: int, chunk: int, at: float, tally: Tally, sign: int) -> None:
    """Count `chunk`, sent at `at`; with `sign` -1, take it back."""
    where = min(int(at / p.bin_s), tally.late.size - 1)
    if at > e.rows[row].origin + chunk * p.chunk_s + EPSILON_S:
        tally.late[where] += sign
    else:
        tally.on_time[where] += sign
    tally.degraded[where] += sign * e.rows[row].reduced


@_compiled
def _decode(p: Params, s: Records, e: Engines, d: Records, out: Taken, tally: Tally) -> None:
    _by_decoder(e, d.size, out)
    for k in range(d.size):
        for n in range(out.begin[k], out.end[k]):
            place = out.order[n]
            row, chunk = out.row[place], out.chunk[place]
            seconds = p.decode_s * noise_factor(p.seed, d[k].key, d[k].chunks, p.noise)
            d[k].free_at = max(d[k].free_at, out.at[place] + p.hop_s) + seconds
            d[k].busy_s += seconds
            d[k].chunks += 1
            at = max(d[k].free_at + p.hop_s, _asked_at(p, e, row, chunk))
            if e.rows[row].origin == np.inf:
                e.rows[row].origin = s[e.rows[row].session].origin = at - chunk * p.chunk_s
            e.rows[row].sent_at[chunk & (RING - 1)] = at
            e.rows[row].sent = chunk + 1
            _tally_chunk(p, e, row, chunk, at, tally, 1)
            if chunk == e.rows[row].end - 1:
                s[e.rows[row].session].ended_at = at
                tally.ended[tally.ended_count[0]] = e.rows[row].session
                tally.ended_count[0] += 1


@_compiled
def _close(p: Params, s: Records, e: Engines, i: int, now: float, tally: Tally) -> None:
    """Its leg, which does not send what it was to send after `now`."""
    row = s[i].row
    while e.rows[row].sent > e.rows[row].base and e.rows[row].sent_at[(e.rows[row].sent - 1) & (RING - 1)] > now:
        e.rows[row].sent -= 1
        chunk = e.rows[row].sent
        _tally_chunk(p, e, row, chunk, e.rows[row].sent_at[chunk & (RING - 1)], tally, -1)
        s[i].ended_at = np.inf
        if chunk == 0:
            s[i].origin = np.inf
    s[i].sent = e.rows[row].sent
    e.rows[row].session = -1
    e.of[s[i].engine].held -= 1
    s[i].engine = -1


@_compiled
def _open(p: Params, s: Records, e: Engines, i: int, r: int, decoder: int, steps: int, ready_at: float) -> None:
    row, next_chunk, origin = r * p.slots, s[i].sent, s[i].origin
    while e.rows[row].session >= 0:
        row += 1
    s[i].engine, s[i].row = r, row
    e.rows[row].session, e.rows[row].decoder, e.rows[row].end = i, decoder, s[i].end
    e.rows[row].steps, e.rows[row].reduced, e.rows[row].turn = steps, steps < s[i].steps, -1
    e.rows[row].base = e.rows[row].made = e.rows[row].taken = e.rows[row].sent = next_chunk
    e.rows[row].origin, e.rows[row].base_due = origin, ready_at if origin == np.inf else origin + next_chunk * p.chunk_s
    e.rows[row].from_at = ready_at
    _begin_chunk(p, e, row)
    e.of[r].held += 1
    suffix = min(p.suffix, next_chunk)
    if suffix:
        e.of[r].owed_s += p.commit_s[_bucket(p, suffix)]


@_compiled
def obey(p: Params, s: Records, e: Engines, orders: Floats, tally: Tally) -> None:
    """Open and close legs, in this order: columns session, engine (-1: close), decoder, steps, now, ready_at."""
    for k in range(orders.shape[0]):
        i, r = int(orders[k, 0]), int(orders[k, 1])
        if s[i].engine >= 0:
            _close(p, s, e, i, orders[k, 4], tally)
        if r >= 0:
            _open(p, s, e, i, r, int(orders[k, 2]), int(orders[k, 3]), orders[k, 5])


@_compiled
def advance(p: Params, s: Records, e: Engines, d: Records, orders: Floats, until: float, out: Taken, tally: Tally) -> None:
    """Obey, then move every replica on to `until`."""
    obey(p, s, e, orders, tally)
    out.filled[0] = 0
    for r in range(e.of.size):
        if e.of[r].held:
            tally.events[0] += _run_engine(p, e, r, until, out)
    tally.events[1] += out.filled[0]
    tally.events[2] += out.filled[0]
    _decode(p, s, e, d, out, tally)
