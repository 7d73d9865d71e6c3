"""The flow's endpoint with as many digits as asked for, to tell what double precision does to it."""

from __future__ import annotations

from dataclasses import dataclass

import mpmath as mp
import numpy as np

from dmfkit.errors import SolverError
from dmfkit.theory.commuting import CommutingProblem
from dmfkit.theory.linear import DiagonalOptimum


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
