"""Loss and gradient of large matrices with thin factors: the residual in blocks of rows that stay in a core's cache.

A whole residual of a million entries is written to memory and read back five times, which takes longer than all
products with thin factors. A block of its rows is made, used and forgotten; blocks are shared among threads.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dmfkit.problems import FullObservation, MatrixCompletion, Problem
from dmfkit.products import quiet_overflow
from dmfkit.thin import ThinEvaluator

# Entries of a block: half a megabyte in double precision.
BLOCK = 65_536
# Blocks are summed in at most so many groups, whatever the number of threads, so that it changes no last digit.
MOST_GROUPS = 8

Made = TypeVar("Made")
# Calls a function for the numbers from 0 up to another; returns what it gave, in their order.
Spread = Callable[[Callable[[int], Made], int], list[Made]]


def serially(function: Callable[[int], Made], number: int) -> list[Made]:
    """Call a function for the numbers from 0 up to `number`, one after the other."""
    return [function(each) for each in range(number)]


def evaluates_blocks(problem: Problem, widths: tuple[int, ...]) -> bool:
    """Return whether the residual is formed in blocks of rows: for large matrices with thin factors on a CPU.

    With wider factors the products take longer than the residual, and are faster on whole matrices: measured, a matrix
    should have a block for every unit of width.
    """
    return (
        isinstance(problem, MatrixCompletion | FullObservation)
        and problem.device.type == "cpu"
        and len(widths) > 2
        and problem.values.numel() >= BLOCK * max(2, *widths[1:-1])
    )


class BlockwiseEvaluator(ThinEvaluator):
    """Evaluation in memory of the order of the factors, and a few blocks.

    Parameters
    ----------
    problem : MatrixCompletion or FullObservation
    widths : tuple of int
    n_runs : int
    spread : Spread
        Calls a function for several numbers, side by side or one after the other.
    """

    def __init__(
        self,
        problem: MatrixCompletion | FullObservation,
        widths: tuple[int, ...],
        n_runs: int,
        spread: Spread[Any] = serially,
    ) -> None:
        super().__init__(problem, widths, n_runs)
        self._spread = spread
        self._mask, self._values = None, problem.values.numpy()
        if isinstance(problem, MatrixCompletion):
            # Minus the values, to be added: the problem keeps them for every evaluator.
            self._mask, self._values = problem.mask.numpy(), problem.minus_values.numpy()
        n_rows, n_columns = self._values.shape
        n_blocks = -(-n_rows * n_columns // BLOCK)
        # A group has two blocks or more.
        n_groups = min(MOST_GROUPS, n_rows, max(1, n_blocks // 2))
        edges = np.linspace(0, n_rows, n_groups + 1, dtype=int).tolist()
        self._groups = [_divided(first, end, -(-n_blocks // n_groups)) for first, end in pairwise(edges)]
        self._height = max(block.stop - block.start for group in self._groups for block in group)
        # What the groups sum up, and blocks that no thread is using.
        self._sums = np.empty((n_groups, 2, widths[-2], n_columns), self._values.dtype)
        self._spare: list[NDArray[Any]] = []

    def _square(self, last: Tensor, inner: Tensor) -> Tensor:
        left, right = last.numpy(), inner.numpy()

        def of_group(number: int) -> np.floating[Any]:
            return self._go_through(number, left, right, None, None)

        return torch.as_tensor(sum(self._spread(of_group, len(self._groups))), dtype=last.dtype)

    def _square_and_gradients(self, last: Tensor, inner: Tensor, to_last: Tensor, to_inner: Tensor) -> Tensor:
        left, right, to_left = last.numpy(), inner.numpy(), to_last.numpy()
        turned = np.ascontiguousarray(right.T)

        def of_group(number: int) -> np.floating[Any]:
            return self._go_through(number, left, right, turned, to_left)

        square = sum(self._spread(of_group, len(self._groups)))
        np.sum(self._sums[:, 0], axis=0, out=to_inner.numpy())
        if self.gradient_scale != 1.0:
            to_last.mul_(self.gradient_scale)
            to_inner.mul_(self.gradient_scale)
        return torch.as_tensor(square, dtype=last.dtype)

    def _go_through(
        self,
        number: int,
        left: NDArray[Any],
        right: NDArray[Any],
        turned: NDArray[Any] | None,
        to_left: NDArray[Any] | None,
    ) -> np.floating[Any]:
        """Sum of squares of a group's blocks; where they are asked for, products of the residual with both factors."""
        total, one = self._sums[number]
        try:
            room = self._spare.pop()
        except IndexError:  # asked and taken at once: another thread may come between
            room = np.empty((self._height, right.shape[1]), right.dtype)
        square = right.dtype.type(0)
        with quiet_overflow():
            for place, block in enumerate(self._groups[number]):
                residual = self._residual(block, left, right, room[: block.stop - block.start])
                square += np.vecdot(residual, residual).sum()
                if turned is not None and to_left is not None:
                    np.matmul(residual, turned, out=to_left[block])
                    np.matmul(left[block].T, residual, out=one if place else total)
                    if place:
                        total += one
        self._spare.append(room)
        return square

    def _residual(self, block: slice, left: NDArray[Any], right: NDArray[Any], out: NDArray[Any]) -> NDArray[Any]:
        """The rows of the residual in `block`."""
        np.matmul(left[block], right, out=out)
        if self._mask is None:
            return np.subtract(out, self._values[block], out=out)
        np.multiply(out, self._mask[block], out=out)
        return np.add(out, self._values[block], out=out)


def _divided(first: int, end: int, number: int) -> list[slice]:
    """The rows from `first` up to `end` in at most `number` blocks of like height."""
    edges = np.linspace(first, end, min(number, end - first) + 1, dtype=int).tolist()
    return [slice(top, bottom) for top, bottom in pairwise(edges)]
