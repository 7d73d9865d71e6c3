"""Small problems that several tests share."""

from __future__ import annotations

import pytest
import torch

from dmfkit import (
    Factorization,
    FullObservation,
    MatrixCompletion,
    initialise,
    matrix_completion,
    matrix_sensing,
    random_low_rank,
)
from dmfkit.problems import Normalisation, Problem


@pytest.fixture
def small_completion() -> MatrixCompletion:
    """Rank 2, 8 x 8, 45 of 64 entries: quickly solved, not trivially."""
    return matrix_completion(random_low_rank((8, 8), 2, seed=3), 45, seed=3)


@pytest.fixture
def small_start() -> Factorization:
    """Depth 3, two runs, not balanced and not small, so that every term of the dynamics matters."""
    return initialise("gaussian", (8, 8, 8, 8), [0.5, 0.8], [0, 1])


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
