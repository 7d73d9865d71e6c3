"""The inner loop: loss and gradient in the factors, with buffers made once and as few products as possible."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from dmfkit.factorization import split_factors
from dmfkit.problems import Problem


class AnyEvaluator(Protocol):
    """Loss and gradient of a batch of states."""

    def squares(self, state: Tensor) -> Tensor:
        """Sum of squared residuals, ``(runs,)``, without the gradient."""

    def squares_and_gradient(self, state: Tensor, out: Tensor) -> Tensor:
        """Sum of squared residuals, ``(runs,)``; the gradient of the loss goes to `out`, shaped as `state`."""


class Evaluator:
    """Sum of squared residuals and gradient in the factors, for batches of at most `n_runs` runs.

    A depth-N evaluation takes ``3 (N - 1)`` matrix products: ``N - 1`` to form the product matrix, and for each further
    factor one to pass the gradient on and one to finish it. The intermediate products are kept on the narrower side:
    when the product matrix is wider than high, products are accumulated from the left, else from the right.

    Parameters
    ----------
    problem : Problem
    widths : tuple of int
        ``(d_0, .., d_N)``; ``(d_N, d_0)`` must be the problem's shape.
    n_runs : int
    keep_product : bool
        Whether to make a buffer for the product matrix.
    """

    def __init__(self, problem: Problem, widths: tuple[int, ...], n_runs: int, *, keep_product: bool = True) -> None:
        self.problem = problem
        self.widths = widths
        self.gradient_scale = problem.gradient_scale
        self._from_left = keep_product and widths[0] > widths[-1]
        inner = widths[1:-1]
        high, wide = widths[-1], widths[0]
        # kept[i] holds a partial product; passed[i] the gradient after it went through some factors.
        shapes = [(high, width) if self._from_left else (width, wide) for width in inner]

        def buffers() -> list[Tensor]:
            return [torch.empty(n_runs, *shape, device=problem.device, dtype=problem.dtype) for shape in shapes]

        self._kept, self._passed = buffers(), buffers()
        if keep_product:
            self._product = torch.empty(n_runs, high, wide, device=problem.device, dtype=problem.dtype)

    def squares(self, state: Tensor) -> Tensor:
        """Sum of squared residuals, ``(runs,)``, without the gradient."""
        product = self._forward(split_factors(state, self.widths), state.shape[0])
        return self.problem.squares_and_residual_gradient(product)[0]

    def squares_and_gradient(self, state: Tensor, out: Tensor) -> Tensor:
        """Sum of squared residuals, ``(runs,)``; the gradient of the loss goes to `out`, shaped as `state`."""
        runs = state.shape[0]
        factors, gradients = split_factors(state, self.widths), split_factors(out, self.widths)
        product = self._forward(factors, runs)
        squares, gradient = self.problem.squares_and_residual_gradient(product)
        if self.gradient_scale != 1.0:
            gradient = gradient.mul_(self.gradient_scale)
        if self._from_left:
            self._backward_from_left(factors, gradients, gradient, runs)
        else:
            self._backward_from_right(factors, gradients, gradient, runs)
        return squares

    def _forward(self, factors: tuple[Tensor, ...], runs: int) -> Tensor:
        product = self._product[:runs]
        if len(factors) == 1:
            return product.copy_(factors[0])
        if self._from_left:
            done = factors[-1]
            for index in range(len(factors) - 2, 0, -1):  # kept[index - 1] = W_N .. W_{index + 1}
                done = torch.bmm(done, factors[index], out=self._kept[index - 1][:runs])
            return torch.bmm(done, factors[0], out=product)
        done = factors[0]
        for index in range(1, len(factors) - 1):  # kept[index] = W_{index + 1} .. W_1
            done = torch.bmm(factors[index], done, out=self._kept[index][:runs])
        return torch.bmm(factors[-1], done, out=product)

    def _backward_from_right(
        self, factors: tuple[Tensor, ...], gradients: tuple[Tensor, ...], gradient: Tensor, runs: int
    ) -> None:
        for index in range(len(factors) - 1, 0, -1):
            before = factors[0] if index == 1 else self._kept[index - 1][:runs]
            torch.bmm(gradient, before.mT, out=gradients[index])
            # The last pass-on is the first factor's own gradient.
            target = gradients[0] if index == 1 else self._passed[index - 1][:runs]
            gradient = torch.bmm(factors[index].mT, gradient, out=target)
        if len(factors) == 1:
            gradients[0].copy_(gradient)

    def _backward_from_left(
        self, factors: tuple[Tensor, ...], gradients: tuple[Tensor, ...], gradient: Tensor, runs: int
    ) -> None:
        last = len(factors) - 1
        for index in range(last):
            after = factors[-1] if index == last - 1 else self._kept[index][:runs]
            torch.bmm(after.mT, gradient, out=gradients[index])
            target = gradients[-1] if index == last - 1 else self._passed[index][:runs]
            gradient = torch.bmm(gradient, factors[index].mT, out=target)
        if last == 0:
            gradients[0].copy_(gradient)
