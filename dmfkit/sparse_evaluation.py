"""Loss and gradient of a `SparseCompletion`: memory and time of the order of entries and thin factors."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from dmfkit.errors import InputError
from dmfkit.factorization import Factorization, split_factors
from dmfkit.sampled_products import sampled_products
from dmfkit.sparse_completion import SparseCompletion
from dmfkit.spread import Spread, serially


class SparseEvaluator:
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
        return torch.stack([self._products.square(*self._thin(row)[:2]) for row in state.split(1)])

    def squares_and_gradient(self, state: Tensor, out: Tensor) -> Tensor:
        """Sum of squared residuals, ``(runs,)``; the gradient of the loss goes to `out`, shaped as `state`."""
        return torch.stack([self._one(*rows) for rows in zip(state.split(1), out.split(1), strict=True)])

    def _thin(self, state: Tensor) -> tuple[Tensor, Tensor, Factorization | None]:
        """``U C`` and ``V`` of one run, with the factors of ``C``, if there are any."""
        first, *middle, last = split_factors(state, self.widths)
        inner = Factorization.from_factors(middle) if middle else None
        left = last[0] if inner is None else last[0] @ inner.end_to_end()[0]
        return left, first[0].mT.contiguous(), inner

    def _one(self, state: Tensor, out: Tensor) -> Tensor:
        """Square of one run's residual; writes its gradient."""
        to_first, *to_middle, to_last = split_factors(out, self.widths)
        left, right, inner = self._thin(state)
        square, spread, scattered = self._products.square_and_products(left, right, self.gradient_scale)
        to_first[0] = scattered.mT
        if inner is None:
            to_last[0] = spread
            return square
        last = split_factors(state, self.widths)[-1][0]
        torch.mm(spread, inner.end_to_end()[0].mT, out=to_last[0])
        for target, gradient in zip(to_middle, inner.pull_back((last.mT @ spread)[None]), strict=True):
            target.copy_(gradient)
        return square
