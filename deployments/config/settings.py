"""What all groups of the configuration's settings have in common."""

from __future__ import annotations

from typing import Any, get_args

from pydantic import BaseModel, ConfigDict, ValidationInfo, field_validator


class Settings(BaseModel):
    """Refuses keys that it does not know, numbers without end, and `true`, `false`, `yes` and `no` where a number belongs."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _no_flag_for_a_number(cls, value: object, info: ValidationInfo) -> object:
        """YAML reads `yes` and `on` as true, which pydantic would take for 1."""
        found = value if isinstance(value, list) else [value]
        flags = [each for each in found if isinstance(each, bool)]
        if flags and not _takes_flags(cls.model_fields[str(info.field_name)].annotation):
            raise ValueError(f"must not be true or false, which YAML reads from yes and no, too; got {str(flags[0]).lower()}")
        return value


def _takes_flags(annotation: Any) -> bool:
    return annotation is bool or any(_takes_flags(part) for part in get_args(annotation))
