"""The corner that Schatten loses: Proposition 1 of Arora et al. (2019) under the reader's hands.

The gap that depth opens: Equation 11 of Arora et al. (2019) under the reader's hands.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from dmfkit.errors import InputError
from dmfkit.interactive.explorable import Explorable


class SchattenCorner(Explorable):
    """Epsilon and the exponent against the quasi-norm along the family of Proposition 1.

    Parameters
    ----------
    picture : Figure
        What stands in its place without JavaScript.
    exponents : sequence of float
        Exponents drawn thinly for comparison, each between 0 and 1; the middle one is selected at first.

    Raises
    ------
    InputError
        If an exponent is not between 0 and 1.
    """

    scripts = ("schatten_corner.js",)

    def __init__(self, picture: Figure, *, exponents: Sequence[float]) -> None:
        if not exponents or any(not 0 < p < 1 for p in exponents):
            raise InputError(f"exponents = {list(exponents)}: give exponents between 0 and 1, at least one.")
        steps = sorted({*(round(float(p), 2) for p in np.linspace(0.05, 0.95, 19)), *map(float, exponents)})
        settings = {
            "epsilons": [round(float(e), 2) for e in np.linspace(0, 1, 101)],
            "exponents": steps,
            "others": sorted(map(float, exponents)),
            "epsilon": 0.5,
            "exponent": sorted(map(float, exponents))[len(exponents) // 2],
        }
        super().__init__(settings, {}, picture)


class DepthGap(Explorable):
    """One singular value as a function of another, with the saturation level.

    Parameters
    ----------
    picture : Figure
        What stands in its place without JavaScript.
    alpha : float
        Ratio of the signed strengths, between 0 and 1, at first.
    start_value : float
        Both singular values' start, positive.

    Raises
    ------
    InputError
        If a value is out of its range.
    """

    scripts = ("depth_gap.js",)

    def __init__(self, picture: Figure, *, alpha: float, start_value: float) -> None:
        if not 0 < alpha < 1:
            raise InputError(f"alpha = {alpha:g}: give a ratio of strengths between 0 and 1.")
        if not start_value > 0:
            raise InputError(f"start_value = {start_value:g}: give a positive start.")
        steps = sorted({*(round(float(a), 2) for a in np.linspace(0.05, 0.95, 19)), float(alpha)})
        growths = [float(f"{g:.3g}") for g in np.geomspace(1, 1e4, 81)]
        settings = {
            "alphas": steps,
            "alpha": float(alpha),
            "depths": [*range(1, 11), 15, 20, 50],
            "depth": 3,
            "ratios": [0.2, 0.5, 0.8, 1.0, 1.1, 1.2, 1.5, 2.0, 3.0],
            "ratio": 1.0,
            "growths": growths,
            "growth": growths[40],
            "second0": float(start_value),
            "reach": float(start_value * 1e4),
        }
        super().__init__(settings, {}, picture)
