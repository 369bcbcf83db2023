"""Where a job can be gone on with, as a file beside its parts: the session's record, and what the frames so far have cost."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from model_core.session_log import SessionRecord
from service.events import Usage

_LENGTH = struct.Struct("<I")
_MOST_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class Point:
    """One such place.

    Attributes:
        record: as it was after the last frame that the parts have.
        usage: of those frames, in whatever attempt they were made.
    """

    record: SessionRecord
    usage: Usage

    def to_bytes(self) -> bytes:
        usage = json.dumps(asdict(self.usage)).encode()
        return b"".join((_LENGTH.pack(len(usage)), usage, self.record.to_bytes()))

    @classmethod
    def from_bytes(cls, data: bytes) -> Point:
        """The inverse.

        Raises:
            ValueError: `data` is no such file of this version, or is cut.
        """
        try:
            (size,) = _LENGTH.unpack_from(data)
            if not 0 < size <= min(_MOST_BYTES, len(data) - _LENGTH.size):
                raise ValueError(f"a usage of {size} bytes in {len(data)}")
            end = _LENGTH.size + size
            return cls(SessionRecord.from_bytes(data[end:]), _usage(json.loads(data[_LENGTH.size : end])))
        except (ValueError, TypeError, struct.error) as error:
            raise ValueError(f"no checkpoint: {error}") from error


def _usage(found: Mapping[str, Any]) -> Usage:
    """Fields that this version does not know are left out."""
    known = {each.name for each in fields(Usage)}
    return Usage(**{name: value for name, value in found.items() if name in known})
