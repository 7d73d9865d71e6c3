"""Problems and factors that tests make to measure."""

from __future__ import annotations

import torch

from dmfkit import Factorization, FullObservation, matrix_completion, matrix_sensing, random_low_rank
from dmfkit.problems.losses import Normalisation, Problem


def make_problem(kind: str, shape: tuple[int, int], normalisation: Normalisation) -> Problem:
    truth = random_low_rank(shape, 2, seed=1)
    if kind == "completion":
        return matrix_completion(truth, shape[0] * shape[1] // 2, 1, normalisation)
    if kind == "sensing":
        return matrix_sensing(truth, 13, 1, normalisation)
    return FullObservation(normalisation, truth, truth)


def random_factors(widths: tuple[int, ...], n_runs: int, seed: int = 0) -> Factorization:
    """Factors of order one, so that no product is negligible beside another."""
    generator = torch.Generator().manual_seed(seed)
    shapes = zip(widths[1:], widths[:-1], strict=True)
    return Factorization.from_factors(
        [torch.randn(n_runs, rows, columns, generator=generator, dtype=torch.float64) for rows, columns in shapes]
    )
