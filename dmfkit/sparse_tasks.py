"""Large completion tasks, as plain values."""

from __future__ import annotations

from dataclasses import dataclass

from dmfkit.linalg.low_rank import LowRank
from dmfkit.problems import (
    Normalisation,
    check_n_entries,
    check_normalisation,
    check_rank,
    check_target_norm,
    gaussian_factors,
)
from dmfkit.sparse_completion import SparseCompletion, check_held_out, sparse_completion


@dataclass(frozen=True)
class SparseCompletionTask:
    """Complete a random low-rank ``d x d`` matrix of any size from `n_observed` of its entries; nothing is dense.

    The matrix is that of a `CompletionTask` with equal fields; up to ``d = 2048`` so are the observed entries.

    Attributes
    ----------
    d, rank, n_observed : int
    data_seed : int
        Draws the factors of the matrix and what is observed of it.
    normalisation : {"half_sum", "mean"}
        Of the training loss.
    target_norm : float, optional
        Frobenius norm to which the matrix is rescaled; ``None`` leaves it raw.
    n_held_out : int
        Number of further entries to test on.
    """

    d: int = 10_000
    rank: int = 5
    n_observed: int = 500_000
    data_seed: int = 0
    normalisation: Normalisation = "half_sum"
    target_norm: float | None = None
    n_held_out: int = 0

    @property
    def shape(self) -> tuple[int, int]:
        """Shape ``(d, d)`` of the matrix."""
        return (self.d, self.d)

    def check(self) -> None:
        """Raise `InputError` unless there is such a problem; draws nothing."""
        check_rank(self.shape, self.rank)
        check_target_norm(self.target_norm)
        check_normalisation(self.normalisation)
        check_n_entries(self.shape, self.n_observed)
        check_held_out(self.shape, self.n_observed, self.n_held_out)

    def ground_truth(self) -> LowRank:
        """Return the matrix to be found, by its factors, in a batch of one."""
        self.check()
        left, right = gaussian_factors(self.shape, self.rank, self.data_seed)
        truth = LowRank(left[None], right[None])
        if self.target_norm is None:
            return truth
        return LowRank(truth.left * (self.target_norm / truth.norm()), truth.right)

    def problem(self) -> SparseCompletion:
        """Make the problem, on the CPU in float64."""
        return sparse_completion(
            self.ground_truth(), self.n_observed, self.data_seed, self.normalisation, n_held_out=self.n_held_out
        )
