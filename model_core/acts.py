"""The keys of worlds: what a viewer may hold while a session plays, and what they say together. Plain Python, without tensors."""

from __future__ import annotations

from collections.abc import Iterable

from model_core.errors import FieldViolation, InvalidRequest

Keys = tuple[str, ...]
ARROWS: Keys = ("up", "down", "left", "right")  # in the order of a world's weights
_SHOWN = 64  # characters of a name that nobody has


def keys_held(keys: Iterable[str], known: Keys, field: str) -> Keys:
    """The keys that are held, each once, in the model's own order.

    Args:
        keys: in any order.
        known: the model's keys; empty where it takes none.
        field: where they stand in the request.

    Raises:
        InvalidRequest: the model takes no keys, or not one of these.
    """
    wanted = set(keys)
    if not known:
        raise InvalidRequest((FieldViolation(field, "must come only to a model that takes actions; this one takes none"),))
    if unknown := sorted(wanted - set(known)):
        raise InvalidRequest((FieldViolation(field, f"must be among: {', '.join(known)}; got {unknown[0][:_SHOWN]!r}"),))
    return tuple(key for key in known if key in wanted)


def heading(keys: Iterable[str]) -> tuple[int, int]:
    """Where these arrow keys lead: down and right, -1, 0 or 1 each. Opposite keys cancel."""
    wanted = set(keys)
    return ("down" in wanted) - ("up" in wanted), ("right" in wanted) - ("left" in wanted)


def counting(keys: Iterable[str]) -> Keys:
    """Those of the arrow keys that count: of two opposite ones, neither does."""
    down, right = heading(keys)
    vertical = {-1: ("up",), 0: (), 1: ("down",)}[down]
    horizontal = {-1: ("left",), 0: (), 1: ("right",)}[right]
    return vertical + horizontal
