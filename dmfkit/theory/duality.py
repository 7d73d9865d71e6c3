"""Least trace among the positive semidefinite matrices that fit the measurements, and what proves a matrix optimal.

The programs (22) and (23) of Arora et al. (2019), Appendix B.1, and Lemma 5 about them. `DiagonalOptimum` solves them
where everything is diagonal, as linear programs; `minimum_trace` solves them for any symmetric measurements, by CVXPY.

At finite alpha the flow's endpoint minimises something else. For commuting measurements the endpoint of depth N from
alpha I is the only minimiser of the trace plus a multiple of tr g(W) among all W that fit, with g(w) = -w^(2/N) for
N >= 3 and w log w - w for N = 2. `minimise_barrier` minimises that function over all symmetric matrices, without the
common eigenbasis and without the flow's closed form, to have something to compare with.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linprog

from dmfkit.errors import InputError, SolverError

if TYPE_CHECKING:
    import cvxpy as cp

Array = NDArray[np.float64]

# Relative to the largest: what the simplex method leaves in place of zero.
_ZERO = 1e-9
# Where the slack can grow without limit, enough of it.
_MARGIN = 10.0
# CLARABEL's own tolerances, 1e-8, leave less accurate traces than these small problems allow. How far it gets depends
# on the problem, so these are tried in turn; what was reached is in the certificate.
_TOLERANCES = (1e-11, 1e-10, 1e-9, 1e-8)
# Of Newton's method.
_MAX_STEPS = 500


def measure(measurements: Array, matrix: Array) -> Array:
    """The <A_i, W> of ``measurements`` (m, d, d_in), ``(m,)``: the operator A of Arora et al. (2019), Appendix B.1."""
    values: Array = measurements.reshape(len(measurements), -1) @ matrix.ravel()
    return values


def adjoint(measurements: Array, vector: Array) -> Array:
    """A^dagger(r) = sum_i r_i A_i of ``measurements`` (m, d, d_in), ``(d, d_in)``."""
    m, rows, columns = measurements.shape
    matrix: Array = (vector @ measurements.reshape(m, -1)).reshape(rows, columns)
    return matrix


@dataclass(frozen=True)
class Certificate:
    """The hypotheses of Lemma 5 for one matrix W and one dual vector nu, measured, and what follows from them.

    Attributes
    ----------
    least_eigenvalue : float
        Of W. Not below zero if W is positive semidefinite.
    violation : float
        Largest ``|<A_i, W> - y_i|``.
    largest_dual_eigenvalue : float
        Of ``A^dagger(nu)``. At most 1 if nu is dual feasible.
    slack : float
        ``<I - A^dagger(nu), W>``.
    trace, dual_bound : float
        ``tr W`` and ``nu^T y``. If the first three are in order, the least trace lies between `dual_bound` and
        `trace`, whose difference is the slack.
    """

    least_eigenvalue: float
    violation: float
    largest_dual_eigenvalue: float
    slack: float
    trace: float
    dual_bound: float


def certify(measurements: Array, labels: Array, matrix: Array, multipliers: Array) -> Certificate:
    """Measure what Lemma 5 of Arora et al. (2019) asks of ``matrix`` (d, d) and ``multipliers`` (m,)."""
    dual = adjoint(measurements, multipliers)
    return Certificate(
        least_eigenvalue=float(np.linalg.eigvalsh((matrix + matrix.T) / 2)[0]),
        violation=float(np.abs(measure(measurements, matrix) - labels).max()),
        largest_dual_eigenvalue=float(np.linalg.eigvalsh(dual)[-1]),
        slack=float(np.sum((np.eye(len(matrix)) - dual) * matrix)),
        trace=float(np.trace(matrix)),
        dual_bound=float(multipliers @ labels),
    )


@dataclass(frozen=True, eq=False)
class DiagonalOptimum:
    """Minimise sum(w) over w >= 0 with a w = y, and maximise nu^T y over a^T nu <= 1.

    The programs (22) and (23) of Arora et al. (2019) in a common eigenbasis.

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


@dataclass(frozen=True, eq=False)
class TraceSolution:
    """A solution of the programs (22) and (23) of Arora et al. (2019).

    Attributes
    ----------
    matrix : ndarray, shape (d, d)
        The solver's W, symmetric.
    multipliers : ndarray, shape (m,)
        The solver's nu, divided by the largest eigenvalue of A^dagger(nu) where that exceeds 1: feasible.
    certificate : Certificate
        What the pair proves, whatever the solver says: dual_bound is a lower bound of the least trace.
    value : float
        Trace of `matrix`.
    status, solver : str
        What the solver reported, and its name in CVXPY.
    """

    matrix: Array
    multipliers: Array
    certificate: Certificate
    value: float
    status: str
    solver: str


def minimum_trace(measurements: Array, labels: Array, *, solver: str = "CLARABEL", **options: Any) -> TraceSolution:
    """Minimise tr W over positive semidefinite W with <A_i, W> = y_i, by CVXPY.

    Parameters
    ----------
    measurements : ndarray, shape (m, d, d)
        Symmetric; they need not commute.
    labels : ndarray, shape (m,)
    solver : str
        A semidefinite solver by CVXPY's name.
    **options
        Passed to the solver.

    Raises
    ------
    InputError
        If the solver is not installed.
    SolverError
        If it ends with any status but "optimal".
    """
    import cvxpy as cp  # takes as long to load as PyTorch does, and most chapters need none of it

    if solver not in cp.installed_solvers():
        raise InputError(f"The solver {solver!r} is not available here: choose one that CVXPY lists as installed.")
    d = measurements.shape[-1]
    unknown = cp.Variable((d, d), PSD=True)
    agreement = measurements.reshape(len(labels), -1) @ cp.vec(unknown, order="C") == labels
    problem = cp.Problem(cp.Minimize(cp.trace(unknown)), [agreement])
    _solve(problem, solver, options)
    matrix = np.asarray(unknown.value)
    matrix = (matrix + matrix.T) / 2
    # CVXPY's multiplier of A(W) = y has the sign of a constraint that is added to the objective.
    nu = -np.asarray(agreement.dual_value)
    nu = nu / max(1.0, float(np.linalg.eigvalsh(adjoint(measurements, nu))[-1]))
    certificate = certify(measurements, labels, matrix, nu)
    return TraceSolution(matrix, nu, certificate, certificate.trace, problem.status, solver)


def least_slack(measurements: Array, matrix: Array, *, solver: str = "CLARABEL", **options: Any) -> float:
    """The least <I - A^dagger(nu), W> that any dual feasible nu leaves for this W.

    By duality it is tr W minus the least trace among the positive semidefinite matrices with W's measurements, so
    only for a W of least trace is it zero.

    Parameters
    ----------
    measurements : ndarray, shape (m, d, d)
    matrix : ndarray, shape (d, d)
        Positive semidefinite.
    solver : str
        As in `minimum_trace`.
    **options
        Passed to the solver.

    Raises
    ------
    SolverError
        If it ends with any status but "optimal".
    """
    import cvxpy as cp

    d, labels = measurements.shape[-1], measure(measurements, matrix)
    nu = cp.Variable(len(measurements))
    dual = cp.reshape(measurements.reshape(len(labels), -1).T @ nu, (d, d), order="C")
    problem = cp.Problem(cp.Maximize(labels @ nu), [np.eye(d) - dual >> 0])
    _solve(problem, solver, options)
    return float(np.trace(matrix) - problem.value)


def _solve(problem: cp.Problem, solver: str, options: dict[str, Any]) -> None:
    import cvxpy as cp

    attempts = [options]
    if solver == "CLARABEL" and not options:
        attempts = [{"tol_gap_abs": t, "tol_gap_rel": t, "tol_feas": t} for t in _TOLERANCES]
    for attempt in attempts:
        try:
            with warnings.catch_warnings():
                # "Solution may be inaccurate": its status is not "optimal", which is looked at here.
                warnings.filterwarnings("ignore", message="Solution may be inaccurate", category=UserWarning)
                problem.solve(solver=solver, **attempt)
        except cp.SolverError as error:
            raise SolverError(f"{solver} failed ({error}): try another solver or other options.") from error
        if problem.status == cp.OPTIMAL:
            return
    raise SolverError(f"{solver} ended with status {problem.status!r} instead of 'optimal': try another solver.")


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
    """First and second derivative of `barrier_value` in positive eigenvalues ``(d,)``, each ``(d,)``."""
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
    result: Array = np.einsum("fu,uij->fij", free, units)
    return result


def minimise_barrier(measurements: Array, depth: int, alpha: float, start: Array) -> Array:
    """Minimise `barrier_value` over the positive definite matrices with the measurements of ``start``, by Newton.

    Parameters
    ----------
    measurements : ndarray, shape (m, d, d)
        Symmetric and linearly independent; they need not commute.
    depth, alpha : int, float
        As in `barrier_value`.
    start : ndarray, shape (d, d)
        Positive definite.

    Returns
    -------
    ndarray, shape (d, d)

    Raises
    ------
    SolverError
        If Newton's method does not end.
    """
    directions, matrix = unseen_directions(measurements), start
    for _ in range(_MAX_STEPS):
        w, vectors = np.linalg.eigh(matrix)
        slope, curvature = barrier_slope(w, depth, alpha)
        rotated = vectors.T @ directions @ vectors
        gradient = np.einsum("fkk,k->f", rotated, slope)
        # Second derivative of a trace function: divided differences of the first, in the eigenbasis.
        apart = w[:, None] - w
        close = np.abs(apart) <= 1e-6 * np.abs(w[:, None] + w)
        with np.errstate(divide="ignore", invalid="ignore"):
            divided = np.where(close, (curvature[:, None] + curvature) / 2, (slope[:, None] - slope) / apart)
        hessian = np.einsum("fij,ij,gij->fg", rotated, divided, rotated)
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
