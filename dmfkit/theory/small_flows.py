"""Flows of small factorizations by a Runge-Kutta method of order 8, as accurate as double precision allows.

`dmfkit.gradient_flow` is made for many and large runs. Here a problem has a handful of rows, and what is checked is
equalities, to ten digits.

Gradient flow of small factorizations, so accurate that differences of it can judge formulas.

Gradient flow of all factors under a single measurement, in full matrices: the test of Eqs (10) and (11).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import reduce
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from scipy.integrate import solve_ivp
from torch import Tensor

from dmfkit.errors import InputError, SolverError
from dmfkit.factorizations.factorization import Factorization
from dmfkit.linalg.svd_paths import SignedSVD, SVDVelocity, svd_differences, track_svd
from dmfkit.theory.commuting import CommutingProblem
from dmfkit.theory.duality import adjoint, measure
from dmfkit.theory.end_to_end import balanced_factorization, product_velocity
from dmfkit.theory.one_measurement import singular_value_speed

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


Gradient = Callable[[Tensor], Tensor]

# The path goes on a little beyond its horizon, so that central differences can be taken there.
MARGIN = 0.02


@dataclass(frozen=True)
class FlowPath:
    """A trajectory of gradient flow that can be asked for any time.

    Attributes
    ----------
    gradient_of : callable
        Gradient of the loss in the product matrix: takes and returns ``(runs, d, d_in)``.
    widths : tuple of int
        Of the factors, see `Factorization`.
    state_at : callable
        Takes times ``(moments,)`` and returns states ``(n_parameters, moments)``.
    horizon : float
        The path is known from 0 to here, and for `MARGIN` longer.
    """

    gradient_of: Gradient
    widths: tuple[int, ...]
    state_at: Callable[[np.ndarray], np.ndarray]
    horizon: float

    @property
    def depth(self) -> int:
        """Number ``N`` of factors."""
        return len(self.widths) - 1

    def factorization(self, times: Tensor) -> Factorization:
        """Factors at `times`, one run a moment."""
        return Factorization(torch.from_numpy(self.state_at(times.numpy()).T.copy()), self.widths)

    def end_to_end(self, times: Tensor) -> Tensor:
        """Product matrices at `times`, ``(moments, d, d_in)``."""
        return self.factorization(times).end_to_end()

    def witness(self, times: Tensor, signs: Tensor | None = None) -> Witness:
        """All that a statement about the path needs at `times`; `signs` as in `track_svd`."""
        factorization = self.factorization(times)
        gradient = self.gradient_of(factorization.end_to_end())
        velocity = product_velocity(factorization, [-part for part in factorization.pull_back(gradient)])
        return Witness(self, times, track_svd(self.end_to_end, times, signs), gradient, velocity)


@dataclass(frozen=True)
class Witness:
    """Moments of a gradient flow at which formulas are compared with what the flow does.

    Attributes
    ----------
    path : FlowPath
    times : Tensor of shape (moments,)
    svd : SignedSVD
        Followed along the path.
    gradient : Tensor of shape (moments, d, d_in)
        Gradient of the loss at the product matrices.
    velocity : Tensor of shape (moments, d, d_in)
        ``dW/dt`` from the velocities of the factors, by the product rule: no balancedness is used.
    """

    path: FlowPath
    times: Tensor
    svd: SignedSVD
    gradient: Tensor
    velocity: Tensor

    @property
    def depth(self) -> int:
        """Number ``N`` of factors."""
        return self.path.depth

    def differences(self, step: float) -> SVDVelocity:
        """Central differences of the tracked decomposition."""
        return svd_differences(self.path.end_to_end, self.svd, self.times, step)


def accurate_flow(gradient_of: Gradient, start: Factorization, horizon: float, rtol: float = 1e-12) -> FlowPath:
    """Integrate gradient flow, Eq (4) of Arora et al. (2019), by an 8th-order Runge-Kutta method with dense output.

    Parameters
    ----------
    gradient_of : callable
        Gradient of the loss in the product matrix, ``(1, d, d_in)`` to ``(1, d, d_in)``.
    start : Factorization
        One run. Meant for matrices of a few rows; `dmfkit.gradient_flow` is the solver for large ones.
    horizon : float
        Time at which the path ends.
    rtol : float
        Error allowed in one step, relative to each entry.

    Raises
    ------
    InputError
        If there is more than one run, or the factors run off before `horizon`.
    """
    if start.n_runs != 1:
        raise InputError(f"{start.n_runs} runs were given: give one at a time.")

    def slope(_: float, state: np.ndarray) -> np.ndarray:
        return factor_velocities(state, start.widths, gradient_of)

    found = solve_ivp(
        slope,
        (0.0, horizon + MARGIN),
        start.state[0].numpy(),
        method="DOP853",
        rtol=rtol,
        atol=1e-2 * rtol,
        dense_output=True,
        # The interpolant between steps is of lower order than the steps, so these are kept short.
        max_step=horizon / 50,
    )
    if not found.success:
        raise InputError(f"gradient flow could not be followed to time {horizon:.6g}: choose an earlier horizon.")
    return FlowPath(gradient_of, start.widths, found.sol, horizon)


def factor_velocities(state: np.ndarray, widths: tuple[int, ...], gradient_of: Gradient) -> np.ndarray:
    """Right-hand side of gradient flow, Eq (4), for one factorization: minus `Factorization.pull_back`.

    On matrices of a few rows NumPy spends a fraction of PyTorch's time on each product, and this function is nearly all
    that `accurate_flow` does.

    Parameters
    ----------
    state : array of shape (n_parameters,)
        As a row of ``Factorization.state``.
    widths : tuple of int
    gradient_of : callable
        As in `accurate_flow`.
    """
    ends = np.cumsum([rows * columns for columns, rows in pairwise(widths)])
    blocks = np.split(state, ends[:-1])
    factors = [block.reshape(rows, columns) for block, (columns, rows) in zip(blocks, pairwise(widths), strict=True)]
    products = [factors[0]]
    for factor in factors[1:]:
        products.append(factor @ products[-1])
    passed = gradient_of(torch.from_numpy(products[-1])[None])[0].numpy()
    velocities = []
    for number in range(len(factors) - 1, 0, -1):
        velocities.append(-(passed @ products[number - 1].T).ravel())
        passed = factors[number].T @ passed
    return np.concatenate([-passed.ravel(), *reversed(velocities)])


def flow_toward(target: Tensor, start: Tensor, depth: int, horizon: float, rtol: float = 1e-12) -> FlowPath:
    """Integrate the flow on ``||W - target||_F^2 / 2`` from balanced factors of `start`, both ``(d, d_in)``."""
    return accurate_flow(
        lambda end_to_end: end_to_end - target, balanced_factorization(start[None], depth), horizon, rtol
    )


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
