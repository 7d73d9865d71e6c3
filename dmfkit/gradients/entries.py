"""Loss and gradient where few entries are observed: the residual at those entries only, never a full matrix of it.

Loss and gradient of a `SparseCompletion`: memory and time of the order of entries and thin factors.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from dmfkit.errors import InputError
from dmfkit.factorizations.factorization import Factorization, split_factors
from dmfkit.gradients.blocks import ThinEvaluator
from dmfkit.gradients.evaluator import BaseEvaluator
from dmfkit.linalg.backend import Products, Spread, serially
from dmfkit.linalg.sampled_products import HostProducts, sampled_products
from dmfkit.problems.losses import MatrixCompletion
from dmfkit.problems.sparse_completion import SparseCompletion


class EntrywiseEvaluator(ThinEvaluator):
    """Evaluation on a CPU whose cost grows with the number of observed entries, and with ``d`` once, not twice."""

    def __init__(
        self,
        problem: MatrixCompletion,
        widths: tuple[int, ...],
        n_runs: int,
        spread: Spread[Any] = serially,
        *,
        products: Products | None = None,
    ) -> None:
        super().__init__(problem, widths, n_runs, products=products)
        rows, columns = problem.mask.nonzero(as_tuple=True)
        self._sampled = HostProducts(
            rows.int(), columns.int(), problem.values[rows, columns], (problem.shape[0], problem.shape[1]), spread
        )

        self._no_core = torch.eye(widths[-2], dtype=problem.dtype)

    def _square(self, last: Tensor, inner: Tensor) -> Tensor:
        return self._sampled.square(last.contiguous(), self._no_core, inner.mT.contiguous())

    def _square_and_gradients(self, last: Tensor, inner: Tensor, to_last: Tensor, to_inner: Tensor) -> Tensor:
        matrices = last, self._no_core, inner.mT.contiguous()
        to_core = torch.empty_like(self._no_core)
        square, to_right = self._sampled.square_and_gradients(*matrices, self.gradient_scale, to_last, to_core)
        to_inner.copy_(to_right.mT)
        return square


class SparseEvaluator(BaseEvaluator):
    """Evaluation that forms nothing larger than the factors and the observed entries.

    With ``U`` the last factor, ``V^T`` the first and ``C`` the product of the others, ``W = U C V^T``. The residual
    ``R`` is taken at the observed entries; from ``R V`` and ``R^T (U C)`` follow the gradients of the outer factors,
    and from the small ``U^T R V`` those of all the others: depth hardly costs anything. The factors need not be
    compressed; any of depth 2 or more will do.

    Raises
    ------
    InputError
        For a single factor, which would be a matrix of full size.
    """

    def __init__(self, problem: SparseCompletion, widths: tuple[int, ...], spread: Spread[Any] = serially) -> None:
        if len(widths) < 3:
            raise InputError("depth = 1 is not allowed for a SparseCompletion: its one factor is the matrix itself.")
        self.problem, self.widths = problem, widths
        self.gradient_scale = problem.gradient_scale
        self._products = sampled_products(problem.rows, problem.columns, problem.values, problem.size, spread)

    def squares(self, state: Tensor) -> Tensor:
        """Sum of squared residuals, ``(runs,)``, without the gradient."""
        return torch.stack([self._products.square(*self._thin(row)[:3]) for row in state.split(1)])

    def squares_and_gradient(self, state: Tensor, out: Tensor) -> Tensor:
        """Sum of squared residuals, ``(runs,)``; the gradient of the loss goes to `out`, shaped as `state`."""
        return torch.stack([self._one(*rows) for rows in zip(state.split(1), out.split(1), strict=True)])

    def _thin(self, state: Tensor) -> tuple[Tensor, Tensor, Tensor, Factorization | None]:
        """``U``, ``C`` and ``V`` of one run, with the factors of ``C``, if there are any."""
        first, *middle, last = split_factors(state, self.widths)
        inner = Factorization.from_factors(middle) if middle else None
        core = torch.eye(self.widths[1], dtype=state.dtype, device=state.device)
        return last[0], core if inner is None else inner.end_to_end()[0], first[0].mT.contiguous(), inner

    def _one(self, state: Tensor, out: Tensor) -> Tensor:
        """Square of one run's residual; writes its gradient."""
        to_first, *to_middle, to_last = split_factors(out, self.widths)
        left, core, right, inner = self._thin(state)
        to_core = torch.empty_like(core)
        square, to_right = self._products.square_and_gradients(
            left, core, right, self.gradient_scale, to_last[0], to_core
        )
        to_first[0] = to_right.mT
        if inner is not None:
            for target, gradient in zip(to_middle, inner.pull_back(to_core[None]), strict=True):
                target.copy_(gradient)
        return square
