"""Makes the example matrix that comes with the package, `example_matrix.csv`."""

from __future__ import annotations

import numpy as np
import pandas as pd

SHAPE, RANK = (60, 40), 3
WEIGHTS = (3.0, 2.0, 1.0)
NOISE = 0.2
MISSING = 0.65


def example_matrix(seed: int = 0) -> pd.DataFrame:
    """Draw a 60 x 40 matrix of rank 3 with noise, about 65 % of its entries missing.

    ``U diag(3, 2, 1) V^T`` with independent standard normal entries in ``U`` and ``V``, plus noise of standard
    deviation 0.2, about 5 % of the root mean square of the entries; rounded to two decimals.
    """
    random = np.random.default_rng(seed)
    signal = (random.standard_normal((SHAPE[0], RANK)) * WEIGHTS) @ random.standard_normal((RANK, SHAPE[1]))
    values = (signal + NOISE * random.standard_normal(SHAPE)).round(2)
    values[random.random(SHAPE) < MISSING] = np.nan
    rows, columns = (
        pd.Index([f"{kind} {i + 1}" for i in range(n)]) for kind, n in zip(("row", "column"), SHAPE, strict=True)
    )
    return pd.DataFrame(values, rows, columns)
