"""Loss and gradient in the factors by tensor operations, with buffers made once and as few products as possible."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import Tensor

from dmfkit.factorizations.factorization import split_factors
from dmfkit.gradients.evaluator import BaseEvaluator
from dmfkit.gradients.plan import Multiplication, Place, product_plan
from dmfkit.linalg.backend import TURN, Operand, Products, products_for
from dmfkit.problems.losses import Problem

# Operands of so many batches are remembered: descent has one pair of tensors, the flow a few, for each number of runs.
MOST_REMEMBERED = 64


class _Step(NamedTuple):
    """One product: operands and place; an operand ``None`` stands for the gradient in the product matrix.

    What is to be transposed is copied to `right` first.
    """

    left: Operand | None
    right: Operand | None
    target: Operand
    transposed: Operand | None


class Chain:
    """The products of a chain of factors and those of the way back, for batches of at most `n_runs` runs.

    Parameters
    ----------
    widths : tuple of int
    n_runs : int
    like : Problem
        Has the device and the dtype.
    products : Products, optional
        The library that multiplies; the one for the device if not given.
    from_left : bool, optional
        As in `product_plan`.
    """

    def __init__(
        self,
        widths: tuple[int, ...],
        n_runs: int,
        like: Problem,
        *,
        products: Products | None = None,
        from_left: bool | None = None,
    ) -> None:
        self._widths, self._plan = widths, product_plan(widths, from_left)
        self._by = products or products_for(like.device)
        steps = (*self._plan.forward, *self._plan.backward)
        own = {step.target for step in steps if step.target.kind not in ("factor", "gradient")}
        self._buffers = {
            place: torch.empty(n_runs, *self._plan.shape(place), device=like.device, dtype=like.dtype)
            for place in sorted(own)
        }
        sizes = [rows * columns for rows, columns in (self._plan.shape(step.right) for step in self._plan.backward)]
        size = n_runs * max(sizes, default=0) if self._by.turns else 0
        self._workspace = torch.empty(size, device=like.device, dtype=like.dtype)  # for transposed operands
        self._remembered: dict[tuple[int, int, int], tuple[list[_Step], list[_Step]]] = {}

    def product(self, state: Tensor) -> Tensor:
        """Product of all factors, ``(runs, d_N, d_0)``; memory of the chain's, or the one factor that there is."""
        return self._multiply_out(self._forward(state), state)

    def product_and_way_back(self, state: Tensor, out: Tensor) -> tuple[Tensor, list[_Step]]:
        """The product, and what `pull_back` takes to write the gradient in the factors to `out`.

        Both are laid out once for tensors at the same place: descent comes back with the same ones.
        """
        key = (state.data_ptr(), out.data_ptr(), state.shape[0])
        if key not in self._remembered:
            if len(self._remembered) == MOST_REMEMBERED:
                self._remembered.clear()
            # The operands are kept with it, so that no other tensor can come to lie at their addresses.
            self._remembered[key] = self._forward(state), self._laid_out(self._plan.backward, state, out)
        forward, backward = self._remembered[key]
        return self._multiply_out(forward, state), backward

    def pull_back(self, way_back: Iterable[_Step], gradient: Tensor) -> None:
        """Take a gradient in the product, ``(runs, d_N, d_0)``, back to the factors; a single one has it already."""
        there = self._by.operand(gradient)
        for step in way_back:
            self._multiply(step, there)

    def _forward(self, state: Tensor) -> list[_Step]:
        return self._laid_out(self._plan.forward, state, None)

    def _multiply_out(self, steps: Iterable[_Step], state: Tensor) -> Tensor:
        for step in steps:
            self._multiply(step)
        if not self._plan.forward:
            return split_factors(state, self._widths)[0]
        return self._buffers[Place("product")][: state.shape[0]]

    def _multiply(self, step: _Step, gradient: Operand = None) -> None:
        left, right, target, transposed = step
        if transposed is not None:
            right[...] = transposed  # type: ignore[index]
        self._by.multiply(gradient if left is None else left, gradient if right is None else right, out=target)

    def _laid_out(self, steps: Iterable[Multiplication], state: Tensor, out: Tensor | None) -> list[_Step]:
        """Products as the library sees them; with `out`, those of the way back."""
        runs, operand = state.shape[0], self._by.operand
        factors = split_factors(state, self._widths)
        gradients = () if out is None else split_factors(out, self._widths)

        def tensor(place: Place) -> Tensor:
            if place.kind == "factor":
                found = factors[place.number]
            elif place.kind == "gradient":
                found = gradients[place.number]
            else:
                found = self._buffers[place._replace(transposed=False)][:runs]
            return found.mT if place.transposed else found

        def operands(step: Multiplication) -> _Step:
            given = out is not None and Place("product")
            left = None if step.left == given else operand(tensor(step.left))
            if step.right == given:
                return _Step(left, None, operand(tensor(step.target)), None)
            right = tensor(step.right)
            if self._by.turns and right.stride(-1) > 1 and right[0].numel() >= TURN:
                copy = self._workspace[: right.numel()].view(right.shape)
                return _Step(left, operand(copy), operand(tensor(step.target)), operand(right))
            return _Step(left, operand(right), operand(tensor(step.target)), None)

        return [operands(step) for step in steps]


class Evaluator(BaseEvaluator):
    """Sum of squared residuals and gradient in the factors, by tensor operations on any device.

    Its `product_plan` has the products that it takes.

    Parameters
    ----------
    problem : Problem
    widths : tuple of int
        ``(d_0, .., d_N)``; ``(d_N, d_0)`` must be the problem's shape.
    n_runs : int
        Number of runs that a batch has at most.
    products : Products, optional
        The library that multiplies; the one for the problem's device if not given.
    """

    def __init__(
        self, problem: Problem, widths: tuple[int, ...], n_runs: int, *, products: Products | None = None
    ) -> None:
        self.problem, self.widths = problem, widths
        self.gradient_scale = problem.gradient_scale
        self._chain = Chain(widths, n_runs, problem, products=products)

    def squares(self, state: Tensor) -> Tensor:
        """Sum of squared residuals, ``(runs,)``, without the gradient."""
        return self.problem.squares_and_residual_gradient(self._overwritable(self._chain.product(state)))[0]

    def squares_and_gradient(self, state: Tensor, out: Tensor) -> Tensor:
        """Sum of squared residuals, ``(runs,)``; the gradient of the loss goes to `out`, shaped as `state`."""
        product, way_back = self._chain.product_and_way_back(state, out)
        squares, gradient = self.problem.squares_and_residual_gradient(self._overwritable(product))
        if self.gradient_scale != 1.0:
            gradient = gradient.mul_(self.gradient_scale)
        if len(self.widths) == 2:
            out.copy_(gradient.view_as(out))
        self._chain.pull_back(way_back, gradient)
        return squares

    def _overwritable(self, product: Tensor) -> Tensor:
        # The product of one factor is that factor.
        return product.clone() if len(self.widths) == 2 else product
