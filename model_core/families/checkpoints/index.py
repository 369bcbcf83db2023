"""Whether `model_index.json` names what a family needs, and nothing that would be ignored. Without torch."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from model_core.errors import WeightsError
from model_core.families.checkpoints.checkpoint import INDEX, Checkpoint


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexRules:
    """What a family's `model_index.json` may have.

    Attributes:
        optional: components that it may name besides those that are needed.
        settings: other keys that the family reads.
        flags: those of them that are true or false.
        off: settings of other families, which change nothing where they are false.
        advice: what a message about an unknown setting ends with.
    """

    optional: Collection[str]
    settings: Collection[str]
    flags: Collection[str]
    off: Collection[str]
    advice: str


def check_index(checkpoint: Checkpoint, needed: Mapping[str, str], rules: IndexRules) -> None:
    """Check that `model_index.json` names every component that is needed, and nothing that would be ignored.

    Args:
        checkpoint: what is described.
        needed: classes by component; empty for any.
        rules: of the family.

    Raises:
        WeightsError: it does not.
    """
    index = checkpoint.index()
    for component, kind in needed.items():
        if not checkpoint.names(component):
            raise WeightsError(f"{INDEX} of {checkpoint.folder} names no {component} (it says {index.get(component)!r}), and it is needed")
        if kind and index[component][1] not in (kind, None):
            raise WeightsError(f"{INDEX} of {checkpoint.folder} says that {component} is a {index[component][1]!r}; expected a {kind}")
    _check_values(index, (*needed, *rules.optional), rules.flags)
    for name, value in index.items():
        if name.startswith("_") or value is None or name in rules.settings or name in needed or name in rules.optional:
            continue
        if isinstance(value, list) and len(value) == 2:
            if checkpoint.names(name):
                raise WeightsError(f"{INDEX} of {checkpoint.folder} names {name}, a {value[1]!r}, for which the family has no use")
            continue
        if name in rules.off and value is False:
            continue
        raise WeightsError(
            f"{INDEX} of {checkpoint.folder} has {name}, a setting that the family does not know: remove it if it changes nothing"
            f"{rules.advice}"
        )


def _check_values(index: Mapping[str, Any], components: Sequence[str], flags: Collection[str]) -> None:
    """Raises WeightsError: what `model_index.json` says of a component, or of a flag, is none of what diffusers writes."""
    for name in flags:
        if not isinstance(index.get(name), bool | None):
            raise WeightsError(f"{INDEX}: {name} must be true or false; got {index[name]!r}")
    for name in components:
        if not _is_entry(index.get(name)):
            raise WeightsError(f"{INDEX}: {name} must be a library and a class, or null; got {str(index[name])[:64]!r}")


def _is_entry(value: object) -> bool:
    """Whether `model_index.json` may have it for a component."""
    return value is None or (isinstance(value, list) and len(value) == 2 and all(isinstance(part, str | None) for part in value))
