"""Gradient flow of all factors under a single measurement, in full matrices: the test of Eqs (10) and (11)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy.integrate import solve_ivp

from dmfkit.errors import InputError, SolverError
from dmfkit.theory.one_measurement import singular_value_speed

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Measurement:
    """The loss ``0.5 * (<A, W> - y)^2`` of Section 3.1 of Arora et al. (2019).

    Attributes
    ----------
    matrix : array of shape (d, d_in)
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


@dataclass(frozen=True)
class MatrixFlow:
    """A trajectory of all factors, at the integrator's own moments.

    Attributes
    ----------
    measurement : Measurement
    times : array of shape (moments,)
    factors : tuple of arrays
        ``W_1 .. W_N``, each ``(moments, d_j, d_{j-1})``.
    """

    measurement: Measurement
    times: Array
    factors: tuple[Array, ...]

    @property
    def end_to_end(self) -> Array:
        """Product matrices ``(moments, d, d_in)``."""
        return _product(self.factors)

    @property
    def velocity(self) -> Array:
        """Time derivative of the product by the product rule, from the factors' own derivatives."""
        moving = _descent(self.factors, self.measurement)
        terms = [_product((*self.factors[:j], rate, *self.factors[j + 1 :])) for j, rate in enumerate(moving)]
        return np.asarray(sum(terms))


def aligned_factors(left: Array, values: Array, right: Array, depth: int, seed: int) -> list[Array]:
    """Balanced factors of ``left @ diag(values) @ right.T``, with random frames between neighbours.

    Parameters
    ----------
    left : array of shape (d, k)
        Orthonormal columns ``u_r``.
    values : array of shape (k,)
        Non-negative singular values.
    right : array of shape (d_in, k)
        Orthonormal columns ``v_r``.
    depth : int
    seed : int
        Of the frames, which are ``k x k``.

    Returns
    -------
    list of arrays
        ``W_1 .. W_N`` with ``W_j = Q_j diag(values)^(1/N) Q_{j-1}^T``, ``Q_0 = right`` and ``Q_N = left``.
    """
    if depth < 1:
        raise InputError(f"depth = {depth} is not allowed: a factorization has at least 1 factor.")
    random, size = np.random.default_rng(seed), len(values)
    inner = [np.linalg.qr(random.standard_normal((size, size)))[0] for _ in range(depth - 1)]
    return [outer * values ** (1 / depth) @ before.T for before, outer in pairwise([right, *inner, left])]


def matrix_flow(
    measurement: Measurement, factors: Sequence[Array], *, stop: float = 1e-3, rtol: float = 1e-12
) -> MatrixFlow:
    """Integrate gradient flow in all factors until the residual has fallen to `stop` of its first value.

    SciPy's eighth-order Runge-Kutta method DOP853, tolerance `rtol` relative to each entry and to the largest entry.

    Raises
    ------
    SolverError
        If the integrator gives up or the residual does not fall that far.
    """
    shapes = [factor.shape for factor in factors]
    start = np.concatenate([factor.ravel() for factor in factors])
    goal = stop * abs(float(measurement.residual(_product(factors))))

    def speed(time: float, state: Array) -> Array:  # noqa: ARG001
        return np.concatenate([rate.ravel() for rate in _descent(_split(state, shapes), measurement)])

    def fitted(time: float, state: Array) -> float:  # noqa: ARG001
        return abs(float(measurement.residual(_product(_split(state, shapes))))) - goal

    fitted.terminal = True  # type: ignore[attr-defined]
    atol = rtol * float(np.abs(start).max()) + np.finfo(float).tiny  # positive even where nothing can move
    found = solve_ivp(speed, (0.0, 1e12), start, method="DOP853", rtol=rtol, atol=atol, events=fitted)
    if found.status != 1:
        raise SolverError(
            f"The flow did not fit the measurement ({found.message}): use a larger start or another seed."
        )
    return MatrixFlow(measurement, found.t, _split(found.y.T, shapes))


def singular_value_flow(strengths: Array, label: float, values: Array, depth: int, times: Array) -> Array:
    """Integrate Eq (10) for all singular values at once.

    Returns
    -------
    array of shape (moments, k)
        Signed singular values at `times`, the first of which is where `values` holds.
    """

    def speed(time: float, sigma: Array) -> Array:  # noqa: ARG001
        return singular_value_speed(sigma, depth=depth, residual=float(strengths @ sigma) - label, strengths=strengths)

    found = solve_ivp(
        speed, (times[0], times[-1]), values, "DOP853", t_eval=times, rtol=1e-13, atol=1e-13 * abs(values).max()
    )
    return np.asarray(found.y.T)


def _product(factors: Sequence[Array]) -> Array:
    return reduce(lambda product, factor: factor @ product, factors)


def _split(state: Array, shapes: Sequence[tuple[int, ...]]) -> tuple[Array, ...]:
    """Cut factors out of one vector, or out of a stack of vectors."""
    ends = np.cumsum([rows * columns for rows, columns in shapes])
    parts = np.split(state, ends[:-1], axis=-1)
    return tuple(part.reshape(*state.shape[:-1], *shape) for part, shape in zip(parts, shapes, strict=True))


def _descent(factors: Sequence[Array], measurement: Measurement) -> list[Array]:
    """Minus the gradient in every factor, Eq (4): ``-(W_N .. W_{j+1})^T grad (W_{j-1} .. W_1)^T``."""
    after = [-measurement.gradient(_product(factors))]
    for factor in reversed(factors[1:]):
        after.append(factor.swapaxes(-1, -2) @ after[-1])
    rates, before = [], None
    for factor, part in zip(factors, reversed(after), strict=True):
        rates.append(part if before is None else part @ before.swapaxes(-1, -2))
        before = factor if before is None else factor @ before
    return rates
