"""Sharpness of global minima of deep matrix factorization: which step sizes gradient descent can end with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse.linalg import LinearOperator, eigsh

Array = NDArray[np.float64]


def flattest_sharpness(top: float, depth: int) -> float:
    """Least sharpness of any global minimum, ``L s^(2 - 2/L)`` for a target of largest singular value ``s``.

    Sharpness is the largest eigenvalue of the Hessian of the half-sum loss in the factors; gradient descent of step
    ``lr`` can stay near a minimum only if ``lr`` times it is at most 2 (Mulayoff & Michaeli 2020).
    """
    return float(depth * top ** (2 - 2 / depth))


def minimum_sharpness(factors: Sequence[Array]) -> float:
    """Sharpness at a global minimum of the half-sum loss with all entries observed, where the residual vanishes.

    There the Hessian is ``J^T J``, with the eigenvalues of ``J J^T``, which maps ``X`` to ``sum_l (W_{L:l+1}
    W_{L:l+1}^T) X (W_{l-1:1}^T W_{l-1:1})``.

    Parameters
    ----------
    factors : sequence of ndarray, each (d_l, d_{l-1})
        ``W_1 .. W_L``.
    """
    before, after = [np.eye(factors[0].shape[1])], [np.eye(factors[-1].shape[0])]
    for factor in factors[:-1]:
        before.append(factor @ before[-1])
    for factor in reversed(factors[1:]):
        after.insert(0, after[0] @ factor)
    pairs = [(left @ left.T, right.T @ right) for left, right in zip(after, before, strict=True)]
    shape = (pairs[0][0].shape[0], pairs[0][1].shape[0])

    def curvature(direction: Array) -> Any:
        matrix = direction.reshape(shape)
        return sum(left @ matrix @ right for left, right in pairs).ravel()  # type: ignore[union-attr]

    first = np.random.default_rng(0).standard_normal(shape[0] * shape[1])
    operator = LinearOperator((first.size, first.size), matvec=curvature, dtype=np.float64)
    return float(eigsh(operator, k=1, return_eigenvectors=False, v0=first)[0])
