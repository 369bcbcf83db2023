"""Compiled batch sizes. A batch is padded to the next one."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence


def bucket_for(rows: int, buckets: Sequence[int]) -> int:
    """The smallest compiled batch size that holds `rows`.

    Raises:
        ValueError: no bucket is large enough.
    """
    if rows > buckets[-1]:
        raise ValueError(f"{rows} rows do not fit the buckets {tuple(buckets)}")
    return buckets[bisect_left(buckets, rows)]
