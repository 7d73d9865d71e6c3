"""Loss and gradient through two thin matrices: the last factor, and the product of all the others."""

from __future__ import annotations

from abc import ABC, abstractmethod
from itertools import pairwise

import torch
from torch import Tensor

from dmfkit.evaluation import Chain
from dmfkit.factorizations.factorization import split_factors
from dmfkit.linalg.backend import Products
from dmfkit.problems.losses import Problem


class ThinEvaluator(ABC):
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
