"""A batch of factorizations at one moment, with what recorders commonly need computed once.

Snapshots of a `SparseCompletion`: what is known of product matrices through thin factors alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from dmfkit.errors import InputError
from dmfkit.factorizations.factorization import Factorization
from dmfkit.linalg import spectra
from dmfkit.linalg.low_rank import LowRank
from dmfkit.linalg.sampled_products import entries
from dmfkit.problems.losses import Problem
from dmfkit.problems.sparse_completion import SparseCompletion


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


def snapshot_of(problem: Problem, factorization: Factorization) -> Snapshot:
    """Return the snapshot that suits the problem."""
    if isinstance(problem, SparseCompletion):
        return SparseSnapshot(problem, factorization)
    return Snapshot(problem, factorization)


@dataclass(frozen=True)
class SparseSnapshot(Snapshot):
    """A batch of factorizations of large matrices; nothing of full size is formed."""

    problem: SparseCompletion

    @property
    def product(self) -> Tensor:
        """Refused.

        Raises
        ------
        InputError
            Always: a recorder asked for the matrix itself, which may not fit in memory.
        """
        raise InputError(
            "this recorder needs product matrices in full, which a SparseCompletion never forms: record Loss, "
            "RelativeError, SingularValues, EffectiveRank or HeldOutError, or use a CompletionTask at a smaller size."
        )

    @cached_property
    def low_rank(self) -> LowRank:
        """Product matrices by their factors."""
        return self.factorization.low_rank()

    @cached_property
    def mean_square(self) -> Tensor:
        return self.problem.squares(self.low_rank) * self.problem.loss_scale("mean")

    @cached_property
    def norm(self) -> Tensor:
        return self.low_rank.norm()

    @cached_property
    def relative_error(self) -> Tensor | None:
        truth = self.problem.truth
        return None if truth is None else (self.low_rank.minus(truth).norm() / truth.norm()).square()

    @cached_property
    def singular_values(self) -> Tensor:
        """Those that can differ from zero, as many as the inner width; ``nan`` for diverged runs."""
        return spectra.finite_singular_values(self.low_rank.core())

    @cached_property
    def held_out_rmse(self) -> Tensor | None:
        test = self.problem.held_out
        if test is None:
            return None
        found = [
            entries(left, right, test.rows, test.columns)
            for left, right in zip(self.low_rank.left, self.low_rank.right, strict=True)
        ]
        return (torch.stack(found) - test.values).square().mean(dim=-1).sqrt()
