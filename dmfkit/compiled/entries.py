"""Products of thin matrices at observed entries, and of a sparse residual with them, in one pass over the entries."""

from __future__ import annotations

from dmfkit.compiled import Numbers, Places, compiled


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
    left: Numbers, right: Numbers, starts: Places, columns: Places, values: Numbers, first: int, end: int
) -> float:
    """Sum of squares of ``left right^T - values`` at the entries of the rows from `first` up to `end`."""
    total = 0.0
    for row in range(first, end):
        for entry in range(starts[row], starts[row + 1]):
            residual = -values[entry]
            for i in range(left.shape[1]):
                residual += left[row, i] * right[columns[entry], i]
            total += residual * residual
    return total


@compiled
def square_and_products(
    left: Numbers,
    right: Numbers,
    starts: Places,
    columns: Places,
    values: Numbers,
    first: int,
    end: int,
    scale: float,
    times_right: Numbers,
    transposed_times_left: Numbers,
) -> float:
    """The same, and with these residuals ``R``, as they come: ``scale R right`` and ``scale R^T left``.

    The residuals are kept nowhere. Of `times_right`, ``(d, k)``, the given rows are written; `transposed_times_left`,
    ``(d_in, k)``, is written as a whole.
    """
    total, width = 0.0, left.shape[1]
    transposed_times_left[:] = 0.0
    for row in range(first, end):
        for i in range(width):
            times_right[row, i] = 0.0
        for entry in range(starts[row], starts[row + 1]):
            column = columns[entry]
            residual = -values[entry]
            for i in range(width):
                residual += left[row, i] * right[column, i]
            total += residual * residual
            residual *= scale
            for i in range(width):
                times_right[row, i] += residual * right[column, i]
                transposed_times_left[column, i] += residual * left[row, i]
    return total


@compiled
def add_up(parts: Numbers) -> None:
    """Add to the first of some matrices all others, in their order."""
    for number in range(1, len(parts)):
        for i in range(parts.shape[1]):
            for j in range(parts.shape[2]):
                parts[0, i, j] += parts[number, i, j]
