"""Loops over numbers on a CPU, compiled by Numba: what would be many passes over small arrays is one.

What a function is compiled to is kept on disk, beside its file or in the user's cache, and found there the next time.
It is made anew when that file has changed. Numba looks at no other: so compiled functions call those of their own file
only.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

# Numba multiplies with SciPy's BLAS, and would load it at the first product: too late for `Workers` to set its threads.
import scipy.linalg.cython_blas  # noqa: F401
from numba import njit
from numpy.typing import NDArray

Numbers = NDArray[np.floating[Any]]
Places = NDArray[np.integer[Any]]

# Sums in any order and fused multiply-adds, so that loops take several numbers at once; infinities and NaN stay what
# they are. Other threads go on meanwhile.
_OPTIONS: dict[str, Any] = {"nogil": True, "error_model": "numpy", "fastmath": {"reassoc", "contract"}}


def compiled(function: Callable[..., Any]) -> Any:
    """Compile a function when it is first called; what it is compiled to is kept where there is a place for it."""
    try:
        return njit(cache=True, **_OPTIONS)(function)
    except RuntimeError:  # neither the package's folder nor the user's can be written to
        return njit(**_OPTIONS)(function)
