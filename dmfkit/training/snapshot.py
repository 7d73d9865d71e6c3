"""A batch of factorizations at one moment, with what recorders commonly need computed once."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from dmfkit.factorizations.factorization import Factorization
from dmfkit.linalg import spectra
from dmfkit.linalg.low_rank import LowRank
from dmfkit.problems.losses import Problem


@dataclass(frozen=True, eq=False)
class Snapshot:
    """A batch of factorizations at one moment, and the problem that they are trained on.

    Product matrices are measured in full, or by their factors where the problem is evaluated by its entries and no
    ground truth in full is to be compared with.
    """

    problem: Problem
    factorization: Factorization

    @cached_property
    def product(self) -> Tensor:
        """Product matrices, ``(runs, ...)``, in the shape of the problem's own gradient.

        Raises
        ------
        InputError
            If they are too large to be formed.
        """
        self.problem.check_formable()
        return self.factorization.end_to_end()

    @cached_property
    def gradient(self) -> Tensor:
        """Gradients of the problem's own loss in the product matrices, shaped like `end_to_end`."""
        return self.problem.lift(self.problem.gradient(self.product))

    @cached_property
    def end_to_end(self) -> Tensor:
        """Product matrices, ``(runs, d, d_in)``; of a compressed factorization, in the shape of the target."""
        return self.problem.lift(self.product)

    @cached_property
    def _product(self) -> Tensor | LowRank:
        """`product`, in the form in which it is measured."""
        by_factors = self.problem.by_entries(self.factorization.widths)
        if by_factors and not isinstance(self.problem.truth, Tensor):
            return self.factorization.low_rank()
        return self.product

    @cached_property
    def _end_to_end(self) -> Tensor | LowRank:
        """`end_to_end`, in the form in which it is measured."""
        return self.problem.lift(self._product) if isinstance(self._product, LowRank) else self.end_to_end

    @cached_property
    def mean_square(self) -> Tensor:
        """Mean squared residual over the observations, ``(runs,)``."""
        return self.problem.loss(self._product, "mean")

    @cached_property
    def norm(self) -> Tensor:
        """Frobenius norms of the product matrices, ``(runs,)``."""
        matrix = self._end_to_end
        return matrix.norm() if isinstance(matrix, LowRank) else torch.linalg.matrix_norm(matrix)

    @cached_property
    def relative_error(self) -> Tensor | None:
        """Reconstruction error, ``(runs,)``; None where the ground truth is not known."""
        matrix, truth = self._end_to_end, self.problem.truth
        if isinstance(matrix, LowRank) and isinstance(truth, LowRank):
            return (matrix.minus(truth).norm() / truth.norm()).square()
        full = self.problem.ground_truth
        return None if full is None else spectra.relative_error(self.end_to_end, full)

    @cached_property
    def held_out_rmse(self) -> Tensor | None:
        """Root mean square error on held-out entries, ``(runs,)``; None where no entries are held out."""
        return self.problem.held_out_rmse(self._end_to_end)

    @cached_property
    def singular_values(self) -> Tensor:
        """Singular values of the product matrices, ``(runs, min(d, d_in))``; ``nan`` for diverged runs.

        Of products that are measured by their factors only those that can differ from zero, as many as the inner width.
        """
        matrix = self._end_to_end
        return spectra.finite_singular_values(matrix.core() if isinstance(matrix, LowRank) else matrix)

    @cached_property
    def svd(self) -> tuple[Tensor, Tensor, Tensor]:
        """Thin singular value decomposition of the product matrices."""
        left, values, right = torch.linalg.svd(self.end_to_end, full_matrices=False)
        return left, values, right
