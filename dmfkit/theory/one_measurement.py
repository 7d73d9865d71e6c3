"""A single measurement: Section 3.1 of Arora et al. (2019), Eqs (10) and (11), and the flow that they describe.

With the loss ``0.5 * (<A, W> - y)^2`` and singular vectors at rest, every singular value of the product has a fixed
*signed strength* ``e_r rho_r``: a singular value of ``A`` with a sign. Two of them, here the first and the second, then
satisfy ``d first / d second = alpha * (first / second)^(2 - 2/N)`` (for positive values), where `alpha` is the
quotient of their strengths. Neither the label nor time appears in it.

First the closed forms; then flows to hold them against, of all factors (`matrix_flow`) and of the singular values alone
(`singular_value_flow`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import brentq

from dmfkit.errors import InputError, SolverError
from dmfkit.theory.small_flows import Path, integrate, integrate_path, product

Array = NDArray[np.float64]


def singular_value_speed(values: ArrayLike, *, depth: int, residual: float, strengths: ArrayLike) -> Array:
    """Eq (10): ``-N (sigma_r^2)^(1 - 1/N) delta e_r rho_r``.

    The derivative in time of every singular value.

    Parameters
    ----------
    values : array of shape (k,)
        Singular values ``sigma_r`` with sign.
    depth : int
        ``N``, at least 1.
    residual : float
        ``delta = <A, W> - y``.
    strengths : array of shape (k,)
        ``e_r rho_r``.

    Returns
    -------
    ndarray, shape (k,)

    Raises
    ------
    InputError
        For a depth below 1.
    """
    _check(depth)
    sigma = np.asarray(values, dtype=float)
    result: Array = -depth * np.square(sigma) ** (1 - 1 / depth) * residual * np.asarray(strengths, dtype=float)
    return result


def first_singular_value(
    second: ArrayLike, *, alpha: float, depth: int, first_0: float, second_0: float
) -> NDArray[np.float64]:
    """Eq (11): the first singular value where the second has the value `second`, with its constant made explicit.

    Parameters
    ----------
    second : array
        Values of the second singular value; positive unless `depth` is 1.
    alpha : float
        ``e_1 rho_1 / (e_2 rho_2)``, of either sign.
    depth : int
    first_0, second_0 : float
        Where both start; positive unless `depth` is 1.

    Returns
    -------
    array shaped like `second`
        ``inf`` where the first value has diverged before the second got there (see `diverges_at`).

    Raises
    ------
    InputError
        For a depth below 1, or a value that is not positive at depth 2 or more.
    """
    _check(depth, second, first_0, second_0)
    reached = np.asarray(second, dtype=float)
    if depth == 1:
        return np.asarray(first_0 + alpha * (reached - second_0))
    growth = np.log(reached / second_0)
    if depth == 2:
        return np.asarray(first_0 * np.exp(alpha * growth))
    p = 1 - 2 / depth
    # (first / first_0)^(-p); expm1 keeps it exact where the second value has hardly moved.
    shrunk = 1 + alpha * (first_0 / second_0) ** p * np.expm1(-p * growth)
    left = np.where(shrunk > 0, shrunk, 1.0)
    return np.where(shrunk > 0, first_0 * left ** (-1 / p), math.inf)


def conserved(first: ArrayLike, second: ArrayLike, *, alpha: float, depth: int) -> Array:
    """The *const* of Eq (11), as the two singular values determine it: it keeps its value along the flow.

    Parameters
    ----------
    first, second : array
        Of one shape, that of the result; positive unless `depth` is 1.
    alpha : float
    depth : int
        As in `first_singular_value`, and so are the errors.
    """
    _check(depth, first, second)
    one, two = np.asarray(first, dtype=float), np.asarray(second, dtype=float)
    if depth == 1:
        return np.asarray(one - alpha * two)
    if depth == 2:
        return np.asarray(one * two**-alpha)
    p = 1 - 2 / depth
    return np.asarray(one**-p - alpha * two**-p)


def saturation_level(depth: int, *, alpha: float, first_0: float, second_0: float) -> float:
    """What the first singular value tends to as the second grows without bound.

    For ``N >= 3`` this is ``first_0 * (1 - alpha x^p)^(-1/p)`` with ``p = (N - 2) / N`` and ``x = first_0 / second_0``;
    for equal starts ``first_0 * (1 - alpha)^(-N / (N - 2))``. It is infinite where there is no such level. Parameters
    and errors are those of `first_singular_value`.
    """
    _check(depth, first_0, second_0)
    if alpha == 0:
        return first_0
    if depth <= 2:
        return math.inf if alpha > 0 else (-math.inf if depth == 1 else 0.0)
    p = 1 - 2 / depth
    share = alpha * (first_0 / second_0) ** p
    return math.inf if share >= 1 else first_0 * float(np.exp(-np.log1p(-share) / p))


def diverges_at(depth: int, *, alpha: float, first_0: float, second_0: float) -> float:
    """Value of the second singular value at which the first one is infinite; ``inf`` where that never happens.

    Parameters and errors are those of `first_singular_value`.
    """
    _check(depth, first_0, second_0)
    p = 1 - 2 / depth
    if depth <= 2 or alpha * (first_0 / second_0) ** p <= 1:
        return math.inf
    return second_0 * float(np.exp(-np.log1p(-1 / (alpha * (first_0 / second_0) ** p)) / p))


def largest_start_ratio(alpha: float) -> float:
    """Largest ``first_0 / second_0`` for which the saturation level falls with every further factor from ``N = 3`` on.

    The level falls as the depth grows as long as ``v = (first_0 / second_0)^p`` is at most the root of
    ``log v = -(1 - u) log(1 - u) / u`` with ``u = alpha v``. As ``N`` grows, ``p`` rises towards 1.

    Raises
    ------
    InputError
        Unless ``0 < alpha < 1``.
    """
    if not 0 < alpha < 1:
        raise InputError(f"alpha = {alpha} is not allowed: it must lie between 0 and 1, such as 0.6.")

    def excess(v: float) -> float:
        rest = max(1 - alpha * v, 0.0)
        return math.log(v) + (rest * math.log(rest) / (alpha * v) if rest > 0 else 0.0)

    return float(brentq(excess, 1.0, min(math.e, 1 / alpha), xtol=1e-14))


@dataclass(frozen=True, eq=False)
class Measurement:
    """The loss ``0.5 * (<A, W> - y)^2`` of Section 3.1 of Arora et al. (2019).

    Attributes
    ----------
    matrix : ndarray, shape (d, d_in)
        ``A``.
    label : float
        ``y``.
    """

    matrix: Array
    label: float

    def residual(self, end_to_end: Array) -> Array:
        """``delta = <A, W> - y`` of product matrices ``(..., d, d_in)``, ``(...)``."""
        return np.asarray(np.einsum("ij,...ij->...", self.matrix, end_to_end) - self.label)

    def gradient(self, end_to_end: Array) -> Array:
        """``delta A``, shaped like `end_to_end`."""
        return np.asarray(self.residual(end_to_end)[..., None, None] * self.matrix)


def aligned_factors(left: Array, values: Array, right: Array, depth: int, seed: int) -> list[Array]:
    """Balanced factors of ``left @ diag(values) @ right.T``, with random frames between neighbours.

    Parameters
    ----------
    left : ndarray, shape (d, k)
        Orthonormal columns ``u_r``.
    values : ndarray, shape (k,)
        Non-negative singular values.
    right : ndarray, shape (d_in, k)
        Orthonormal columns ``v_r``.
    depth : int
        At least 1.
    seed : int
        Of the frames, which are ``k x k``.

    Returns
    -------
    list of ndarray
        ``W_1 .. W_N`` with ``W_j = Q_j diag(values)^(1/N) Q_{j-1}^T``, ``Q_0 = right`` and ``Q_N = left``.

    Raises
    ------
    InputError
        For a depth below 1.
    """
    if depth < 1:
        raise InputError(f"depth = {depth} is not allowed: a factorization has at least 1 factor.")
    random, size = np.random.default_rng(seed), len(values)
    inner = [np.linalg.qr(random.standard_normal((size, size)))[0] for _ in range(depth - 1)]
    return [outer * values ** (1 / depth) @ before.T for before, outer in pairwise([right, *inner, left])]


def matrix_flow(measurement: Measurement, factors: Sequence[Array], *, stop: float = 1e-3, rtol: float = 1e-12) -> Path:
    """Integrate gradient flow in all factors until the residual has fallen to `stop` of its first value.

    Parameters
    ----------
    measurement : Measurement
        With a matrix ``(d, d_in)``.
    factors : sequence of ndarray, each (d_j, d_{j-1})
        ``W_1 .. W_N`` at the start.
    stop : float
    rtol : float
        Tolerance relative to each entry and to the largest entry.

    Returns
    -------
    Path
        At the integrator's own steps.

    Raises
    ------
    SolverError
        If the integrator gives up or the residual does not fall that far.
    """
    goal = stop * abs(float(measurement.residual(product(factors))))
    largest = max(float(np.abs(factor).max()) for factor in factors)
    path, status = integrate_path(
        measurement.gradient,
        factors,
        1e12,
        until=lambda end_to_end: abs(float(measurement.residual(end_to_end))) - goal,
        rtol=rtol,
        atol=rtol * largest + np.finfo(float).tiny,  # positive even where nothing can move
    )
    if status != 1:
        raise SolverError("the flow did not fit the measurement: use a larger start or another seed.")
    return path


def singular_value_flow(strengths: Array, label: float, values: Array, depth: int, times: Array) -> Array:
    """Integrate Eq (10) of Arora et al. (2019) for all singular values at once.

    Parameters
    ----------
    strengths : ndarray, shape (k,)
        Signed strengths ``e_r rho_r``, see `singular_value_speed`.
    label : float
        ``y``.
    values : ndarray, shape (k,)
        Signed singular values at ``times[0]``.
    depth : int
        ``N``.
    times : ndarray, shape (moments,)
        Increasing.

    Returns
    -------
    ndarray, shape (moments, k)
        Signed singular values at `times`.

    Raises
    ------
    SolverError
        If the integrator gives up.
    """

    def velocity(sigma: Array) -> Array:
        return singular_value_speed(sigma, depth=depth, residual=float(strengths @ sigma) - label, strengths=strengths)

    atol = 1e-13 * float(np.abs(values).max())
    return np.asarray(integrate(velocity, values, (times[0], times[-1]), t_eval=times, rtol=1e-13, atol=atol).y.T)


def _check(depth: int, *values: ArrayLike) -> None:
    if depth < 1:
        raise InputError(f"depth = {depth} is not allowed: a factorization has at least 1 factor.")
    if depth > 1 and not all(np.all(np.asarray(value) > 0) for value in values):
        raise InputError(
            "Eq (11) needs positive singular values at depth 2 or more: a value of zero stays zero there, "
            "and a negative one becomes positive when one of its singular vectors changes sign."
        )
