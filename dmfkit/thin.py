"""Loss and gradient through two thin matrices: the last factor, and the product of all the others."""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor

from dmfkit.evaluation import Evaluator
from dmfkit.factorization import split_factors
from dmfkit.problems import Problem
from dmfkit.products import Products


class ThinEvaluator(Evaluator):
    """Evaluation that never keeps the product matrix ``W = A B``, ``A`` the last factor, ``B`` the others' product.

    With ``R`` the residual, what is needed of it are ``R B^T``, the gradient of ``A``, and ``A^T R``, which goes on to
    the other factors; how they are formed is for subclasses to say, for one run at a time.
    """

    def __init__(
        self, problem: Problem, widths: tuple[int, ...], n_runs: int, *, products: Products | None = None
    ) -> None:
        super().__init__(problem, widths, n_runs, keep_product=False, products=products)

    @abstractmethod
    def _square(self, last: Tensor, inner: Tensor) -> Tensor:
        """Sum of squared residuals of one run with ``A``, ``(d, h)``, and ``B``, ``(h, d_in)``."""

    @abstractmethod
    def _square_and_gradients(self, last: Tensor, inner: Tensor, to_last: Tensor, to_inner: Tensor) -> Tensor:
        """Sum of squared residuals; writes the gradients of the loss in ``A`` and ``B`` to the last two."""

    def squares(self, state: Tensor) -> Tensor:
        factors, runs = split_factors(state, self.widths), state.shape[0]
        inner = self._inner(factors, runs)
        return torch.stack([self._square(factors[-1][run], inner[run]) for run in range(runs)])

    def squares_and_gradient(self, state: Tensor, out: Tensor) -> Tensor:
        runs = state.shape[0]
        factors, gradients = split_factors(state, self.widths), split_factors(out, self.widths)
        inner = self._inner(factors, runs)
        passed = gradients[0] if len(factors) == 2 else self._passed[len(factors) - 2][:runs]
        squares = [
            self._square_and_gradients(factors[-1][run], inner[run], gradients[-1][run], passed[run])
            for run in range(runs)
        ]
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
