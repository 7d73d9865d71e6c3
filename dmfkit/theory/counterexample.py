"""Proposition 1 of Arora et al. (2019): where the flow's limit is no local minimiser of a Schatten quasi-norm."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dmfkit.errors import InputError
from dmfkit.theory.commuting import CommutingProblem

Array = NDArray[np.float64]


def schatten_counterexample(d: int) -> CommutingProblem:
    """The measurements of Equation (24): W_11 = W_22, and W_11 = W_kk + 1 for k = 3, ..., d.

    Raises
    ------
    InputError
        For d below 3.
    """
    if d < 3:
        raise InputError(f"d = {d} is not allowed: Proposition 1 needs d >= 3.")
    diagonals = -np.eye(d)[1:]
    diagonals[:, 0] = 1.0
    return CommutingProblem(np.eye(d), diagonals, np.append([1.0, 1.0], np.zeros(d - 2)))


def perturbed_limit(d: int, epsilon: float) -> Array:
    """The limit diag(1, 1, 0, ..., 0) with epsilon added off its diagonal, in the first two rows and columns."""
    matrix = np.diag(np.append([1.0, 1.0], np.zeros(d - 2)))
    matrix[0, 1] = matrix[1, 0] = epsilon
    return matrix
