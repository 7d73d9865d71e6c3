"""The corner that Schatten loses: Proposition 1 of Arora et al. (2019) under the reader's hands."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from dmfkit.errors import InputError
from dmfkit.explorables.explorable import Explorable


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
