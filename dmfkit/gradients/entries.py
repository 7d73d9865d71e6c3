"""Loss and gradient at the observed entries alone: memory and time of the order of entries and narrow factors."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from dmfkit.errors import InputError
from dmfkit.factorizations.factorization import split_factors
from dmfkit.gradients.evaluator import BaseEvaluator
from dmfkit.gradients.tensors import Chain
from dmfkit.linalg.backend import ParallelMap, Products, serial_map
from dmfkit.linalg.sampled_products import sampled_products
from dmfkit.problems.completion import Completion


class EntrywiseEvaluator(BaseEvaluator):
    """Evaluation that forms nothing larger than the factors and the observed entries.

    With ``U`` the last factor, ``V^T`` the first and ``C`` the product of the others, ``W = U C V^T``. The residual
    ``R`` is taken at the observed entries; from ``R V`` and ``R^T (U C)`` follow the gradients of the outer factors,
    and from the small ``U^T R V`` those of all the others: depth hardly costs anything. The factors need not be
    compressed; any of depth 2 or more will do.

    Parameters
    ----------
    problem : Completion
    widths : tuple of int
        ``(d_0, .., d_N)``.
    n_runs : int
        Number of runs that a batch has at most.
    parallel_map : Spread
        Calls a function for several numbers; groups of rows are shared among threads by it.
    products : Products, optional
        The library that multiplies the inner factors; the one for the problem's device if not given.

    Raises
    ------
    InputError
        For a single factor, which would be a matrix of full size.
    """

    def __init__(
        self,
        problem: Completion,
        widths: tuple[int, ...],
        n_runs: int,
        parallel_map: ParallelMap[Any] = serial_map,
        *,
        products: Products | None = None,
    ) -> None:
        if len(widths) < 3:
            raise InputError(
                f"depth = 1 is not allowed for a {widths[-1]} x {widths[0]} matrix with so few observed entries: its "
                "one factor is the matrix itself."
            )
        self.widths, self.gradient_scale = widths, problem.gradient_scale
        observed = problem.observed
        self._sampled = sampled_products(observed.rows, observed.columns, observed.values, problem.shape, parallel_map)
        inner = widths[1:-1]
        first = widths[0] * widths[1]
        self._inner = slice(first, first + sum(columns * rows for columns, rows in pairwise(inner)))
        # Of two factors the core is the identity, and its gradient nobody's; of three it is the middle one.
        self._chain = Chain(inner, n_runs, problem, products=products) if len(inner) > 1 else None
        self._identity = torch.eye(inner[0], device=problem.device, dtype=problem.dtype)
        self._to_cores = self._identity.new_empty(0 if len(inner) == 2 else n_runs, inner[-1], inner[0])

    def squares(self, state: Tensor) -> Tensor:
        first, *_, last = split_factors(state, self.widths)
        if self._chain is None:
            cores = self._identity.expand(len(state), -1, -1)
        else:
            cores = self._chain.product(state[:, self._inner])
        matrices = zip(last, cores, first.mT, strict=True)
        return torch.stack([self._sampled.square(left, core, right.contiguous()) for left, core, right in matrices])

    def squares_and_gradient(self, state: Tensor, out: Tensor) -> Tensor:
        first, *_, last = split_factors(state, self.widths)
        to_first, *to_inner, to_last = split_factors(out, self.widths)
        to_cores = to_inner[0] if len(to_inner) == 1 else self._to_cores[: len(state)]
        if self._chain is None:
            cores = self._identity.expand(len(state), -1, -1)
        else:
            cores, backward = self._chain.product_and_way_back(state[:, self._inner], out[:, self._inner])
        squares = []
        for run, (left, core, right) in enumerate(zip(last, cores, first.mT, strict=True)):
            square, to_right = self._sampled.square_and_gradients(
                left, core, right.contiguous(), self.gradient_scale, to_last[run], to_cores[run]
            )
            to_first[run] = to_right.mT
            squares.append(square)
        if self._chain is not None:
            self._chain.pull_back(backward, to_cores)
        return torch.stack(squares)
