"""Flows of small factorizations by a Runge-Kutta method of order 8, as accurate as double precision allows.

`dmfkit.gradient_flow` is made for many and large runs. Here a problem has a handful of rows, and what is checked is
equalities, to ten digits.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.integrate import solve_ivp

from dmfkit.errors import SolverError
from dmfkit.theory.commuting import CommutingProblem
from dmfkit.theory.duality import adjoint, measure

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class FactorPath:
    """Factors along a flow.

    Attributes
    ----------
    times : ndarray, shape (moments,)
    factors : ndarray, shape (moments, N, d, d)
        W_1 first.
    integrals : ndarray, shape (moments, m)
        s(t), the residuals A(W) - y integrated from 0 to t.
    """

    times: Array
    factors: Array
    integrals: Array

    @property
    def products(self) -> Array:
        """The W_N ... W_1, ``(moments, d, d)``."""
        return np.stack([product(factors) for factors in self.factors])


def identity_factors(d: int, depth: int, alpha: float) -> Array:
    """All factors alpha I, ``(depth, d, d)``."""
    return np.stack([alpha * np.eye(d)] * depth)


def product(factors: Array) -> Array:
    """W_N ... W_1 of factors ``(N, d, d)``, W_1 first."""
    result = factors[0]
    for factor in factors[1:]:
        result = factor @ result
    return result


def factor_velocity(measurements: Array, labels: Array, factors: Array) -> Array:
    """Minus the gradient of the half-sum loss of the product in every factor, ``(N, d, d)``."""
    depth, d = factors.shape[0], factors.shape[-1]
    before, after = [np.eye(d)], [np.eye(d)]
    for j in range(depth - 1):
        before.append(factors[j] @ before[-1])
        after.append(after[-1] @ factors[depth - 1 - j])
    gradient = adjoint(measurements, measure(measurements, product(factors)) - labels)
    return -np.stack([after[depth - 1 - j].T @ gradient @ before[j].T for j in range(depth)])


def integrate_factors(
    measurements: Array, labels: Array, initial: Array, times: ArrayLike, rtol: float = 1e-12, atol: float = 1e-15
) -> FactorPath:
    """Gradient flow on the half-sum loss of the product of factors.

    Parameters
    ----------
    measurements : ndarray, shape (m, d, d)
    labels : ndarray, shape (m,)
    initial : ndarray, shape (N, d, d)
        W_1 first.
    times : array_like, shape (moments,)
        Increasing; the flow starts at time 0.
    rtol, atol : float

    Raises
    ------
    SolverError
        If the integrator gives up.
    """
    shape, size = initial.shape, initial.size
    moments = np.asarray(times, dtype=np.float64)

    def velocity(_: float, state: Array) -> Array:
        factors = state[:size].reshape(shape)
        residual = measure(measurements, product(factors)) - labels
        return np.append(factor_velocity(measurements, labels, factors), residual)

    start = np.append(initial, np.zeros(len(labels)))
    states = _solve(velocity, start, moments, rtol, atol)
    return FactorPath(moments, states[:, :size].reshape(-1, *shape), states[:, size:])


def integrate_eigenvalues(
    problem: CommutingProblem, depth: int, alpha: float, times: ArrayLike, rtol: float = 1e-12
) -> tuple[Array, Array]:
    """The decoupled flow of Equation (15), w_k' = -N (w_k^2)^((N-1)/N) A^dagger(r)_kk from alpha^N.

    The method may be implicit, so that long times are cheap.

    Returns
    -------
    eigenvalues : ndarray, shape (moments, d)
    integrals : ndarray, shape (moments, m)
        s(t), the residuals integrated from 0 to t.
    """
    a, labels, d = problem.diagonals, problem.labels, len(problem.target)

    def velocity(_: float, state: Array) -> Array:
        w = state[:d]
        residual = a @ w - labels
        return np.append(-depth * np.abs(w) ** (2 - 2 / depth) * (a.T @ residual), residual)

    start = np.append(np.full(d, alpha**depth), np.zeros(len(labels)))
    states = _solve(velocity, start, np.asarray(times, dtype=np.float64), rtol, 1e-16, "LSODA")
    return states[:, :d], states[:, d:]


def settling_time(problem: CommutingProblem, depth: int, alpha: float, eigenvalues: Array) -> float:
    """Time after which the decoupled flow has settled at ``eigenvalues`` (d,) as far as double precision can tell.

    A hundred times what leaving the start takes, and sixty times the slowest decay at the end: of the residual, whose
    velocity there is linear, with the matrix a diag(N w^(2-2/N)) a^T.
    """
    a = problem.diagonals
    leaving = 1 / (depth * alpha ** (depth - 2) * np.abs(a.T @ problem.labels).max())
    slowest = np.linalg.eigvalsh((a * (depth * eigenvalues ** (2 - 2 / depth))) @ a.T)[0]
    return float(100 * leaving + 60 / slowest)


def naive_path(
    measurements: Array, labels: Array, initial: Array, *, violation: float = 1e-6, horizon: float = 1e4
) -> tuple[Array, Array]:
    """Simulate factors in double precision, as one would without knowing better, until the labels are fitted.

    Parameters
    ----------
    measurements : ndarray, shape (m, d, d)
    labels : ndarray, shape (m,)
    initial : ndarray, shape (N, d, d)
        W_1 first.
    violation, horizon : float
        Largest error on a label, or time, at which it ends.

    Returns
    -------
    times : ndarray, shape (steps,)
    products : ndarray, shape (steps, d, d)
        W_N ... W_1 at the integrator's own steps, the last where every label is fitted to `violation`, or at `horizon`.
    """
    shape = initial.shape

    def velocity(_: float, state: Array) -> Array:
        return factor_velocity(measurements, labels, state.reshape(shape)).ravel()

    def fitted(_: float, state: Array) -> float:
        return float(np.abs(measure(measurements, product(state.reshape(shape))) - labels).max() - violation)

    fitted.terminal = True  # type: ignore[attr-defined]
    span = (0.0, horizon)
    solution = solve_ivp(velocity, span, initial.ravel(), method="LSODA", rtol=1e-8, atol=1e-12, events=fitted)
    return solution.t, np.stack([product(state.reshape(shape)) for state in solution.y.T])


def _solve(velocity: object, start: Array, moments: Array, rtol: float, atol: float, method: str = "DOP853") -> Array:
    span = (0.0, float(moments[-1]))
    solution = solve_ivp(velocity, span, start, method=method, t_eval=moments, rtol=rtol, atol=atol)
    if solution.status != 0:
        raise SolverError(f"The flow could not be integrated to time {span[1]:g}: {solution.message}")
    states: Array = solution.y.T
    return states
