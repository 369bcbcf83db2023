"""Every error Headrace raises on purpose.

    HeadraceError
    ├── InvalidRequest        the caller's fault; names each field, its limit and the value  (INVALID_ARGUMENT)
    ├── CapacityExceeded      no slot within the waiting bound; says when to retry           (RESOURCE_EXHAUSTED)
    ├── StageUnavailable      a stage died or is not ready; the session can be reopened      (UNAVAILABLE)
    │   ├── EngineDead        the denoise loop crashed or is stuck; the replica must be replaced
    │   ├── ChunkFailed       one chunk of this session could not be made; it is tried once more
    │   └── StageDraining     the replica has been told to stop; reopen at once, another one is there
    ├── SessionBroken         a chunk of this session cannot be made, tried twice             (INTERNAL)
    ├── DeviceBroken          a device computes something else than it did when it was loaded (ends the replica)
    ├── ShapeNotServed        a graph was run in a shape that it is not compiled for: a bug  (ends the session)
    ├── RuntimeUnavailable    the device, its package or its compiled graphs are not there   (start-up only)
    └── WeightsError          a checkpoint is missing, damaged or not the one pinned         (start-up only)

The gRPC status in brackets is applied at the front door, nowhere else.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module
from typing import Any


class HeadraceError(Exception):
    """Root of the tree. Read in a process of another version, it is the nearest of its classes that there are."""

    def __reduce__(self) -> tuple[Any, tuple[list[str], str, dict[str, Any]]]:
        kinds = [kind for kind in type(self).__mro__ if issubclass(kind, HeadraceError)]
        return read_error, ([f"{kind.__module__}:{kind.__qualname__}" for kind in kinds], str(self), self.__dict__)


def read_error(paths: list[str], message: str, attributes: dict[str, Any]) -> HeadraceError:
    """What `HeadraceError.__reduce__` wrote; `paths` are its class and those above it, the root last."""
    kind = _first_found(paths)
    error = kind.__new__(kind, message)
    error.__dict__.update(attributes)
    return error


def _first_found(paths: list[str]) -> type[HeadraceError]:
    for path in paths:
        module, name = path.split(":")
        with suppress(ImportError, AttributeError):
            found: type[HeadraceError] = getattr(import_module(module), name)
            return found
    return HeadraceError


@dataclass(frozen=True, slots=True)
class FieldViolation:
    """One bad field: its path in the request, and a sentence with the limit and the value."""

    field: str
    description: str

    def __reduce__(self) -> tuple[type[FieldViolation], tuple[str, str]]:
        # As Python would pickle it, another version could take one field for another.
        return (FieldViolation, (self.field, self.description))


class InvalidRequest(HeadraceError):
    """The request breaks one or more documented limits."""

    def __init__(self, violations: tuple[FieldViolation, ...]) -> None:
        self.violations = violations
        super().__init__("; ".join(f"{v.field}: {v.description}" for v in violations))

    def under(self, path: str) -> InvalidRequest:
        """The same, of fields that stand below `path` in the message that was sent."""
        return InvalidRequest(tuple(FieldViolation(path + v.field, v.description) for v in self.violations))


class CapacityExceeded(HeadraceError):
    """All slots are taken and the waiting room is full."""

    def __init__(self, message: str, retry_after_s: float) -> None:
        self.retry_after_s = retry_after_s
        super().__init__(message)


class StageUnavailable(HeadraceError):
    """A stage cannot serve now. The session's log is intact: reopen it elsewhere."""


class EngineDead(StageUnavailable):
    """The denoise loop of this replica has ended with an exception, or hangs in a forward."""


class DeviceBroken(HeadraceError):
    """A device does not compute what it computed when its stage was loaded. It stays inside the stage, which ends with it."""


class ChunkFailed(StageUnavailable):
    """One chunk of this session could not be made, on a device that computes what it should: the session is tried once more."""

    def __init__(self, message: str, chunk: int) -> None:
        self.chunk = chunk
        super().__init__(message)


class SessionBroken(HeadraceError):
    """A chunk of this session cannot be made, however often it is tried; others are not concerned."""


class StageDraining(StageUnavailable):
    """This replica is about to stop, in order, and others serve: the session goes on there, without waiting."""


class ShapeNotServed(HeadraceError):
    """Nothing is compiled inside a request; sizes that callers choose are refused before they reach a graph."""


class RuntimeUnavailable(HeadraceError):
    """A stage cannot run on what its configuration names: no such device, package, setting, or manifest of compiled graphs."""


class WeightsError(HeadraceError):
    """Weights are missing, damaged, or differ from the pinned checksum."""
