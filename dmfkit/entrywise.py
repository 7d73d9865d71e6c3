"""Loss and gradient where few entries are observed: the residual at those entries only, never a full matrix of it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from dmfkit.linalg.backend import Products, Spread, serially
from dmfkit.linalg.sampled_products import HostProducts
from dmfkit.problems.losses import MatrixCompletion
from dmfkit.thin import ThinEvaluator


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
