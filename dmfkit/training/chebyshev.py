"""Coefficients of the second-order Runge-Kutta-Chebyshev method of Sommeijer, Shampine and Verwer (1998).

An s-stage step is stable while ``h * rho <= 0.653 * (s + 1)^2``, ``rho`` being the spectral radius of a Jacobian with
real non-positive eigenvalues: the reach grows with the square of the work, which is why gradient flows of moderate
stiffness need no linear solves.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dmfkit.gradients.evaluator import ChebyshevStages, FlowPoints, chebyshev_stages

# Damping: keeps the stability polynomial strictly inside the unit interval between its ends.
DAMPING = 2.0 / 13.0
# The paper's bound, with its safety: s stages for h * rho <= ((s - 1)^2 - 1) / 1.54.
STAGE_FACTOR = 1.54


@dataclass(frozen=True)
class Coefficients:
    """Coefficients of one step with `stages` stages, Eqs (2.7)-(2.8) of Sommeijer, Shampine & Verwer (1998).

    Stage ``j >= 2`` is ``(1 - mu_j - nu_j) y_0 + mu_j y_{j-1} + nu_j y_{j-2} + h (slope_j F_{j-1} + first_j F_0)``;
    stage 1 is ``y_0 + h slope_1 F_0``. Arrays have length ``stages + 1``; entries that the formula does
    not use are zero.
    """

    stages: int
    mu: NDArray[np.float64]
    nu: NDArray[np.float64]
    slope: NDArray[np.float64]
    first: NDArray[np.float64]

    def __post_init__(self) -> None:
        # Consistency: integrating y' = 1 and y' = 2t over one unit step must give 1 and 1 exactly (orders one and two).
        one, two = self._integrate()
        if not (abs(one - 1.0) < 1e-9 and abs(two - 1.0) < 1e-9):
            raise ValueError(f"the {self.stages}-stage coefficients are not of order two: {one}, {two}")

    def _integrate(self) -> tuple[float, float]:
        value = [np.zeros(2), np.array([self.slope[1], 0.0])]
        for j in range(2, self.stages + 1):
            when = value[j - 1][0]  # stage times solve y' = 1
            slopes = self.slope[j] * np.array([1.0, 2.0 * when]) + self.first[j] * np.array([1.0, 0.0])
            value.append(self.mu[j] * value[j - 1] + self.nu[j] * value[j - 2] + slopes)
        return float(value[-1][0]), float(value[-1][1])


@lru_cache(maxsize=1024)
def coefficients(stages: int) -> Coefficients:
    """Coefficients for `stages` >= 2 stages."""
    s = stages
    w0 = 1.0 + DAMPING / s**2
    # Chebyshev polynomials and their two derivatives at w0, by the three-term recursion.
    t, dt, d2t = np.zeros(s + 1), np.zeros(s + 1), np.zeros(s + 1)
    t[0], t[1], dt[1] = 1.0, w0, 1.0
    for j in range(2, s + 1):
        t[j] = 2.0 * w0 * t[j - 1] - t[j - 2]
        dt[j] = 2.0 * t[j - 1] + 2.0 * w0 * dt[j - 1] - dt[j - 2]
        d2t[j] = 4.0 * dt[j - 1] + 2.0 * w0 * d2t[j - 1] - d2t[j - 2]
    w1 = dt[s] / d2t[s]
    b = np.empty(s + 1)
    b[2:] = d2t[2:] / dt[2:] ** 2
    b[:2] = b[2]
    a = 1.0 - b * t
    mu, nu, slope, first = (np.zeros(s + 1) for _ in range(4))
    slope[1] = b[1] * w1
    mu[2:] = 2.0 * w0 * b[2:] / b[1:-1]
    nu[2:] = -b[2:] / b[:-2]
    slope[2:] = 2.0 * w1 * b[2:] / b[1:-1]
    first[2:] = -a[1:-1] * slope[2:]
    return Coefficients(s, mu, nu, slope, first)


def stages_for(step_times_radius: NDArray[np.float64]) -> NDArray[np.int64]:
    """Least number of stages for which a step of this size times the spectral radius is stable."""
    result: NDArray[np.int64] = np.maximum(2, 1 + np.floor(np.sqrt(STAGE_FACTOR * step_times_radius + 1.0))).astype(
        np.int64
    )
    return result


def stage_weights(h: NDArray[np.float64], stages: NDArray[np.int64]) -> NDArray[np.float64]:
    """What every stage of a step is the sum of, ``(runs, most stages + 1, 5)``; zero beyond a run's last stage.

    Stage ``j`` is that many times ``y_0``, ``y_{j-1}``, ``y_{j-2}``, ``F_{j-1}`` and ``F_0``; of the first two, which
    have them in ``y_0`` and ``F_0``, the terms are put together: no stage asks for the one before the start.
    """
    weights = np.zeros((len(stages), int(stages.max()) + 1, 5))
    for run, size in enumerate(h):
        table = coefficients(int(stages[run]))
        reach = slice(2, table.stages + 1)
        weights[run, reach, 0] = 1.0 - table.mu[reach] - table.nu[reach]
        weights[run, reach, 1], weights[run, reach, 2] = table.mu[reach], table.nu[reach]
        weights[run, reach, 3], weights[run, reach, 4] = size * table.slope[reach], size * table.first[reach]
        weights[run, 1, [0, 4]] = 1.0, size * table.slope[1]
        weights[run, 2, 0] += weights[run, 2, 2]
        weights[run, 2, 2] = 0.0
    return weights


def chebyshev_step(
    field: Callable[[Tensor], Tensor], y: Tensor, f: Tensor, h: NDArray[np.float64], stages: NDArray[np.int64]
) -> Tensor:
    """Advance every run of a batch by one step of its own size and number of stages, by tensor operations.

    Parameters
    ----------
    field : callable
        Right-hand side ``F``; called with the first ``k`` runs, ``(k, n)``, for as long as they have stages left. May
        return the same memory every time.
    y, f : Tensor of shape (runs, n)
        States and right-hand sides there.
    h : array of shape (runs,)
    stages : array of shape (runs,)
        At least 2 each, in descending order.

    Returns
    -------
    Tensor of shape (runs, n)
    """
    out = torch.empty_like(y)
    weights = ChebyshevStages(stage_weights(h, stages), stages)
    chebyshev_stages(field, FlowPoints(y, f), weights, torch.empty_like(y), out)
    return out
