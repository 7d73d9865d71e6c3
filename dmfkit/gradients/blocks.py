"""Loss and gradient of large matrices with narrow factors: the residual in blocks of rows that stay in a core's cache.

A whole residual of a million entries is written to memory and read back several times, which takes longer than all
products with narrow factors. A block of its rows is made, used and forgotten; blocks are shared among threads.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dmfkit.factorizations.factorization import split_factors
from dmfkit.gradients import compiled_loops as loops
from dmfkit.gradients.evaluator import BLOCK, BaseEvaluator
from dmfkit.gradients.tensors import Chain
from dmfkit.linalg import compiled_loops as entries
from dmfkit.linalg.backend import ParallelMap, serial_map
from dmfkit.problems.completion import Completion
from dmfkit.problems.losses import FullObservation

# Blocks are summed in at most so many groups, whatever the number of threads, so that it changes no last digit.
MOST_GROUPS = 8


class BlockwiseEvaluator(BaseEvaluator):
    """Evaluation that never keeps the product matrix ``W = A B``, ``A`` the last factor, ``B`` the others' product.

    With ``R`` the residual, what is needed of it are ``R B^T``, the gradient of ``A``, and ``A^T R``, which goes on to
    the other factors; both are summed up from blocks of rows, for one run at a time. Memory is of the order of the
    factors, and a few blocks.

    Parameters
    ----------
    problem : Completion or FullObservation
    widths : tuple of int
        ``(d_0, .., d_N)``, depth 2 or more.
    n_runs : int
        Number of runs that a batch has at most.
    parallel_map : ParallelMap
        Calls a function for several numbers, side by side or one after the other.
    """

    def __init__(
        self,
        problem: Completion | FullObservation,
        widths: tuple[int, ...],
        n_runs: int,
        parallel_map: ParallelMap[Any] = serial_map,
    ) -> None:
        self.widths, self.gradient_scale = widths, problem.gradient_scale
        inner = widths[:-1]
        self._n_inner = sum(columns * rows for columns, rows in pairwise(inner))
        self._chain = Chain(inner, n_runs, problem, from_left=False)
        # The gradient in B; of two factors, the first is B.
        size = n_runs if len(inner) > 2 else 0
        self._to_inner = torch.empty(size, inner[-1], inner[0], device=problem.device, dtype=problem.dtype)
        self._map, self._observed = parallel_map, problem.values_or_nan.numpy()
        n_rows, n_columns = self._observed.shape
        n_blocks = -(-n_rows * n_columns // BLOCK)
        # A group has two blocks or more.
        n_groups = min(MOST_GROUPS, n_rows, max(1, n_blocks // 2))
        edges = np.linspace(0, n_rows, n_groups + 1, dtype=int).tolist()
        self._groups = [_divided(first, end, -(-n_blocks // n_groups)) for first, end in pairwise(edges)]
        height = max(int(np.diff(group).max()) for group in self._groups)
        self._block_shape = (height, n_columns)
        # What the groups sum up, a block's part of it, and blocks that no thread is using.
        self._sums = np.empty((2, n_groups, widths[-2], n_columns), self._observed.dtype)
        self._spare: list[NDArray[Any]] = []

    def squares(self, state: Tensor) -> Tensor:
        last, inner = split_factors(state, self.widths)[-1], self._chain.product(state[:, : self._n_inner])
        return torch.stack([self._square(*matrices) for matrices in zip(last, inner, strict=True)])

    def squares_and_gradient(self, state: Tensor, out: Tensor) -> Tensor:
        inner, backward = self._chain.product_and_way_back(state[:, : self._n_inner], out[:, : self._n_inner])
        last, gradients = split_factors(state, self.widths)[-1], split_factors(out, self.widths)
        to_inner = gradients[0] if len(gradients) == 2 else self._to_inner[: len(state)]
        matrices = zip(last, inner, gradients[-1], to_inner, strict=True)
        squares = torch.stack([self._square_and_gradients(*each) for each in matrices])
        self._chain.pull_back(backward, to_inner)
        return squares

    def _square(self, last: Tensor, inner: Tensor) -> Tensor:
        """Sum of squared residuals of one run with ``A``, ``(d, h)``, and ``B``, ``(h, d_in)``."""
        left, right = last.contiguous().numpy(), inner.contiguous().numpy()

        def of_group(number: int) -> float:
            workspace = self._workspace()
            square = loops.square_in_blocks(left, right, self._observed, self._groups[number], workspace)
            self._spare.append(workspace)
            result: float = square
            return result

        return torch.as_tensor(sum(self._map(of_group, len(self._groups))), dtype=last.dtype)

    def _square_and_gradients(self, last: Tensor, inner: Tensor, to_last: Tensor, to_inner: Tensor) -> Tensor:
        """Sum of squared residuals; writes the gradients of the loss in ``A`` and ``B`` to the last two."""
        left, right, to_left = last.numpy(), inner.numpy(), to_last.numpy()
        transposed, (totals, ones), groups = np.ascontiguousarray(right.T), self._sums, self._groups

        def of_group(group: int) -> float:
            workspace, sums = self._workspace(), (to_left, ones[group], totals[group])
            square = loops.square_and_products_in_blocks(
                left, right, transposed, self._observed, groups[group], workspace, *sums
            )
            self._spare.append(workspace)
            result: float = square
            return result

        square = sum(self._map(of_group, len(groups)))
        entries.add_up(totals)
        np.multiply(totals[0], self.gradient_scale, out=to_inner.numpy())
        if self.gradient_scale != 1.0:
            to_last.mul_(self.gradient_scale)
        return torch.as_tensor(square, dtype=last.dtype)

    def _workspace(self) -> NDArray[Any]:
        """Memory for a block, for one thread at a time."""
        try:
            return self._spare.pop()
        except IndexError:  # asked and taken at once: another thread may come between
            return np.empty(self._block_shape, self._observed.dtype)


def _divided(first: int, end: int, number: int) -> NDArray[np.int64]:
    """Where blocks of like height begin between the rows `first` and `end`, at most `number` of them, and the end."""
    return np.linspace(first, end, min(number, end - first) + 1, dtype=np.int64)
