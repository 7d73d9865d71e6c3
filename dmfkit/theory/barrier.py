"""What the flow's endpoint minimises at finite alpha, as a function of any positive definite matrix.

For commuting measurements the endpoint of depth N from alpha I is the only minimiser of the trace plus a multiple of
tr g(W) among all W that fit, with g(w) = -w^(2/N) for N >= 3 and w log w - w for N = 2. Here the function is minimised
over all symmetric matrices, without the common eigenbasis and without the flow's closed form, to have something to
compare with.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from dmfkit.errors import SolverError

Array = NDArray[np.float64]

_MAX_STEPS = 500


def barrier_value(matrix: Array, depth: int, alpha: float) -> float:
    """Return tr W - (N/2) alpha^(N-2) tr W^(2/N), or for depth 2 tr W + tr(W log W - W) / (2 log(1/alpha)).

    Parameters
    ----------
    matrix : ndarray, shape (d, d)
        Positive semidefinite; eigenvalues that rounding has made negative count as zero.
    depth : int
        At least 2.
    alpha : float
        Between 0 and 1.
    """
    w = np.linalg.eigvalsh(matrix).clip(0)
    if depth == 2:
        logarithm = np.log(np.where(w > 0, w, 1.0))
        return float(w.sum() + (w * logarithm - w).sum() / (2 * math.log(1 / alpha)))
    return float(w.sum() - depth / 2 * alpha ** (depth - 2) * (w ** (2 / depth)).sum())


def barrier_slope(eigenvalues: Array, depth: int, alpha: float) -> tuple[Array, Array]:
    """First and second derivative of the function in positive eigenvalues, each ``(d,)``."""
    if depth == 2:
        weight = 1 / (2 * math.log(1 / alpha))
        return 1 + weight * np.log(eigenvalues), weight / eigenvalues
    part = alpha ** (depth - 2) * eigenvalues ** (2 / depth - 1)
    return 1 - part, (1 - 2 / depth) * part / eigenvalues


def unseen_directions(measurements: Array) -> Array:
    """Orthonormal basis of the symmetric matrices that no measurement sees, ``(d(d+1)/2 - m, d, d)``."""
    d = measurements.shape[-1]
    rows, columns = np.triu_indices(d)
    units = np.zeros((len(rows), d, d))
    units[np.arange(len(rows)), rows, columns] = np.where(rows == columns, 0.5, math.sqrt(0.5))
    units += units.transpose(0, 2, 1)
    seen = np.einsum("mij,uij->mu", measurements, units)
    free = np.linalg.svd(seen)[2][len(measurements) :]
    return np.einsum("fu,uij->fij", free, units)


def minimise_barrier(measurements: Array, depth: int, alpha: float, start: Array) -> Array:
    """Minimise `barrier_value` over the positive definite matrices with the measurements of ``start``, by Newton.

    Parameters
    ----------
    measurements : ndarray, shape (m, d, d)
        Symmetric and linearly independent; they need not commute.
    depth, alpha : int, float
    start : ndarray, shape (d, d)
        Positive definite.

    Raises
    ------
    SolverError
        If Newton's method does not end.
    """
    directions, matrix = unseen_directions(measurements), start
    for _ in range(_MAX_STEPS):
        w, vectors = np.linalg.eigh(matrix)
        slope, curvature = barrier_slope(w, depth, alpha)
        turned = vectors.T @ directions @ vectors
        gradient = np.einsum("fkk,k->f", turned, slope)
        # Second derivative of a trace function: divided differences of the first, in the eigenbasis.
        apart = w[:, None] - w
        close = np.abs(apart) <= 1e-6 * np.abs(w[:, None] + w)
        with np.errstate(divide="ignore", invalid="ignore"):
            divided = np.where(close, (curvature[:, None] + curvature) / 2, (slope[:, None] - slope) / apart)
        hessian = np.einsum("fij,ij,gij->fg", turned, divided, turned)
        scaling = 1 / np.sqrt(np.diag(hessian))
        step = -scaling * np.linalg.solve(scaling[:, None] * hessian * scaling, scaling * gradient)
        decrement = -float(step @ gradient)
        if decrement < 1e-24 * (1 + np.abs(w).sum()):
            return matrix
        move, size = np.einsum("f,fij->ij", step, directions), 1.0
        while not _short_enough(matrix + size * move, move, depth, alpha, decrement):
            size /= 2
            if size < 1e-12:
                return matrix  # Rounding is all that is left of the slope.
        matrix = matrix + size * move
    raise SolverError(f"Newton's method for depth {depth}, alpha = {alpha:g} did not end in {_MAX_STEPS} steps.")


def _short_enough(trial: Array, move: Array, depth: int, alpha: float, decrement: float) -> bool:
    """Whether the trial is positive definite and the slope along the step has not turned up by much."""
    w, vectors = np.linalg.eigh(trial)
    if w[0] <= 0:
        return False
    along = np.einsum("ik,ij,jk->k", vectors, move, vectors)
    return float(along @ barrier_slope(w, depth, alpha)[0]) <= decrement / 2
