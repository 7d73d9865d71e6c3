"""The scalar equation behind every singular value: Lemma 4 of Arora et al. (2019), Eq (12).

``ds/dt = (s^2)^a g(t)`` with ``a >= 1/2``. Its solution depends on time only through ``I(t)``, the integral of ``g``.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy.optimize import brentq

from dmfkit.errors import InputError


def scalar_solution(start: float, exponent: float, integral: np.ndarray) -> np.ndarray:
    """Closed form of the solution of Eq (12).

    Parameters
    ----------
    start : float
        ``s(0)``.
    exponent : float
        ``a``, at least 1/2; ``1 - 1/N`` for depth ``N >= 2``.
    integral : array
        ``I(t)`` at the times asked for.

    Returns
    -------
    array shaped like `integral`
        ``nan`` where the solution has already run off to infinity, provided that `integral` is monotone.

    Raises
    ------
    InputError
        If the exponent is below 1/2, where solutions through zero are not unique.
    """
    _check(exponent)
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
    """Value of ``I`` at which the solution runs off to infinity; infinite if it never does."""
    _check(exponent)
    if start == 0.0 or exponent == 0.5:
        return np.inf
    power = 2.0 * exponent - 1.0
    return float(np.sign(start) * abs(start) ** -power / power)


def blow_up_time(start: float, exponent: float, integral: Callable[[float], float], horizon: float) -> float:
    """Find the first time up to `horizon` at which the solution runs off to infinity; infinite if it does not."""
    level = blow_up_integral(start, exponent)
    if not np.isfinite(level):
        return np.inf
    times = np.linspace(0.0, horizon, 2001)
    beyond = [time for time in times if np.sign(level) * (integral(float(time)) - level) >= 0]
    if not beyond:
        return np.inf
    before = max(beyond[0] - times[1], 0.0)
    return float(brentq(lambda time: integral(time) - level, before, beyond[0], xtol=1e-14))


def _check(exponent: float) -> None:
    if exponent < 0.5:
        raise InputError(
            f"exponent = {exponent} is not allowed: below 1/2 a solution through zero is not unique, so choose at "
            "least 1/2."
        )
