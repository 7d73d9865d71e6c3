"""Gradient flow of small factorizations, so accurate that differences of it can judge formulas."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from scipy.integrate import solve_ivp
from torch import Tensor

from dmfkit.errors import InputError
from dmfkit.factorizations.factorization import Factorization
from dmfkit.linalg.svd_paths import SignedSVD, SVDVelocity, svd_differences, track_svd
from dmfkit.theory.end_to_end import balanced_factorization, product_velocity

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
