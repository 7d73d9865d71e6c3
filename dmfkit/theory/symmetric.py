"""The flow of Gunasekar et al. (2017) on l(Z Z^T), and problems on which its measurements do not commute.

Theorem 1 of Arora et al. (2019) is about this flow where the measurements commute. On two factors that start at
alpha I the flow of the product is the same, at half the speed.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dmfkit.errors import InputError
from dmfkit.theory.duality import adjoint, measure
from dmfkit.theory.small_flows import integrate

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class SymmetricEndpoint:
    """Where the flow on l(Z Z^T) was stopped: fitted, or out of time.

    Attributes
    ----------
    matrix : ndarray, shape (d, d)
        Z Z^T.
    integral : ndarray, shape (m,)
        s, the residuals integrated from 0 to the end.
    time, violation : float
        The flow's time and the largest error on a label then.
    """

    matrix: Array
    integral: Array
    time: float
    violation: float


def symmetric_flow(
    measurements: Array,
    labels: Array,
    initial: Array,
    *,
    violation: float = 1e-8,
    horizon: float = 1e4,
    method: str = "DOP853",
    rtol: float = 1e-9,
) -> SymmetricEndpoint:
    """Integrate Z' = -2 A^dagger(A(Z Z^T) - y) Z, the flow of Theorem 1 of Arora et al. (2019), until the labels fit.

    Parameters
    ----------
    measurements : ndarray, shape (m, d, d)
    labels : ndarray, shape (m,)
    initial : ndarray, shape (d, d)
    violation : float
        Largest error on a label, relative to the largest label, at which the flow is stopped.
    horizon : float
        Time at which it is stopped at the latest.
    method : str
        An integrator of `scipy.integrate.solve_ivp`.
    rtol : float
        Error allowed in one step, relative to each entry, and a thousandth of it relative to the largest at the start.

    Returns
    -------
    SymmetricEndpoint
        Its `violation` tells whether the labels were fitted, or the integrator came no further.
    """
    shape, size, allowed = initial.shape, initial.size, violation * float(np.abs(labels).max())

    def evaluate(state: Array) -> tuple[Array, Array]:
        Z = state[:size].reshape(shape)
        return Z, measure(measurements, Z @ Z.T) - labels

    def velocity(state: Array) -> Array:
        Z, residual = evaluate(state)
        return np.append(-2 * adjoint(measurements, residual) @ Z, residual)

    found = integrate(
        velocity,
        np.append(initial, np.zeros(len(labels))),
        (0.0, horizon),
        until=lambda state: float(np.abs(evaluate(state)[1]).max() - allowed),
        method=method,
        rtol=rtol,
        atol=1e-3 * rtol * float(np.abs(initial).max()),
    )
    state = found.y[:, -1]
    Z, residual = evaluate(state)
    return SymmetricEndpoint(Z @ Z.T, state[size:], float(found.t[-1]), float(np.abs(residual).max()))


def pair_completion(d: int, n_pairs: int, seed: int) -> tuple[Array, Array, Array]:
    """Complete a positive semidefinite matrix of rank one from entries off its diagonal.

    Each known pair (j, k), (k, j) is measured by a symmetric matrix, and these do not commute if two pairs share an
    index. With a large enough diagonal a positive definite matrix fits too, so the flow has an endpoint.

    Parameters
    ----------
    d : int
    n_pairs : int
        At most d (d - 1) / 2.
    seed : int

    Returns
    -------
    measurements : ndarray, shape (n_pairs, d, d)
    labels : ndarray, shape (n_pairs,)
    target : ndarray, shape (d, d)
        x x^T with standard normal x.

    Raises
    ------
    InputError
        If there are not that many pairs.
    """
    rows, columns = np.triu_indices(d, 1)
    if not 1 <= n_pairs <= len(rows):
        raise InputError(f"n_pairs = {n_pairs} is not allowed with d = {d}: it must be from 1 to {len(rows)}.")
    random = np.random.default_rng(seed)
    x = random.standard_normal(d)
    chosen = np.sort(random.choice(len(rows), n_pairs, replace=False))
    measurements = _pair_measurements(d, rows[chosen], columns[chosen])
    target = np.outer(x, x)
    return measurements, measure(measurements, target), target


def symmetric_completion(d: int, rank: int, n_pairs: int, seed: int) -> tuple[Array, Array, Array]:
    """Complete a positive semidefinite matrix U U^T from entries on and off its diagonal.

    Parameters
    ----------
    d, rank : int
        U is d x rank, with standard normal entries.
    n_pairs : int
        Distinct pairs (j, k) with j <= k whose entries are known, at most d (d + 1) / 2.
    seed : int

    Returns
    -------
    measurements : ndarray, shape (n_pairs, d, d)
        Symmetric; the inner product with a symmetric matrix is its entry (j, k).
    labels : ndarray, shape (n_pairs,)
    target : ndarray, shape (d, d)

    Raises
    ------
    InputError
        If there are not that many pairs, or the rank exceeds d.
    """
    rows, columns = np.triu_indices(d)
    if not 1 <= n_pairs <= len(rows):
        raise InputError(f"n_pairs = {n_pairs} is not allowed with d = {d}: it must be from 1 to {len(rows)}.")
    if not 1 <= rank <= d:
        raise InputError(f"rank = {rank} is not allowed with d = {d}: it must be from 1 to {d}.")
    random = np.random.default_rng(seed)
    factor = random.standard_normal((d, rank))
    chosen = np.sort(random.choice(len(rows), n_pairs, replace=False))
    measurements = _pair_measurements(d, rows[chosen], columns[chosen])
    target = factor @ factor.T
    return measurements, measure(measurements, target), target


def _pair_measurements(d: int, rows: NDArray[np.int_], columns: NDArray[np.int_]) -> Array:
    """Symmetric matrices, ``(pairs, d, d)``, whose inner product with a symmetric matrix is its entry of each pair."""
    measurements = np.zeros((len(rows), d, d))
    measurements[np.arange(len(rows)), rows, columns] = 0.5
    symmetric: Array = measurements + measurements.transpose(0, 2, 1)
    return symmetric
