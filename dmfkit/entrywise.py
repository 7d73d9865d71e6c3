"""Loss and gradient where few entries are observed: the residual at those entries only, never a full matrix of it."""

from __future__ import annotations

import torch
from torch import Tensor

from dmfkit.evaluation import AnyEvaluator, Evaluator
from dmfkit.factorization import split_factors
from dmfkit.problems import MatrixCompletion, Problem
from dmfkit.products import Products
from dmfkit.sampled_products import csr_tensor, row_starts
from dmfkit.sparse_completion import SparseCompletion
from dmfkit.sparse_evaluation import SparseEvaluator

# Below this share of observed entries the entry-wise residual is cheaper than the dense one. Measured on a CPU, see
# `python -m benchmarks compression`; a fixed number, because a choice by the clock would change last digits from run
# to run.
SPARSE_SHARE = 0.1
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
        and problem.n_observations < SPARSE_SHARE * problem.mask.numel()
    )


def evaluator_for(problem: Problem, widths: tuple[int, ...], n_runs: int) -> AnyEvaluator:
    """Return the cheaper evaluator: entry by entry, see `evaluates_entries`, else dense.

    Raises
    ------
    InputError
        If a problem that keeps its entries alone meets a single factor, which is the matrix itself.
    """
    if isinstance(problem, SparseCompletion):
        return SparseEvaluator(problem, widths)
    if isinstance(problem, MatrixCompletion) and evaluates_entries(problem, widths):
        return EntrywiseEvaluator(problem, widths, n_runs)
    return Evaluator(problem, widths, n_runs)


class EntrywiseEvaluator(Evaluator):
    """Evaluation whose cost grows with the number of observed entries, and with ``d`` once, not twice.

    With ``W = A B``, ``A`` the last factor and ``B`` the product of the others, the residual ``R`` is computed on the
    observed entries as a sparse matrix, and only ``R B^T`` and ``A^T R`` are formed from it.
    """

    def __init__(
        self, problem: MatrixCompletion, widths: tuple[int, ...], n_runs: int, *, products: Products | None = None
    ) -> None:
        super().__init__(problem, widths, n_runs, keep_product=False, products=products)
        rows, columns = problem.mask.nonzero(as_tuple=True)
        self._shape = (problem.mask.shape[0], problem.mask.shape[1])
        self._columns, self._starts = columns, row_starts(rows, self._shape[0])
        # The same entries in the order of the transposed matrix.
        self._order = torch.argsort(columns * self._shape[0] + rows)
        self._columns_t, self._starts_t = rows[self._order], row_starts(columns[self._order], self._shape[1])
        self._minus_values = self._sparse(-problem.values[rows, columns])

    def squares(self, state: Tensor) -> Tensor:
        factors, runs = split_factors(state, self.widths), state.shape[0]
        inner = self._inner(factors, runs)
        return torch.stack([self._residual(factors[-1][run], inner[run]).square().sum() for run in range(runs)])

    def squares_and_gradient(self, state: Tensor, out: Tensor) -> Tensor:
        runs = state.shape[0]
        factors, gradients = split_factors(state, self.widths), split_factors(out, self.widths)
        inner = self._inner(factors, runs)
        passed = gradients[0] if len(factors) == 2 else self._passed[len(factors) - 2][:runs]
        squares = []
        for run in range(runs):
            residual = self._residual(factors[-1][run], inner[run])
            squares.append(residual.square().sum())
            residual = residual * self.gradient_scale
            gradients[-1][run] = self._sparse(residual) @ inner[run].mT.contiguous()
            passed[run] = (self._sparse_transposed(residual[self._order]) @ factors[-1][run]).mT
        if len(factors) > 2:
            there = self.products.operand(passed)
            for step in self._backward_from_right(factors[:-1], gradients[:-1], runs):
                self._multiply(self._laid_out(*step), there)
        return torch.stack(squares)

    def _inner(self, factors: tuple[Tensor, ...], runs: int) -> Tensor:
        """Product of all factors but the last, ``(runs, h, d_in)``."""
        done = factors[0]
        for index in range(1, len(factors) - 1):
            target = self._kept[index][:runs]
            self._multiply(self._laid_out(factors[index], done, target))
            done = target
        return done

    def _residual(self, last: Tensor, inner: Tensor) -> Tensor:
        """Residuals at the observed entries, row by row."""
        return torch.sparse.sampled_addmm(self._minus_values, last, inner).values()

    def _sparse(self, values: Tensor) -> Tensor:
        return csr_tensor(self._starts, self._columns, values, self._shape)

    def _sparse_transposed(self, values: Tensor) -> Tensor:
        return csr_tensor(self._starts_t, self._columns_t, values, (self._shape[1], self._shape[0]))
