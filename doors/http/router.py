"""Finds the endpoint of a request, whatever its room. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from starlette.convertors import Convertor
from starlette.routing import compile_path

from doors.http.room import Endpoint, Room, SocketEndpoint, WithSockets

_PARAMETER = re.compile(r"\{\w+(:\w+)?\}")
# Paths are looked up by so many of their first segments, because to try all patterns costs a small request much of its time.
_INDEXED = 2
# What was found is remembered for so many paths, of at most so many characters: callers that poll ask for the same one again and again.
_MOST_REMEMBERED, _MOST_CHARS = 4096, 256


class Routed(Protocol):
    """What can be found."""

    @property
    def path(self) -> str: ...

    @property
    def method(self) -> str: ...


E = TypeVar("E", bound=Routed)


@dataclass(frozen=True, slots=True)
class Found(Generic[E]):
    """The endpoint that answers, and the parameters of its path, which nobody changes."""

    room: Room
    endpoint: E
    parameters: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Missing:
    """None answers. `room` is the one whose paths are most like this one; `methods` are those that the path has, if it has any."""

    room: Room
    methods: tuple[str, ...] = ()


@dataclass(slots=True)
class _Path(Generic[E]):
    """One path and what answers it, by method."""

    pattern: re.Pattern[str]
    convertors: dict[str, Convertor[Any]]
    template: str
    answers: dict[str, tuple[Room, E]]


class Router(Generic[E]):
    """Of the paths that fit, the one with the longest text before its first parameter counts; of equal ones, the first room's.

    Args:
        rooms: with their endpoints; the first one also answers for paths that are like nobody's.

    Raises:
        ValueError: two endpoints answer the same method of the same path.
    """

    def __init__(self, rooms: Sequence[tuple[Room, Sequence[E]]]) -> None:
        self._rooms = rooms
        self._remembered: dict[tuple[str, str], Found[E]] = {}
        self._fixed: dict[str, _Path[E]] = {}
        self._open: dict[tuple[str, ...], list[_Path[E]]] = {}
        paths: dict[str, _Path[E]] = {}
        for room, endpoints in rooms:
            for endpoint in endpoints:
                pattern, _, convertors = compile_path(endpoint.path)
                shape = _PARAMETER.sub("{}", endpoint.path)
                path = paths.setdefault(shape, _Path(pattern, convertors, endpoint.path, {}))
                if path.template != endpoint.path:  # the same shape with other names for its parameters
                    path = paths.setdefault(endpoint.path, _Path(pattern, convertors, endpoint.path, {}))
                taken = {method for other in paths.values() if _PARAMETER.sub("{}", other.template) == shape for method in other.answers}
                if endpoint.method in taken:
                    raise ValueError(f"{room.name}: {endpoint.method} {endpoint.path} is answered already")
                path.answers[endpoint.method] = (room, endpoint)
        self._segments = [(endpoint.path.split("/"), room) for room, endpoints in rooms for endpoint in endpoints]
        for path in sorted(paths.values(), key=lambda path: len(_literal(path.template)), reverse=True):
            if _PARAMETER.search(path.template) is None:
                self._fixed[path.template] = path
            else:
                self._open.setdefault(_whole(_literal(path.template)), []).append(path)

    def find(self, method: str, path: str) -> Found[E] | Missing:
        """What answers. HEAD is answered as GET is."""
        known = self._remembered.get((method, path))
        if known is not None:
            return known
        found = self._find(method, path)
        if isinstance(found, Found) and len(path) <= _MOST_CHARS:
            while len(self._remembered) >= _MOST_REMEMBERED:
                del self._remembered[next(iter(self._remembered))]
            self._remembered[method, path] = found
        return found

    def _find(self, method: str, path: str) -> Found[E] | Missing:
        fitting = list(self._fitting(path))
        wanted = (method, "GET") if method == "HEAD" else (method,)
        for name in wanted:
            for found, parameters in fitting:
                if (answer := found.answers.get(name)) is not None:
                    return Found(*answer, parameters)
        methods = {name for found, _ in fitting for name in found.answers}
        if "GET" in methods:
            methods.add("HEAD")
        if not fitting:
            return Missing(self._nearest(path))
        nearest, _ = next(iter(fitting[0][0].answers.values()))
        return Missing(nearest, tuple(sorted(methods)))

    def _fitting(self, path: str) -> Iterator[tuple[_Path[E], dict[str, Any]]]:
        if (fixed := self._fixed.get(path)) is not None:
            yield fixed, {}
        first = _whole(path)
        # Whoever shares more whole segments with the path has the longer beginning, too.
        for shared in range(len(first), -1, -1):
            for candidate in self._open.get(first[:shared], ()):
                if (match := candidate.pattern.match(path)) is not None:
                    values = match.groupdict()
                    yield candidate, {name: candidate.convertors[name].convert(value) for name, value in values.items()}

    def _nearest(self, path: str) -> Room:
        """Whose path shares the most segments with this one."""
        asked = path.split("/")
        nearest, best = self._rooms[0][0], 1  # the empty segment before the first slash
        for segments, room in self._segments:
            shared = 0
            for ours, theirs in zip(segments, asked, strict=False):
                if ours != theirs:
                    break
                shared += 1
            if shared > best:
                nearest, best = room, shared
        return nearest


def endpoint_router(rooms: Sequence[Room]) -> Router[Endpoint]:
    """Of requests."""
    return Router([(room, room.endpoints()) for room in rooms])


def socket_router(rooms: Sequence[Room]) -> Router[SocketEndpoint]:
    """Of requests for a WebSocket."""
    return Router([(room, room.sockets() if isinstance(room, WithSockets) else ()) for room in rooms])


def _literal(template: str) -> str:
    """What stands before the first parameter."""
    return template.partition("{")[0]


def _whole(path: str) -> tuple[str, ...]:
    """Of the first segments those that have a slash behind them, so that no parameter stands in them."""
    return tuple(path.split("/", _INDEXED + 1)[1:-1])
