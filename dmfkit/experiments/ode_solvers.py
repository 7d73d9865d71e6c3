"""Gradient flow by general-purpose integrators, for comparison: what each needs to follow one and the same path.

Each takes one run, a `CountedField` and a tolerance, and returns the state at the end. `dmfkit.gradient_flow` is the
integrator that the book uses.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.integrate import solve_ivp
from torch import Tensor

from dmfkit.errors import InputError, SolverError
from dmfkit.gradients.choice import evaluator_for
from dmfkit.linalg.backend import quiet_overflow
from dmfkit.problems.losses import Problem

# So that a state of zeros, which stays, has an error of zero.
TINY = 1e-300

Solver = Callable[["CountedField", Tensor, float, float], Tensor]


class CountedField:
    """Minus the gradient in the factors of one run, and how often it was asked for.

    Attributes
    ----------
    n_evaluations : int
    """

    def __init__(self, problem: Problem, widths: tuple[int, ...]) -> None:
        self.n_evaluations = 0
        self._evaluator = evaluator_for(problem, widths, 1)

    @quiet_overflow()
    def __call__(self, state: Tensor) -> Tensor:
        """Velocity of the factors at `state`, both ``(n_parameters,)``."""
        self.n_evaluations += 1
        velocity = torch.empty_like(state)
        self._evaluator.squares_and_gradient(state.unsqueeze(0), velocity.unsqueeze(0))
        return velocity.neg_()


def root_mean_square(state: Tensor) -> float:
    """Root of the mean square of all entries."""
    result: float = float(torch.linalg.vector_norm(state)) / state.numel() ** 0.5
    return result


def heun(field: CountedField, start: Tensor, horizon: float, rtol: float) -> Tensor:
    """The pair of Heun and Euler, orders 2 and 1, with steps adapted to their difference.

    Parameters
    ----------
    field : CountedField
    start : Tensor of shape (n_parameters,)
    horizon : float
        Flow time at which it ends.
    rtol : float
        Error allowed in one step, relative to the norm of the state, as in `dmfkit.Flow`.

    Returns
    -------
    Tensor of shape (n_parameters,)
    """
    y, f, t = start.clone(), field(start), 0.0
    speed = float(torch.linalg.vector_norm(f))
    h = 0.01 * float(torch.linalg.vector_norm(y)) / speed if speed else horizon
    while t < horizon:
        h = min(h, horizon - t)
        euler = torch.add(y, f, alpha=h)
        following = field(euler)
        y_new = torch.add(y, f + following, alpha=0.5 * h)
        size = max(float(torch.linalg.vector_norm(y)), float(torch.linalg.vector_norm(y_new)))
        error = float(torch.linalg.vector_norm(y_new - euler)) / (rtol * size + TINY)
        if error <= 1.0:
            t = horizon if h == horizon - t else t + h
            y = y_new
            f = field(y)
        # The estimate is of second order in the step; one that is not finite shortens it as much as allowed.
        h *= min(5.0, max(0.2, 0.9 / max(error, 1e-10) ** 0.5)) if np.isfinite(error) else 0.2
    return y


def by_scipy(method: str) -> Solver:
    """Return `scipy.integrate.solve_ivp` with a method, such as ``"DOP853"`` or ``"LSODA"``, as a solver.

    Its tolerance is entry by entry: `rtol` relative to each entry and, so that entries near zero do not stop it,
    `rtol` times the root mean square of the start.
    """

    def solve(field: CountedField, start: Tensor, horizon: float, rtol: float) -> Tensor:
        def velocity(_: float, state: NDArray[np.float64]) -> NDArray[np.float64]:
            found: NDArray[np.float64] = field(torch.from_numpy(state)).numpy()
            return found

        options: dict[str, Any] = {"method": method, "rtol": rtol, "atol": rtol * root_mean_square(start)}
        # A step that is tried and leaves the finite numbers is rejected as any that is too long.
        with np.errstate(invalid="ignore", over="ignore"):
            done = solve_ivp(velocity, (0.0, horizon), start.numpy(), t_eval=[horizon], **options)
        if not done.success:
            raise SolverError(f"{method} could not follow the flow to time {horizon:g}: {done.message}")
        return torch.from_numpy(np.ascontiguousarray(done.y[:, -1]))

    return solve


def has_torchdiffeq() -> bool:
    """Whether torchdiffeq, which is optional, is installed."""
    return importlib.util.find_spec("torchdiffeq") is not None


def dopri5(field: CountedField, start: Tensor, horizon: float, rtol: float) -> Tensor:
    """The ``dopri5`` of torchdiffeq, orders 5 and 4, with tolerances as in `by_scipy`.

    Raises
    ------
    InputError
        If torchdiffeq is not installed.
    SolverError
        If its steps become too small.
    """
    if not has_torchdiffeq():
        raise InputError("dopri5 needs torchdiffeq, which is not installed: run pip install torchdiffeq.")
    from torchdiffeq import odeint

    times = torch.tensor([0.0, horizon], dtype=start.dtype)
    options: dict[str, Any] = {"method": "dopri5", "rtol": rtol, "atol": rtol * root_mean_square(start)}
    try:
        with torch.no_grad():
            path: Tensor = odeint(lambda _, state: field(state), start, times, **options)
    except AssertionError as error:  # so torchdiffeq says that a step has become too small
        raise SolverError(f"dopri5 could not follow the flow to time {horizon:g}: {error}.") from None
    return path[-1]


SOLVERS: dict[str, Solver] = {
    "Heun pair": heun,
    "DOP853": by_scipy("DOP853"),
    "LSODA": by_scipy("LSODA"),
    "dopri5": dopri5,
}
