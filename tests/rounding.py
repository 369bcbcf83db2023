"""How far two computations of one thing may be apart, where nothing but rounding tells them apart.

Bits are equal only for the same graph in the same shapes on the same machine. Another order of the same sums, another kernel or another
library rounds otherwise, and how it does so is the processor's affair. So nothing here was measured: a bound follows from what is summed.

A sum of n numbers in a type with unit roundoff u (half its machine epsilon) is off by at most n * u times the sum of their sizes. Roundings
fall on both sides, so the usual error is that of a random walk: sqrt(n) * u times the size of the result (Higham, Accuracy and Stability of
Numerical Algorithms, 2002, chapters 3 and 4). Those of `sums` sums in a row are independent, so they add up to sqrt(sums) times as much.
What lies between two sums (norms, exponentials, a softmax) about doubles that, and two computations have one error each. The largest of
millions of such errors is some five times the usual one. A wrong computation is off by a share of the numbers themselves, which is
thousands of times as much.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch

_BETWEEN, _COMPUTATIONS, _LARGEST = 2, 2, 5


def usual_error(expected: Any, *, terms: int, sums: int, dtype: torch.dtype = torch.float32) -> float:
    """How far two computations of numbers of the size of `expected` usually are apart.

    Args:
        terms: in the longest sum.
        sums: that follow one another: layers, times the products in each, times steps.
        dtype: in which it is computed.
    """
    size = float(np.abs(np.asarray(expected, np.float64)).max())
    roundoff = torch.finfo(dtype).eps / 2
    return _BETWEEN * _COMPUTATIONS * roundoff * math.sqrt(terms * sums) * size


def assert_rounds_alike(made: Any, expected: Any, *, terms: int, sums: int, dtype: torch.dtype = torch.float32) -> None:
    """`made` is `expected` but for rounding; see `usual_error`."""
    a, b = np.asarray(made, np.float64), np.asarray(expected, np.float64)
    np.testing.assert_allclose(a, b, rtol=0, atol=_LARGEST * usual_error(b, terms=terms, sums=sums, dtype=dtype))


def assert_same_picture(made: Any, expected: Any, *, terms: int, sums: int) -> None:
    """The same for levels of 255: none is off by more than one, and no more of them are than rounding explains.

    A level moves where the number that became it lay within its error of the middle between two levels: twice the error, in levels.
    """
    a, b = np.asarray(made, np.int64), np.asarray(expected, np.int64)
    assert a.shape == b.shape
    apart = np.abs(a - b)
    share = 2 * 255 * usual_error(1.0, terms=terms, sums=sums)
    assert apart.max() <= 1, f"off by {apart.max()} levels"
    assert apart.mean() <= share, f"{apart.mean():.2%} of the levels differ, rounding explains {share:.2%}"
