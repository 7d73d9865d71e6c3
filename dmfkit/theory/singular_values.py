"""How fast singular values move under gradient flow of balanced factors: Theorem 3 of Arora et al. (2019), Eq (7).

Behind every singular value stands a scalar equation, Lemma 4, Eq (12): ``ds/dt = (s^2)^a g(t)`` with ``a >= 1/2``. Its
solution depends on time only through ``I(t)``, the integral of ``g``. `SingularValueSpeeds` records, for descent and
flow at full size, what Theorem 3 predicts and what the factors do.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from scipy.optimize import brentq
from torch import Tensor

from dmfkit.errors import InputError
from dmfkit.linalg.svd_paths import SignedSVD
from dmfkit.problems.losses import Problem
from dmfkit.theory.end_to_end import product_velocity
from dmfkit.training.recorders import gradient_magnitude
from dmfkit.training.snapshot import Snapshot
from dmfkit.values import plain_value


def depth_factor(values: Tensor, depth: int) -> Tensor:
    """Return ``N (sigma^2)^{1 - 1/N}``: all that depth does to the speed of a singular value (Eq 7).

    Equal to 1 at depth 1, for zero values too.

    Parameters
    ----------
    values : Tensor of shape (..., k)
        Signed singular values ``sigma``.
    depth : int
        ``N``.

    Returns
    -------
    Tensor of shape (..., k)
    """
    return depth * (values.square()) ** (1.0 - 1.0 / depth)


def singular_value_velocity(svd: SignedSVD, gradient: Tensor, depth: int) -> Tensor:
    """Velocity of every signed singular value, Eq (7) of Arora et al. (2019).

    Parameters
    ----------
    svd : SignedSVD
        Of the product matrices, ``k`` singular values each.
    gradient : Tensor of shape (..., d, d_in)
        Gradient of the loss there.
    depth : int
        ``N``.

    Returns
    -------
    Tensor of shape (..., k)
        ``- N (sigma_r^2)^{1 - 1/N} u_r^T gradient v_r``.
    """
    return -depth_factor(svd.values, depth) * svd.rotate(gradient).diagonal(dim1=-2, dim2=-1)


def scalar_solution(start: float, exponent: float, integral: np.ndarray) -> np.ndarray:
    """Closed form of the solution of Eq (12) of Arora et al. (2019).

    Parameters
    ----------
    start : float
        ``s(0)``.
    exponent : float
        ``a``, at least 1/2; ``1 - 1/N`` for depth ``N >= 2``.
    integral : ndarray
        ``I(t)`` at the times asked for.

    Returns
    -------
    ndarray shaped like `integral`
        ``nan`` where the solution has already run off to infinity, provided that `integral` is monotone.

    Raises
    ------
    InputError
        If the exponent is below 1/2, where solutions through zero are not unique.
    """
    _check_exponent(exponent)
    # The equation keeps its form under s -> -s, g -> -g.
    sign, size, integral = float(np.sign(start)), abs(start), np.asarray(integral, dtype=float)
    if size == 0.0:
        return np.zeros_like(integral)
    if exponent == 0.5:
        return sign * size * np.exp(sign * integral)
    power = 2.0 * exponent - 1.0
    # The bracket over its value at the start, by log1p: near a = 1/2 the plain power loses all digits.
    left = -power * sign * integral * size**power
    return sign * size * np.exp(-np.log1p(np.where(left > -1, left, np.nan)) / power)


def blow_up_integral(start: float, exponent: float) -> float:
    """Value of ``I`` at which the solution runs off to infinity; infinite if it never does.

    Parameters
    ----------
    start, exponent : float
        As in `scalar_solution`.

    Raises
    ------
    InputError
        If the exponent is below 1/2.
    """
    _check_exponent(exponent)
    if start == 0.0 or exponent == 0.5:
        return np.inf
    power = 2.0 * exponent - 1.0
    return float(np.sign(start) * abs(start) ** -power / power)


def blow_up_time(start: float, exponent: float, integral: Callable[[float], float], horizon: float) -> float:
    """Find the first time up to `horizon` at which the solution runs off to infinity; infinite if it does not.

    Parameters
    ----------
    start, exponent : float
        As in `scalar_solution`.
    integral : callable
        ``I`` of a time.
    horizon : float

    Raises
    ------
    InputError
        If the exponent is below 1/2.
    """
    level = blow_up_integral(start, exponent)
    if not np.isfinite(level):
        return np.inf
    times = np.linspace(0.0, horizon, 2001)
    beyond = [time for time in times if np.sign(level) * (integral(float(time)) - level) >= 0]
    if not beyond:
        return np.inf
    before = max(beyond[0] - times[1], 0.0)
    return float(brentq(lambda time: integral(time) - level, before, beyond[0], xtol=1e-14))


def _check_exponent(exponent: float) -> None:
    if exponent < 0.5:
        raise InputError(
            f"exponent = {exponent} is not allowed: below 1/2 a solution through zero is not unique, so choose at "
            "least 1/2."
        )


@plain_value
@dataclass(frozen=True)
class SingularValueSpeeds:
    """Record the `count` largest singular values and two velocities of each, and how unbalanced the factors are.

    ``predicted_velocity`` is Eq (7) of Arora et al. (2019), which assumes balanced factors. ``flow_velocity`` is that
    of the gradient flow through the factors as they are, ``u_r^T (dW/dt) v_r`` by the product rule.
    ``largest_imbalance`` is the greatest Frobenius norm of ``W_{j+1}^T W_{j+1} - W_j W_j^T``.

    Attributes
    ----------
    count : int
    """

    count: int = 5

    @property
    def dims(self) -> Mapping[str, tuple[str, ...]]:
        return {
            "singular_value": ("index",),
            "predicted_velocity": ("index",),
            "flow_velocity": ("index",),
            "largest_imbalance": (),
        }

    def magnitudes(self, problem: Problem) -> Mapping[str, float]:
        # Velocities are a gradient times powers of singular values, up to the square as the depth grows; what is
        # balanced are squares of factors.
        size = problem.magnitude
        velocity = gradient_magnitude(problem) * max(size, size**2)
        return {
            "singular_value": size,
            "predicted_velocity": velocity,
            "flow_velocity": velocity,
            "largest_imbalance": max(1.0, size),
        }

    def __call__(self, snapshot: Snapshot) -> dict[str, Tensor]:
        left, values, right = snapshot.svd
        svd, factorization = SignedSVD(left, values, right.mT), snapshot.factorization
        gradient = snapshot.gradient
        velocity = product_velocity(factorization, [-part for part in factorization.pull_back(gradient)])
        imbalance = factorization.imbalance()
        return {
            "singular_value": values[:, : self.count],
            "predicted_velocity": singular_value_velocity(svd, gradient, factorization.depth)[:, : self.count],
            "flow_velocity": svd.rotate(velocity).diagonal(dim1=-2, dim2=-1)[:, : self.count],
            "largest_imbalance": imbalance.amax(dim=1) if imbalance.shape[1] else values.new_zeros(len(values)),
        }
