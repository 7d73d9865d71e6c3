"""Sensing problems whose measurements commute, and where the gradient flow from multiples of the identity ends.

In a common eigenbasis such a problem is about d numbers w, the eigenvalues of the product W (Arora et al., 2019,
Appendix B.1). The flow from W_j(0) = alpha I never leaves that basis, and its endpoint is the w that fits the data and
has the form of Eq (16). That is one equation for each measurement, the gradient of a convex function. `flow_endpoint`
solves it in double precision, in variables that stay of order one; `precise_endpoint` solves it as it stands, with as
many digits as asked for, to tell what double precision does to the other.

`schatten_counterexample` is the problem of Proposition 1, where the flow's limit is no local minimiser of a Schatten
quasi-norm.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import mpmath as mp
import numpy as np
from numpy.typing import NDArray

from dmfkit.errors import InputError, SolverError
from dmfkit.theory.duality import DiagonalOptimum

Array = NDArray[np.float64]

# Errors of the labels that count as rounding, relative to the terms that they are sums of.
_ROUNDING = 1e-14
_MAX_STEPS = 300


@dataclass(frozen=True, eq=False)
class CommutingProblem:
    """Measurements A_i = O^T diag(a_i) O of a positive semidefinite O^T diag(target) O.

    Attributes
    ----------
    basis : ndarray, shape (d, d)
        O, orthogonal; its rows are the common eigenvectors.
    diagonals : ndarray, shape (m, d)
        The a_i.
    target : ndarray, shape (d,)
        Non-negative eigenvalues of the matrix that the labels come from.
    """

    basis: Array
    diagonals: Array
    target: Array

    @property
    def labels(self) -> Array:
        """The y_i = <A_i, W*>, ``(m,)``."""
        labels: Array = self.diagonals @ self.target
        return labels

    @property
    def measurements(self) -> Array:
        """The A_i, ``(m, d, d)``."""
        return np.stack([self.matrix(diagonal) for diagonal in self.diagonals])

    def matrix(self, eigenvalues: Array) -> Array:
        """O^T diag(eigenvalues) O, made exactly symmetric."""
        product = (self.basis.T * eigenvalues) @ self.basis
        symmetric: Array = (product + product.T) / 2
        return symmetric

    def diagonal(self) -> CommutingProblem:
        """Return the same problem in its own eigenbasis: O = I."""
        return CommutingProblem(np.eye(len(self.target)), self.diagonals, self.target)

    def optimum(self) -> DiagonalOptimum:
        """Least trace over w >= 0 that fits the labels, with a dual solution."""
        return DiagonalOptimum.of(self.diagonals, self.labels)


def random_commuting(d: int, n_measurements: int, rank: int, seed: int) -> CommutingProblem:
    """Draw a problem for which the flow has an endpoint at every alpha.

    The eigenvectors are uniform, the a_i standard normal but for one direction v that is taken out of all of them. v is
    positive where the target is zero, so a positive definite matrix fits the labels too; without one the flow's
    multipliers would grow for ever (the case that footnote 13 of the paper leaves out).

    Parameters
    ----------
    d : int
    n_measurements : int
        Fewer than d.
    rank : int
        Non-zero eigenvalues of the target, uniform between 0.5 and 1.5.
    seed : int

    Raises
    ------
    InputError
        If d, n_measurements and rank do not fit.
    """
    if not (1 <= n_measurements < d and 1 <= rank <= d):
        raise InputError(
            f"d = {d}, n_measurements = {n_measurements}, rank = {rank} is not allowed: 1 <= n_measurements < d and "
            "1 <= rank <= d."
        )
    from scipy.stats import ortho_group  # takes half a second to load, and most chapters need none of it

    random = np.random.default_rng(seed)
    target = np.zeros(d)
    target[:rank] = random.uniform(0.5, 1.5, rank)
    free = np.where(target > 0, random.standard_normal(d), random.uniform(0.5, 1.5, d))
    diagonals = random.standard_normal((n_measurements, d))
    diagonals -= np.outer(diagonals @ free / (free @ free), free)
    return CommutingProblem(ortho_group.rvs(d, random_state=random), diagonals, target)


def schatten_counterexample(d: int) -> CommutingProblem:
    """The measurements of Eq (24): W_11 = W_22, and W_11 = W_kk + 1 for k = 3, ..., d.

    Parameters
    ----------
    d : int
        At least 3.

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
    """The limit diag(1, 1, 0, ..., 0) of Proposition 1, ``(d, d)``, with epsilon in the entries (1, 2) and (2, 1)."""
    matrix = np.diag(np.append([1.0, 1.0], np.zeros(d - 2)))
    matrix[0, 1] = matrix[1, 0] = epsilon
    return matrix


@dataclass(frozen=True, eq=False)
class Endpoint:
    """Where the flow on a factorization of this depth ends from factors alpha I, Eqs (16) and (17).

    Attributes
    ----------
    depth, alpha : int, float
    eigenvalues : ndarray, shape (d,)
        Eigenvalues w of the product at the end.
    multipliers : ndarray, shape (m,)
        The dual vector that the flow leaves behind, feasible: A^dagger(nu) <= I. For depth N >= 3 the paper's own,
        nu = -(N-2) alpha^(N-2) s; for depth 2, -2 s divided by the largest eigenvalue of A^dagger(-2 s).
    slack : ndarray, shape (d,)
        1 - A^dagger(nu) in the eigenbasis, found without subtracting nearly equal numbers.
    residual : float
        Largest error on a label.
    steps : int
        Newton steps.
    """

    depth: int
    alpha: float
    eigenvalues: Array
    multipliers: Array
    slack: Array
    residual: float
    steps: int

    @property
    def trace(self) -> float:
        """Sum of the eigenvalues, which is the nuclear norm."""
        return float(self.eigenvalues.sum())

    @property
    def dual_gap(self) -> float:
        """<I - A^dagger(nu), W>, by which the trace is at most above the least one (Lemma 5)."""
        return float(self.slack @ self.eigenvalues)


def flow_endpoint(
    problem: CommutingProblem, depth: int, alpha: float, optimum: DiagonalOptimum | None = None
) -> Endpoint:
    """Solve for the flow's endpoint by damped Newton on its convex potential.

    Parameters
    ----------
    problem : CommutingProblem
    depth : int
        N, at least 2.
    alpha : float
        Scale of the initial factors, below 1.
    optimum : DiagonalOptimum, optional
        `problem.optimum()`, if it is at hand.

    Raises
    ------
    InputError
        For a depth or an alpha outside of these bounds.
    SolverError
        If Newton's method does not end, which happens where no positive definite matrix fits the labels.

    Notes
    -----
    With nu = nu* + alpha^(N-2) mu, where nu* solves the dual linear program, w_k = x_k^(-N/(N-2)) and
    x = slack* / alpha^(N-2) - A^dagger(mu); for depth 2, nu = 2 log(1/alpha) nu* + mu and w_k = exp(-x_k). Any nu*
    gives the same endpoint; this one keeps the unknowns of order one however small alpha is. The potential's gradient
    in mu is A(w) - y.
    """
    if depth < 2 or not 0 < alpha < 1:
        raise InputError(f"depth = {depth} and alpha = {alpha:g} are not allowed: depth >= 2 and 0 < alpha < 1.")
    best = optimum if optimum is not None else problem.optimum()
    frame, a, labels = _separate(problem, best)
    scale = alpha ** (2 - depth) if depth > 2 else -2 * math.log(alpha)
    offset = best.slack * scale
    mu = -frame.T @ best.multipliers if depth > 2 else np.zeros(len(labels))
    for step in range(_MAX_STEPS):
        x = offset - a.T @ mu
        w, curvature = _branch(x, depth)
        gradient, rounding = a @ w - labels, _ROUNDING * (np.abs(a) @ w + np.abs(labels))
        if (np.abs(gradient) <= rounding).all():
            return _endpoint(problem, best, depth, alpha, scale, x, frame @ mu, step)
        direction = _newton_step(a, curvature, gradient)
        along = a.T @ direction
        mu = mu + direction * _step_size(x, along, depth, labels, direction, gradient, rounding)
    raise SolverError(
        f"Newton's method for depth {depth}, alpha = {alpha:g} left an error of {np.abs(gradient).max():.1e} on "
        f"a label after {_MAX_STEPS} steps: perhaps no positive definite matrix fits the labels, or alpha is too small."
    )


def _separate(problem: CommutingProblem, best: DiagonalOptimum) -> tuple[Array, Array, Array]:
    """Rotate the measurements so that those which the optimum's support does not see come last, with exact zeros there.

    What the data say about the eigenvalues that vanish with alpha would otherwise drown in the rounding of the others.
    """
    used = best.eigenvalues > 0
    left, values, _ = np.linalg.svd(problem.diagonals[:, used], full_matrices=True)
    seen = int((values > 1e-10 * values.max(initial=0.0)).sum())
    a, labels = left.T @ problem.diagonals, left.T @ problem.labels
    a[seen:, used] = 0.0
    labels[seen:] = 0.0
    return left, a, labels


def _branch(x: Array, depth: int) -> tuple[Array, Array]:
    """Eigenvalues w(x) and -w'(x)."""
    if depth == 2:
        w = np.exp(-x)
        return w, w
    w = x ** (-depth / (depth - 2))
    return w, depth / (depth - 2) * w / x


def _newton_step(a: Array, curvature: Array, gradient: Array) -> Array:
    hessian = (a * curvature) @ a.T
    # Its entries can differ by many decades; with a unit diagonal the solution keeps its digits.
    scaling = 1 / np.sqrt(np.diag(hessian))
    scaled = scaling[:, None] * hessian * scaling
    direction: Array = -scaling * np.linalg.lstsq(scaled, scaling * gradient, rcond=None)[0]
    return direction


def _step_size(
    x: Array, along: Array, depth: int, labels: Array, direction: Array, gradient: Array, rounding: Array
) -> float:
    """Halve the step until it stays in the domain and does not overshoot the minimum along it by much.

    The potential is convex, so its slope along the step tells; unlike its value, the slope has no cancellation.
    """
    allowed = -0.5 * (direction @ gradient) + np.abs(direction) @ rounding
    size = 1.0
    for _ in range(200):
        after = x - size * along
        if depth == 2 or (after > 0).all():
            with np.errstate(over="ignore"):
                slope = along @ _branch(after, depth)[0] - direction @ labels
            if slope <= allowed:
                return size
        size /= 2
    return size


def _endpoint(
    problem: CommutingProblem,
    best: DiagonalOptimum,
    depth: int,
    alpha: float,
    scale: float,
    x: Array,
    mu: Array,
    steps: int,
) -> Endpoint:
    w = _branch(x, depth)[0]
    if depth > 2:
        multipliers, slack = best.multipliers + mu / scale, x / scale
    else:
        # w = alpha^2 exp(u) with u = scale - x; divided by the largest u, the vector is feasible.
        largest = scale - x.min()
        if largest <= 0:  # No eigenvalue has grown: nu = 0 is all that can be had.
            multipliers, slack = np.zeros(len(mu)), np.ones(len(x))
        else:
            multipliers = (scale * best.multipliers + mu) / largest
            slack = (x - x.min()) / largest
    residual = float(np.abs(problem.diagonals @ w - problem.labels).max())
    return Endpoint(depth, alpha, w, multipliers, slack, residual, steps)


@dataclass(frozen=True)
class PreciseEndpoint:
    """Trace and gaps of an endpoint, rounded to double precision at the very end.

    Attributes
    ----------
    trace : float
    gap : float
        Trace minus the least trace, subtracted with all digits.
    dual_gap : float
        <I - A^dagger(nu), W>.
    """

    trace: float
    gap: float
    dual_gap: float


def precise_endpoint(
    problem: CommutingProblem, optimum: DiagonalOptimum, depth: int, alpha: float, digits: int = 60
) -> PreciseEndpoint:
    """Solve for the endpoint in the paper's own variable, nu, with `digits` decimal digits.

    Newton's method starts from nu = 0, where W = alpha^N I, and uses no optimum; `optimum` only says which eigenvalues
    of the best diagonal matrix are not zero, and that matrix is then computed with all digits.

    Parameters
    ----------
    problem : CommutingProblem
    optimum : DiagonalOptimum
        `problem.optimum()`.
    depth, alpha : int, float
        As in `flow_endpoint`.
    digits : int

    Raises
    ------
    SolverError
        If Newton's method does not end.
    """
    with mp.workdps(digits):
        a = mp.matrix(problem.diagonals.tolist())
        labels = a * mp.matrix(problem.target.tolist())
        scale = mp.mpf(alpha)
        nu = mp.zeros(a.rows, 1)
        for _ in range(4000):
            w, curvature, slack = _precise_branch(a, nu, depth, scale)
            gradient = a * w - labels
            step = mp.lu_solve(a * mp.diag(curvature) * a.T, gradient)
            decrement = (step.T * gradient)[0]
            if decrement < mp.mpf(10) ** (-digits):
                break
            size = mp.mpf(1)
            # The domain's edge is never crossed; inside, the slope along the step must not overshoot.
            while True:
                trial = nu - size * step
                after, _, inside = _precise_branch(a, trial, depth, scale)
                if inside and -(step.T * (a * after - labels))[0] <= decrement / 2:
                    break
                size /= 2
            nu = nu - size * step
        else:
            raise SolverError(f"Newton's method with {digits} digits did not end for depth {depth}, alpha = {alpha:g}.")
        best = _optimal_trace(a, labels, np.flatnonzero(optimum.eigenvalues).tolist())
        trace = mp.fsum(w)
        dual_gap = mp.fsum(s * v for s, v in zip(slack, w, strict=True))
        return PreciseEndpoint(float(trace), float(trace - best), float(dual_gap))


def _precise_branch(
    a: mp.matrix, nu: mp.matrix, depth: int, alpha: mp.mpf
) -> tuple[mp.matrix, list[mp.mpf], list[mp.mpf]]:
    """Eigenvalues w(nu), their derivatives, and the slack of the feasible dual vector (empty outside of the domain)."""
    u = a.T * nu
    if depth == 2:
        w = mp.matrix([alpha**2 * mp.exp(v) for v in u])
        largest = max(u)
        return w, list(w), [1 - v / largest if largest > 0 else mp.mpf(1) for v in u]
    if max(u) >= 1:
        return u, list(u), []
    power = mp.mpf(depth) / (depth - 2)
    w = mp.matrix([alpha**depth * (1 - v) ** (-power) for v in u])
    return w, [power * value / (1 - v) for value, v in zip(w, u, strict=True)], [1 - v for v in u]


def _optimal_trace(a: mp.matrix, labels: mp.matrix, support: list[int]) -> mp.mpf:
    columns = mp.matrix([[a[i, k] for k in support] for i in range(a.rows)])
    return mp.fsum(mp.lu_solve(columns, labels)) if support else mp.mpf(0)
