"""The inner loop: loss and gradient in the factors, with buffers made once and as few products as possible."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from dmfkit.factorization import split_factors
from dmfkit.problems import Problem

# Bytes of a cache line.
LINE = 64


class _Plan(NamedTuple):
    """The products of one evaluation: operands, place, and where to multiply first if not there.

    An operand ``None`` stands for the gradient in the product matrix.
    """

    forward: tuple[tuple[Tensor, Tensor, Tensor], ...]
    product: Tensor
    backward: tuple[tuple[Tensor | None, Tensor | None, Tensor, Tensor | None], ...]


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
        sizes = [rows * columns for columns, rows in pairwise(widths)]
        self._gapless = torch.empty(0, device=problem.device, dtype=problem.dtype)
        if (
            keep_product
            and n_runs > 1
            and problem.device.type == "cpu"
            and all(size * problem.dtype.itemsize % LINE == 0 for size in sizes)
        ):
            self._gapless = self._gapless.new_empty(n_runs * max(sizes))
        self._planned: tuple[Tensor, Tensor, _Plan] | None = None

    def squares(self, state: Tensor) -> Tensor:
        """Sum of squared residuals, ``(runs,)``, without the gradient."""
        product = self._forward(split_factors(state, self.widths), state.shape[0])
        return self.problem.squares_and_residual_gradient(product)[0]

    def squares_and_gradient(self, state: Tensor, out: Tensor) -> Tensor:
        """Sum of squared residuals, ``(runs,)``; the gradient of the loss goes to `out`, shaped as `state`."""
        plan = self._plan(state, out)
        for left, right, target in plan.forward:
            torch.bmm(left, right, out=target)
        if not plan.forward:
            plan.product.copy_(state.view_as(plan.product))
        squares, gradient = self.problem.squares_and_residual_gradient(plan.product)
        if self.gradient_scale != 1.0:
            gradient = gradient.mul_(self.gradient_scale)
        for first, second, target, gapless in plan.backward:
            place = target if gapless is None else gapless
            torch.bmm(gradient if first is None else first, gradient if second is None else second, out=place)
            if gapless is not None:
                target.copy_(gapless)
        if not plan.backward:
            out.copy_(gradient.view_as(out))
        return squares

    def _forward(self, factors: tuple[Tensor, ...], runs: int) -> Tensor:
        product = self._product[:runs]
        if len(factors) == 1:
            return product.copy_(factors[0])
        for left, right, target in self._forward_products(factors, runs):
            torch.bmm(left, right, out=target)
        return product

    def _plan(self, state: Tensor, out: Tensor) -> _Plan:
        """All products with their operands; descent comes back with the same tensors, and finds them laid out."""
        if self._planned is None or self._planned[0] is not state or self._planned[1] is not out:
            runs = state.shape[0]
            factors, gradients = split_factors(state, self.widths), split_factors(out, self.widths)
            forward = tuple(self._forward_products(factors, runs)) if len(factors) > 1 else ()
            follow = self._backward_from_left if self._from_left else self._backward_from_right
            backward = tuple(
                (left, right, target, self._in_one(target)) for left, right, target in follow(factors, gradients, runs)
            )
            self._planned = (state, out, _Plan(forward, self._product[:runs], backward))
        return self._planned[2]

    def _in_one(self, target: Tensor) -> Tensor | None:
        """Where to multiply first, before the product is copied to `target`; ``None`` for `target` itself.

        PyTorch multiplies a batch at once only into memory without gaps between the runs, else run by run. The numbers
        are the same to the bit where every matrix begins on a cache line; elsewhere the last digits may depend on the
        place in memory, and `target` is the place.
        """
        if target.is_contiguous() or not self._gapless.numel():
            return None
        return self._gapless[: target.numel()].view(target.shape)

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
