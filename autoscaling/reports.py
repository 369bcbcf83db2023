"""What replicas report of themselves: the one schema, and how a report travels.

Ray Serve carries numbers by name and nothing else, so a report is flattened where it is made and parsed where it is read:

    flatten(ReplicaReport(7.0, decoder=DecoderStatistics(sessions=3, ...)))  ->  {"replica": 7.0, "decoder_sessions": 3.0, ...}
    parse(ReplicaReport, numbers)                                            ->  the same ReplicaReport

The name of a number is its path through the fields below. No other module spells one, so writers and readers cannot differ, and a test
pins the names, so that none changes by accident.

Two versions of a replica run side by side during a rolling update, so `parse` follows four rules. A number that the schema does not
know is skipped. A number that is missing takes its field's default; every field that is added later must have one. A number that is
missing and has no default raises `ReportError`, because a guess of zero would pass for a fact. If every number is missing there is no
report, or no such section of it: None. (Serve has counts of its own from a replica that has not reported yet.)
"""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from itertools import count
from typing import Any, NamedTuple, TypeVar, get_args, get_origin, get_type_hints

from model_core.statistics import DecoderStatistics, DenoiserStatistics, EnhancerStatistics, TextEncoderStatistics

R = TypeVar("R")

_NAME = "name"


class ReportError(ValueError):
    """Numbers that make no report: some that it must have are missing."""


@dataclass(frozen=True, slots=True)
class LinkStatistics:
    """Streams `open` now and `opened` ever, items `sent`, and items the open streams may send before they must wait."""

    open: int
    opened: int
    sent: int
    credit: int


@dataclass(frozen=True, slots=True)
class ProcessStatistics:
    """A process and its event loop: unfinished asyncio `tasks`, open `files` (sockets too), resident memory. A leak would show here."""

    pid: int
    tasks: int
    files: int
    resident_bytes: int


@dataclass(frozen=True, slots=True)
class ControlStatistics:
    """What admission counts: sessions now, and ever.

    Attributes:
        live, degraded, waiting: that run, how many of those below what they asked for, and in line.
        level: of brown-out.
        capacity: sessions that fit at level 0.
        live_jobs, waiting_jobs: how many of those have no playback to keep up with.
        arrivals, departures: of paced sessions: those that asked, the refused ones too; and those that ran and ended.
        paused: how many of those that run stand still.
        aside: paused, without a slot; in none of the above.
    """

    live: int
    degraded: int
    waiting: int
    level: int
    capacity: int
    live_jobs: int
    waiting_jobs: int
    arrivals: int
    departures: int
    paused: int = 0
    aside: int = 0


@dataclass(frozen=True, slots=True)
class ViewerTotals:
    """What viewers of one front door have got since its start; see `autoscaling.scaling.Observation`."""

    prompts: float
    chunks: float
    late_chunks: float
    first_frames: float
    late_first_frames: float


@dataclass(frozen=True, slots=True)
class Terms:
    """What admission and scaling must agree on: a chunk's playback seconds, the steps of full quality, utilisation, brown-out levels.

    `decode_slots`: sessions that a decode replica holds, whatever its speed; 0 for as many as it keeps up with. `enhance_slots`: the same
    of an enhance replica.
    """

    chunk_s: float
    steps: int
    utilisation: float
    tiers: tuple[int, ...] = ()
    decode_slots: int = 0
    enhance_slots: int = 0


@dataclass(frozen=True, slots=True)
class ReplicaReport:
    """A replica of one or more stages.

    Attributes:
        replica: a random number that tells this replica from others.
        text_encoder, denoiser, decoder, enhancer: what its stages count; None for a stage that it does not have.
        link, process: left out of what goes to the autoscaler.
    """

    replica: float
    text_encoder: TextEncoderStatistics | None = None
    denoiser: DenoiserStatistics | None = None
    decoder: DecoderStatistics | None = None
    link: LinkStatistics | None = None
    process: ProcessStatistics | None = None
    enhancer: EnhancerStatistics | None = None


@dataclass(frozen=True, slots=True)
class FrontDoorReport:
    """A front door.

    Attributes:
        admission, viewers: what it has admitted, and what its viewers have got.
        terms: of the application.
        open: calls that are open.
        enhanced: sessions that wait or run and want their frames enhanced.
        process: left out of what goes to the autoscaler.
    """

    admission: ControlStatistics = field(metadata={_NAME: "front_door"})
    viewers: ViewerTotals = field(metadata={_NAME: "front_door"})
    terms: Terms
    open: int = field(default=0, metadata={_NAME: "front_door_open"})
    process: ProcessStatistics | None = None
    enhanced: int = field(default=0, metadata={_NAME: "front_door_enhanced"})


def flatten(report: Any) -> dict[str, float]:
    """The numbers of a report, by name. A section that is None is left out."""
    return dict(_numbers(report, ""))


def parse(kind: type[R], numbers: Mapping[str, float]) -> R | None:
    """The report that `flatten` made `numbers` of; None if it made none of them.

    Raises:
        ReportError: a number is missing that has no default.
    """
    report: R | None = _report(kind, "", numbers) if _is_reported(kind, "", numbers) else None
    return report


class _Field(NamedTuple):
    """One field of a dataclass: a number, a tuple of numbers, or a section, which is a dataclass itself. `kind` is that of the item."""

    attribute: str
    name: str
    kind: Any
    is_tuple: bool
    is_section: bool
    is_required: bool


@cache
def _fields(kind: Any) -> tuple[_Field, ...]:
    hints = get_type_hints(kind)
    found = []
    for each in dataclasses.fields(kind):
        hint, is_tuple = hints[each.name], False
        if get_origin(hint) is types.UnionType:
            (hint,) = (each_hint for each_hint in get_args(hint) if each_hint is not types.NoneType)
        if get_origin(hint) is tuple:
            hint, _ = get_args(hint)
            is_tuple = True
        is_section = dataclasses.is_dataclass(hint)
        if not is_section and hint not in {int, float}:
            raise TypeError(f"{kind.__name__}.{each.name} must be a number, a tuple of numbers or a dataclass of these; got {hint}")
        is_required = each.default is dataclasses.MISSING and each.default_factory is dataclasses.MISSING
        found.append(_Field(each.name, each.metadata.get(_NAME, each.name), hint, is_tuple, is_section, is_required))
    return tuple(found)


def _numbers(report: Any, prefix: str) -> Iterator[tuple[str, float]]:
    kind: Any = type(report)
    for each in _fields(kind):
        value, name = getattr(report, each.attribute), prefix + each.name
        if value is None:
            continue
        if each.is_section:
            yield from _numbers(value, f"{name}_")
        elif each.is_tuple:
            yield from ((f"{name}_{n}", float(item)) for n, item in enumerate(value))
        else:
            yield name, float(value)


def _report(kind: Any, prefix: str, numbers: Mapping[str, float]) -> Any:
    values: dict[str, Any] = {}
    missing: list[str] = []
    for each in _fields(kind):
        name = prefix + each.name
        if each.is_section:
            if each.is_required or _is_reported(each.kind, f"{name}_", numbers):
                values[each.attribute] = _report(each.kind, f"{name}_", numbers)
        elif each.is_tuple:
            values[each.attribute] = tuple(each.kind(item) for item in _items(name, numbers))
        elif name in numbers:
            values[each.attribute] = each.kind(numbers[name])
        elif each.is_required:
            missing.append(name)
    if missing:
        raise ReportError(f"{kind.__name__} must have {', '.join(missing)}; the replica reports none of these")
    return kind(**values)


def _items(name: str, numbers: Mapping[str, float]) -> Iterator[float]:
    for n in count():
        if (value := numbers.get(f"{name}_{n}")) is None:
            return
        yield value


def _is_reported(kind: Any, prefix: str, numbers: Mapping[str, float]) -> bool:
    """Whether any number of a dataclass is there: then all that it must have are expected."""

    def found(each: _Field) -> bool:
        name = prefix + each.name
        if each.is_section:
            return _is_reported(each.kind, f"{name}_", numbers)
        return (f"{name}_0" if each.is_tuple else name) in numbers

    return any(map(found, _fields(kind)))
