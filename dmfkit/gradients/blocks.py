"""Loss and gradient of large matrices with thin factors: the residual in blocks of rows that stay in a core's cache.

A whole residual of a million entries is written to memory and read back several times, which takes longer than all
products with thin factors. A block of its rows is made, used and forgotten; blocks are shared among threads.

Loss and gradient through two thin matrices: the last factor, and the product of all the others.
"""

from __future__ import annotations

from abc import abstractmethod
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dmfkit.factorizations.factorization import split_factors
from dmfkit.gradients import compiled_loops as loops
from dmfkit.gradients.evaluator import BaseEvaluator
from dmfkit.gradients.tensors import Chain
from dmfkit.linalg import compiled_loops as entries
from dmfkit.linalg.backend import Products, Spread, serially
from dmfkit.problems.losses import FullObservation, MatrixCompletion, Problem


class ThinEvaluator(BaseEvaluator):
    """Evaluation that never keeps the product matrix ``W = A B``, ``A`` the last factor, ``B`` the others' product.

    With ``R`` the residual, what is needed of it are ``R B^T``, the gradient of ``A``, and ``A^T R``, which goes on to
    the other factors; how they are formed is for subclasses to say, for one run at a time.
    """

    def __init__(
        self, problem: Problem, widths: tuple[int, ...], n_runs: int, *, products: Products | None = None
    ) -> None:
        self.problem, self.widths = problem, widths
        self.gradient_scale = problem.gradient_scale
        inner = widths[:-1]
        self._n_inner = sum(columns * rows for columns, rows in pairwise(inner))
        self._chain = Chain(inner, n_runs, problem, products=products, from_left=False)
        # The gradient in B; of two factors, the first is B.
        size = n_runs if len(inner) > 2 else 0
        self._passed = torch.empty(size, inner[-1], inner[0], device=problem.device, dtype=problem.dtype)

    @abstractmethod
    def _square(self, last: Tensor, inner: Tensor) -> Tensor:
        """Sum of squared residuals of one run with ``A``, ``(d, h)``, and ``B``, ``(h, d_in)``."""

    @abstractmethod
    def _square_and_gradients(self, last: Tensor, inner: Tensor, to_last: Tensor, to_inner: Tensor) -> Tensor:
        """Sum of squared residuals; writes the gradients of the loss in ``A`` and ``B`` to the last two."""

    def squares(self, state: Tensor) -> Tensor:
        last, inner = split_factors(state, self.widths)[-1], self._chain.product(state[:, : self._n_inner])
        return torch.stack([self._square(*matrices) for matrices in zip(last, inner, strict=True)])

    def squares_and_gradient(self, state: Tensor, out: Tensor) -> Tensor:
        inner, way_back = self._chain.product_and_way_back(state[:, : self._n_inner], out[:, : self._n_inner])
        last, gradients = split_factors(state, self.widths)[-1], split_factors(out, self.widths)
        passed = gradients[0] if len(gradients) == 2 else self._passed[: len(state)]
        matrices = zip(last, inner, gradients[-1], passed, strict=True)
        squares = torch.stack([self._square_and_gradients(*each) for each in matrices])
        self._chain.pull_back(way_back, passed)
        return squares


# Entries of a block: half a megabyte in double precision.
BLOCK = 65_536
# Blocks are summed in at most so many groups, whatever the number of threads, so that it changes no last digit.
MOST_GROUPS = 8


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
        self._spread, self._observed = spread, problem.values_or_nan.numpy()
        n_rows, n_columns = self._observed.shape
        n_blocks = -(-n_rows * n_columns // BLOCK)
        # A group has two blocks or more.
        n_groups = min(MOST_GROUPS, n_rows, max(1, n_blocks // 2))
        edges = np.linspace(0, n_rows, n_groups + 1, dtype=int).tolist()
        self._groups = [_divided(first, end, -(-n_blocks // n_groups)) for first, end in pairwise(edges)]
        height = max(int(np.diff(group).max()) for group in self._groups)
        self._room_shape = (height, n_columns)
        # What the groups sum up, a block's part of it, and blocks that no thread is using.
        self._sums = np.empty((2, n_groups, widths[-2], n_columns), self._observed.dtype)
        self._spare: list[NDArray[Any]] = []

    def _square(self, last: Tensor, inner: Tensor) -> Tensor:
        left, right = last.contiguous().numpy(), inner.contiguous().numpy()

        def of_group(number: int) -> float:
            room = self._room()
            square = loops.square_in_blocks(left, right, self._observed, self._groups[number], room)
            self._spare.append(room)
            return square

        return torch.as_tensor(sum(self._spread(of_group, len(self._groups))), dtype=last.dtype)

    def _square_and_gradients(self, last: Tensor, inner: Tensor, to_last: Tensor, to_inner: Tensor) -> Tensor:
        left, right, to_left = last.numpy(), inner.numpy(), to_last.numpy()
        turned, (totals, ones) = np.ascontiguousarray(right.T), self._sums

        def of_group(number: int) -> float:
            room = self._room()
            square = loops.square_and_products_in_blocks(
                left, right, turned, self._observed, self._groups[number], room, to_left, ones[number], totals[number]
            )
            self._spare.append(room)
            return square

        square = sum(self._spread(of_group, len(self._groups)))
        entries.add_up(totals)
        np.multiply(totals[0], self.gradient_scale, out=to_inner.numpy())
        if self.gradient_scale != 1.0:
            to_last.mul_(self.gradient_scale)
        return torch.as_tensor(square, dtype=last.dtype)

    def _room(self) -> NDArray[Any]:
        """Room for a block, for one thread at a time."""
        try:
            return self._spare.pop()
        except IndexError:  # asked and taken at once: another thread may come between
            return np.empty(self._room_shape, self._observed.dtype)


def _divided(first: int, end: int, number: int) -> NDArray[np.int64]:
    """Where blocks of like height begin between the rows `first` and `end`, at most `number` of them, and the end."""
    return np.linspace(first, end, min(number, end - first) + 1, dtype=np.int64)
