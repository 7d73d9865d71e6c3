"""A batch of factorizations at one moment, with what recorders commonly need computed once."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from dmfkit.factorizations.factorization import Factorization
from dmfkit.linalg import spectra
from dmfkit.problems.losses import Problem


@dataclass(frozen=True)
class Snapshot:
    """A batch of factorizations at one moment, and the problem that they are trained on."""

    problem: Problem
    factorization: Factorization

    @cached_property
    def product(self) -> Tensor:
        """Product matrices, ``(runs, ...)``, in the shape of the problem's own gradient."""
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
    def mean_square(self) -> Tensor:
        """Mean squared residual over the observations, ``(runs,)``."""
        return self.problem.loss(self.product, "mean")

    @cached_property
    def norm(self) -> Tensor:
        """Frobenius norms of the product matrices, ``(runs,)``."""
        return torch.linalg.matrix_norm(self.end_to_end)

    @cached_property
    def relative_error(self) -> Tensor | None:
        """Reconstruction error, ``(runs,)``; None where the ground truth is not known."""
        truth = self.problem.ground_truth
        return None if truth is None else spectra.relative_error(self.end_to_end, truth)

    @cached_property
    def held_out_rmse(self) -> Tensor | None:
        """Root mean square error on held-out entries, ``(runs,)``; None where no entries are held out."""
        return self.problem.held_out_rmse(self.end_to_end)

    @cached_property
    def singular_values(self) -> Tensor:
        """Singular values of the product matrices, ``(runs, min(d, d_in))``; ``nan`` for diverged runs."""
        return spectra.finite_singular_values(self.end_to_end)

    @cached_property
    def svd(self) -> tuple[Tensor, Tensor, Tensor]:
        """Thin singular value decomposition of the product matrices."""
        left, values, right = torch.linalg.svd(self.end_to_end, full_matrices=False)
        return left, values, right
