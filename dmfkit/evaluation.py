"""The inner loop: loss and gradient in the factors, with buffers made once and as few products as possible."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from dmfkit.factorization import split_factors
from dmfkit.problems import Problem
from dmfkit.products import TURN, Operand, Products, products_for

# Plans that an evaluator remembers: descent has one pair of tensors, the flow a few, for each number of runs.
MOST_PLANS = 64


class _Step(NamedTuple):
    """One product: operands and place; an operand ``None`` stands for the gradient in the product matrix.

    What is to be turned is copied to `right` first.
    """

    left: Operand | None
    right: Operand | None
    target: Operand
    turned: Operand | None


class _Plan(NamedTuple):
    """The products of one evaluation."""

    forward: tuple[_Step, ...]
    product: Tensor
    backward: tuple[_Step, ...]


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
    products : Products, optional
        The library that multiplies; the one for the problem's device if not given.
    """

    def __init__(
        self,
        problem: Problem,
        widths: tuple[int, ...],
        n_runs: int,
        *,
        keep_product: bool = True,
        products: Products | None = None,
    ) -> None:
        self.problem = problem
        self.products = products or products_for(problem.device)
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
        # Second operands on the way back are factors and, from the right, partial products.
        turned = [columns * rows for columns, rows in pairwise(widths)] + [width * wide for width in inner]
        room = n_runs * max(turned) if self.products.turns else 0
        self._room_to_turn = torch.empty(room, device=problem.device, dtype=problem.dtype)
        self._plans: dict[tuple[int, int, int], _Plan] = {}

    def squares(self, state: Tensor) -> Tensor:
        """Sum of squared residuals, ``(runs,)``, without the gradient."""
        product = self._forward(split_factors(state, self.widths), state.shape[0])
        return self.problem.squares_and_residual_gradient(product)[0]

    def squares_and_gradient(self, state: Tensor, out: Tensor) -> Tensor:
        """Sum of squared residuals, ``(runs,)``; the gradient of the loss goes to `out`, shaped as `state`."""
        plan = self._plan(state, out)
        for step in plan.forward:
            self._multiply(step)
        if not plan.forward:
            plan.product.copy_(state.view_as(plan.product))
        squares, gradient = self.problem.squares_and_residual_gradient(plan.product)
        if self.gradient_scale != 1.0:
            gradient = gradient.mul_(self.gradient_scale)
        there = self.products.operand(gradient)
        for step in plan.backward:
            self._multiply(step, there)
        if not plan.backward:
            out.copy_(gradient.view_as(out))
        return squares

    def _forward(self, factors: tuple[Tensor, ...], runs: int) -> Tensor:
        product = self._product[:runs]
        if len(factors) == 1:
            return product.copy_(factors[0])
        for step in self._forward_products(factors, runs):
            self._multiply(self._laid_out(*step))
        return product

    def _plan(self, state: Tensor, out: Tensor) -> _Plan:
        """All products with their operands; descent comes back with the same tensors, and finds them laid out."""
        runs = state.shape[0]
        key = (state.data_ptr(), out.data_ptr(), runs)
        if key not in self._plans:
            factors, gradients = split_factors(state, self.widths), split_factors(out, self.widths)
            forward = self._forward_products(factors, runs) if len(factors) > 1 else ()
            follow = self._backward_from_left if self._from_left else self._backward_from_right
            if len(self._plans) == MOST_PLANS:
                self._plans.clear()
            # A plan holds its operands, so that no other tensor can come to lie at their addresses.
            self._plans[key] = _Plan(
                tuple(self._laid_out(*step) for step in forward),
                self._product[:runs],
                tuple(self._laid_out(*step) for step in follow(factors, gradients, runs)),
            )
        return self._plans[key]

    def _multiply(self, step: _Step, gradient: Operand = None) -> None:
        left, right, target, turned = step
        if turned is not None:
            right[...] = turned  # type: ignore[index]
        self.products.multiply(gradient if left is None else left, gradient if right is None else right, out=target)

    def _laid_out(self, left: Tensor | None, right: Tensor | None, target: Tensor) -> _Step:
        """One product as the library sees it."""
        operand = self.products.operand
        turned = None
        if self.products.turns and right is not None and right.stride(-1) > 1 and right[0].numel() >= TURN:
            turned, right = operand(right), self._room_to_turn[: right.numel()].view(right.shape)
        return _Step(
            None if left is None else operand(left), None if right is None else operand(right), operand(target), turned
        )

    def _forward_products(self, factors: tuple[Tensor, ...], runs: int) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Operands and places of the products that form the product matrix, in their order."""
        last = len(factors) - 1
        if self._from_left:
            done = factors[-1]
            for index in range(last - 1, -1, -1):  # kept[index - 1] = W_N .. W_{index + 1}
                target = self._kept[index - 1][:runs] if index else self._product[:runs]
                yield done, factors[index], target
                done = target
            return
        done = factors[0]
        for index in range(1, last + 1):  # kept[index] = W_{index + 1} .. W_1
            target = self._kept[index][:runs] if index < last else self._product[:runs]
            yield factors[index], done, target
            done = target

    def _backward_from_right(
        self, factors: tuple[Tensor, ...], gradients: tuple[Tensor, ...], runs: int
    ) -> Iterator[tuple[Tensor | None, Tensor | None, Tensor]]:
        """Operands and places of the products of the way back; ``None`` stands for the gradient in the product."""
        gradient: Tensor | None = None
        for index in range(len(factors) - 1, 0, -1):
            before = factors[0] if index == 1 else self._kept[index - 1][:runs]
            yield gradient, before.mT, gradients[index]
            # The last pass-on is the first factor's own gradient.
            target = gradients[0] if index == 1 else self._passed[index - 1][:runs]
            yield factors[index].mT, gradient, target
            gradient = target

    def _backward_from_left(
        self, factors: tuple[Tensor, ...], gradients: tuple[Tensor, ...], runs: int
    ) -> Iterator[tuple[Tensor | None, Tensor | None, Tensor]]:
        last, gradient = len(factors) - 1, None
        for index in range(last):
            after = factors[-1] if index == last - 1 else self._kept[index][:runs]
            yield after.mT, gradient, gradients[index]
            target = gradients[-1] if index == last - 1 else self._passed[index][:runs]
            yield gradient, factors[index].mT, target
            gradient = target
