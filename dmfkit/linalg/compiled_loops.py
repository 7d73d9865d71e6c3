"""Products of thin matrices at observed entries, and of a sparse residual with them, in one pass over the entries."""

from __future__ import annotations

from typing import Any

import numpy as np

from dmfkit.linalg.compiled import Numbers, Places, compiled


@compiled
def inner_products(left: Numbers, right: Numbers, rows: Places, columns: Places, out: Numbers) -> None:
    """Entries of ``left right^T`` at the given places."""
    for entry in range(len(out)):
        mine, other = left[rows[entry]], right[columns[entry]]
        total = 0.0
        for i in range(len(mine)):
            total += mine[i] * other[i]
        out[entry] = total


@compiled
def square(
    left: Numbers,
    core: Numbers,
    right: Numbers,
    starts: Places,
    columns: Places,
    values: Numbers,
    first: int,
    end: int,
) -> float:
    """Sum of squares of ``left core right^T - values`` at the entries of the rows from `first` up to `end`.

    Parameters
    ----------
    left, core, right : ndarray of shape (d, h), (h, k) and (d_in, k)
    starts, columns, values : ndarray
        The entries in compressed rows.
    first, end : int
    """
    total: Any = 0.0
    mine = np.empty(right.shape[1], right.dtype)
    for row in range(first, end):
        _times(left[row], core, mine)
        for entry in range(starts[row], starts[row + 1]):
            residual = -values[entry]
            for i in range(len(mine)):
                residual += mine[i] * right[columns[entry], i]
            total += residual * residual
    return total


@compiled
def square_and_gradients(
    left: Numbers,
    core: Numbers,
    right: Numbers,
    starts: Places,
    columns: Places,
    values: Numbers,
    first: int,
    end: int,
    scale: float,
    to_left: Numbers,
    to_core: Numbers,
    to_right: Numbers,
) -> float:
    """The same, and from ``scale`` times these residuals ``R``, as they come, the gradients of the three matrices.

    The residuals are kept nowhere. Of ``R right core^T``, `to_left`, the given rows are written; ``left^T R right``,
    `to_core`, and ``R^T left core``, `to_right`, are written as a whole.
    """
    total: Any = 0.0
    mine, spread = np.empty(right.shape[1], right.dtype), np.empty(right.shape[1], right.dtype)
    to_core[:] = 0.0
    to_right[:] = 0.0
    for row in range(first, end):
        _times(left[row], core, mine)
        spread[:] = 0.0
        for entry in range(starts[row], starts[row + 1]):
            column = columns[entry]
            residual = -values[entry]
            for i in range(len(mine)):
                residual += mine[i] * right[column, i]
            total += residual * residual
            residual *= scale
            for i in range(len(mine)):
                spread[i] += residual * right[column, i]
                to_right[column, i] += residual * mine[i]
        for i in range(len(core)):
            back: Any = 0.0
            for j in range(len(mine)):
                back += core[i, j] * spread[j]
                to_core[i, j] += left[row, i] * spread[j]
            to_left[row, i] = back
    return total


@compiled
def _times(row: Numbers, matrix: Numbers, out: Numbers) -> None:
    """``row matrix``."""
    out[:] = 0.0
    for i in range(len(row)):
        for j in range(len(out)):
            out[j] += row[i] * matrix[i, j]


@compiled
def add_up(parts: Numbers) -> None:
    """Add to the first of some matrices all others, in their order."""
    for number in range(1, len(parts)):
        for i in range(parts.shape[1]):
            for j in range(parts.shape[2]):
                parts[0, i, j] += parts[number, i, j]
