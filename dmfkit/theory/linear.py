"""The least trace when everything is diagonal: a linear program, with a dual solution that proves it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linprog

from dmfkit.errors import SolverError

Array = NDArray[np.float64]

# Relative to the largest: what the simplex method leaves in place of zero.
_ZERO = 1e-9
# Where the slack can grow without limit, enough of it.
_MARGIN = 10.0


@dataclass(frozen=True, eq=False)
class DiagonalOptimum:
    """Minimise sum(w) over w >= 0 with a w = y, and maximise nu^T y over a^T nu <= 1.

    Attributes
    ----------
    eigenvalues : ndarray, shape (d,)
        An optimal w, with exact zeros.
    multipliers : ndarray, shape (m,)
        An optimal nu.
    slack : ndarray, shape (d,)
        1 - a^T nu >= 0, exactly zero where w is not and, if the solution w is unique, positive elsewhere.
    value, dual_value : float
        sum(w) and nu^T y; equal up to rounding, which proves both optimal.
    """

    eigenvalues: Array
    multipliers: Array
    slack: Array
    value: float
    dual_value: float

    @classmethod
    def of(cls, diagonals: Array, labels: Array) -> DiagonalOptimum:
        """Solve both programs for ``diagonals`` (m, d) and ``labels`` (m,).

        Raises
        ------
        SolverError
            If the solver does not end with an optimal pair, for example because no w >= 0 fits.
        """
        m, d = diagonals.shape
        primal = linprog(np.ones(d), A_eq=diagonals, b_eq=labels, bounds=(0, None), method="highs-ds")
        if primal.status != 0:
            raise SolverError(f"The least trace could not be found: {primal.message}")
        used = primal.x > _ZERO * max(primal.x.max(), _ZERO)
        # Among the dual solutions one whose slack is as far from zero as it can be, so that no digits are lost in it.
        margin = np.append(np.zeros(m), -1.0)
        rows = np.hstack([diagonals.T, np.ones((d, 1))])
        dual = linprog(
            margin,
            A_ub=rows[~used],
            b_ub=np.ones((~used).sum()),
            A_eq=np.hstack([diagonals.T, np.zeros((d, 1))])[used],
            b_eq=np.ones(used.sum()),
            bounds=[(None, None)] * m + [(None, _MARGIN)],
            method="highs-ds",
        )
        if dual.status != 0:
            raise SolverError(f"The dual of the least trace could not be found: {dual.message}")
        # Solved again on the support alone, both are exact up to rounding.
        eigenvalues = np.zeros(d)
        eigenvalues[used] = np.linalg.lstsq(diagonals[:, used], labels, rcond=None)[0]
        nu = dual.x[:m]
        nu = nu - np.linalg.lstsq(diagonals[:, used].T, diagonals[:, used].T @ nu - 1, rcond=None)[0]
        slack = np.where(used, 0.0, 1 - diagonals.T @ nu)
        slack = np.where(slack < _ZERO, 0.0, slack)
        return cls(eigenvalues, nu, slack, float(eigenvalues.sum()), float(nu @ labels))

    def gap(self, eigenvalues: Array) -> float:
        """How far the trace of a feasible w lies above the least one.

        Since a w = y, sum(w) - nu^T y = slack^T w; this sum of non-negative terms keeps its digits where the difference
        of two traces has none left.
        """
        return float(self.slack @ eigenvalues)
