"""The flows behind Theorem 1 of Arora et al. (2019): several measurements, and factors that start at alpha I.

With commuting measurements the flow of all factors (Eq 4) falls apart into one equation for each eigenvalue of the
product (Eq 15). Both are integrated here, neither by use of the other.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dmfkit.theory.commuting import CommutingProblem
from dmfkit.theory.duality import adjoint, measure
from dmfkit.theory.small_flows import Path, factor_gradients, integrate, integrate_path

Array = NDArray[np.float64]


def identity_factors(d: int, depth: int, alpha: float) -> Array:
    """All factors alpha I, ``(depth, d, d)``: the start of Theorem 1 of Arora et al. (2019)."""
    return np.stack([alpha * np.eye(d)] * depth)


def factor_velocity(measurements: Array, labels: Array, factors: Sequence[Array]) -> list[Array]:
    """Minus the gradient of ``||A(W) - y||^2 / 2`` in every factor of W, Eq (4) of Arora et al. (2019).

    Parameters
    ----------
    measurements : ndarray, shape (m, d, d_in)
    labels : ndarray, shape (m,)
    factors : sequence of ndarray, each (d_j, d_{j-1})
        ``W_1 .. W_N``.

    Returns
    -------
    list of ndarray
        Shaped like the factors.
    """
    return [-part for part in factor_gradients(factors, _half_sum_gradient(measurements, labels))]


def integrate_factors(
    measurements: Array,
    labels: Array,
    initial: Sequence[Array],
    times: ArrayLike,
    rtol: float = 1e-12,
    atol: float = 1e-15,
) -> Path:
    """Gradient flow on ``||A(W) - y||^2 / 2`` in the factors of W, with the integral s of the residuals.

    Parameters
    ----------
    measurements : ndarray, shape (m, d, d_in)
    labels : ndarray, shape (m,)
    initial : sequence of ndarray, each (d_j, d_{j-1})
        W_1 first.
    times : array_like, shape (moments,)
        Increasing; the flow starts at time 0.
    rtol, atol : float

    Raises
    ------
    SolverError
        If the integrator gives up.
    """
    moments = np.asarray(times, dtype=np.float64)
    path, _ = integrate_path(
        _half_sum_gradient(measurements, labels),
        initial,
        float(moments[-1]),
        residual_of=lambda end_to_end: measure(measurements, end_to_end) - labels,
        t_eval=moments,
        rtol=rtol,
        atol=atol,
    )
    return path


def naive_path(
    measurements: Array, labels: Array, initial: Sequence[Array], *, violation: float = 1e-6, horizon: float = 1e4
) -> Path:
    """Simulate factors in double precision, as one would without knowing better, until the labels are fitted.

    Parameters
    ----------
    measurements : ndarray, shape (m, d, d_in)
    labels : ndarray, shape (m,)
    initial : sequence of ndarray, each (d_j, d_{j-1})
        W_1 first.
    violation, horizon : float
        Largest error on a label, or time, at which it ends.

    Returns
    -------
    Path
        At the integrator's own steps, the last where every label is fitted to `violation`, or at `horizon`.
    """
    path, _ = integrate_path(
        _half_sum_gradient(measurements, labels),
        initial,
        horizon,
        until=lambda end_to_end: float(np.abs(measure(measurements, end_to_end) - labels).max() - violation),
        method="LSODA",
        rtol=1e-8,
        atol=1e-12,
    )
    return path


def integrate_eigenvalues(
    problem: CommutingProblem, depth: int, alpha: float, times: ArrayLike, rtol: float = 1e-12
) -> tuple[Array, Array]:
    """The decoupled flow of Eq (15) of Arora et al. (2019), w_k' = -N (w_k^2)^((N-1)/N) A^dagger(r)_kk from alpha^N.

    The method may be implicit, so that long times are cheap.

    Parameters
    ----------
    problem : CommutingProblem
    depth : int
        ``N``.
    alpha : float
        Scale of the initial factors.
    times : array_like, shape (moments,)
        Increasing; the flow starts at time 0.
    rtol : float

    Returns
    -------
    eigenvalues : ndarray, shape (moments, d)
    integrals : ndarray, shape (moments, m)
        s(t), the residuals integrated from 0 to t.

    Raises
    ------
    SolverError
        If the integrator gives up.
    """
    a, labels, d = problem.diagonals, problem.labels, len(problem.target)

    def velocity(state: Array) -> Array:
        w = state[:d]
        residual = a @ w - labels
        return np.append(-depth * np.abs(w) ** (2 - 2 / depth) * (a.T @ residual), residual)

    start, moments = np.append(np.full(d, alpha**depth), np.zeros(len(labels))), np.asarray(times, dtype=np.float64)
    found = integrate(velocity, start, (0.0, moments[-1]), method="LSODA", t_eval=moments, rtol=rtol, atol=1e-16)
    return found.y[:d].T, found.y[d:].T


def settling_time(problem: CommutingProblem, depth: int, alpha: float, eigenvalues: Array) -> float:
    """Time after which the decoupled flow has settled at ``eigenvalues`` (d,) as far as double precision can tell.

    A hundred times what leaving the start takes, and sixty times the slowest decay at the end: of the residual, whose
    velocity there is linear, with the matrix a diag(N w^(2-2/N)) a^T.
    """
    a = problem.diagonals
    leaving = 1 / (depth * alpha ** (depth - 2) * np.abs(a.T @ problem.labels).max())
    slowest = np.linalg.eigvalsh((a * (depth * eigenvalues ** (2 - 2 / depth))) @ a.T)[0]
    return float(100 * leaving + 60 / slowest)


def _half_sum_gradient(measurements: Array, labels: Array) -> Callable[[Array], Array]:
    """Gradient of ``||A(W) - y||^2 / 2`` in W."""
    return lambda end_to_end: adjoint(measurements, measure(measurements, end_to_end) - labels)
