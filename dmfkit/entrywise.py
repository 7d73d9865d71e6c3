"""Loss and gradient where few entries are observed: the residual at those entries only, never a full matrix of it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from dmfkit.blockwise import BlockwiseEvaluator, Spread, evaluates_blocks, serially
from dmfkit.evaluation import AnyEvaluator, Evaluator
from dmfkit.problems import FullObservation, MatrixCompletion, Problem
from dmfkit.products import Products
from dmfkit.sampled_products import csr_tensor, row_starts
from dmfkit.sparse_completion import SparseCompletion
from dmfkit.sparse_evaluation import SparseEvaluator
from dmfkit.thin import ThinEvaluator

# Below this share of observed entries, in matrices of at least this many, the entry-wise residual is cheaper than the
# others. Measured on a CPU, see `python -m benchmarks compression`; fixed numbers, because a choice by the clock would
# change last digits from run to run.
SPARSE_SHARE, SPARSE_SIZE = 0.06, 250_000
# Above this inner width the dense products win again, whatever the share.
SPARSE_WIDTH = 100


def evaluates_entries(problem: Problem, widths: tuple[int, ...]) -> bool:
    """Return whether the residual is formed entry by entry: for sparse completion by thin factors on a CPU.

    A problem that keeps its entries alone is always evaluated so.
    """
    return isinstance(problem, SparseCompletion) or (
        isinstance(problem, MatrixCompletion)
        and problem.device.type == "cpu"
        and len(widths) > 2
        and max(widths[1:-1]) <= SPARSE_WIDTH
        and problem.mask.numel() >= SPARSE_SIZE
        and problem.n_observations < SPARSE_SHARE * problem.mask.numel()
    )


def evaluator_for(
    problem: Problem, widths: tuple[int, ...], n_runs: int, spread: Spread[Any] = serially
) -> AnyEvaluator:
    """Return the cheapest evaluator: entry by entry, see `evaluates_entries`, in blocks of rows, or all at once.

    `spread` calls a function for several numbers; where blocks of rows are evaluated, it shares them among threads.

    Raises
    ------
    InputError
        If a problem that keeps its entries alone meets a single factor, which is the matrix itself.
    """
    if isinstance(problem, SparseCompletion):
        return SparseEvaluator(problem, widths)
    if isinstance(problem, MatrixCompletion) and evaluates_entries(problem, widths):
        return EntrywiseEvaluator(problem, widths, n_runs)
    if isinstance(problem, MatrixCompletion | FullObservation) and evaluates_blocks(problem, widths):
        return BlockwiseEvaluator(problem, widths, n_runs, spread)
    return Evaluator(problem, widths, n_runs)


class EntrywiseEvaluator(ThinEvaluator):
    """Evaluation whose cost grows with the number of observed entries, and with ``d`` once, not twice.

    The residual ``R`` is computed on the observed entries as a sparse matrix.
    """

    def __init__(
        self, problem: MatrixCompletion, widths: tuple[int, ...], n_runs: int, *, products: Products | None = None
    ) -> None:
        super().__init__(problem, widths, n_runs, products=products)
        rows, columns = problem.mask.nonzero(as_tuple=True)
        self._shape = (problem.mask.shape[0], problem.mask.shape[1])
        self._columns, self._starts = columns, row_starts(rows, self._shape[0])
        # The same entries in the order of the transposed matrix.
        self._order = torch.argsort(columns * self._shape[0] + rows)
        self._columns_t, self._starts_t = rows[self._order], row_starts(columns[self._order], self._shape[1])
        self._minus_values = self._sparse(-problem.values[rows, columns])

    def _square(self, last: Tensor, inner: Tensor) -> Tensor:
        return self._residual(last, inner).square().sum()

    def _square_and_gradients(self, last: Tensor, inner: Tensor, to_last: Tensor, to_inner: Tensor) -> Tensor:
        residual = self._residual(last, inner)
        square = residual.square().sum()
        residual = residual * self.gradient_scale
        to_last.copy_(self._sparse(residual) @ inner.mT.contiguous())
        to_inner.copy_((self._sparse_transposed(residual[self._order]) @ last).mT)
        return square

    def _residual(self, last: Tensor, inner: Tensor) -> Tensor:
        """Residuals at the observed entries, row by row."""
        return torch.sparse.sampled_addmm(self._minus_values, last, inner).values()

    def _sparse(self, values: Tensor) -> Tensor:
        return csr_tensor(self._starts, self._columns, values, self._shape)

    def _sparse_transposed(self, values: Tensor) -> Tensor:
        return csr_tensor(self._starts_t, self._columns_t, values, (self._shape[1], self._shape[0]))
