"""Principal components of a trajectory of matrices, and how far another trajectory is from it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dmfkit.errors import InputError


@dataclass(frozen=True)
class PrincipalComponents:
    """Mean and leading directions of a trajectory.

    Attributes
    ----------
    mean : ndarray of shape (n,)
    axes : ndarray of shape (k, n)
        Orthonormal rows, by falling variance.
    shares : ndarray of shape (k,)
        Share of the trajectory's variance in each direction.
    """

    mean: np.ndarray
    axes: np.ndarray
    shares: np.ndarray

    @classmethod
    def of(cls, matrices: np.ndarray, count: int) -> PrincipalComponents:
        """Components of ``(moments, rows, columns)``, all of them finite.

        Raises
        ------
        InputError
            If there are not more moments than components, or a value is not finite.
        """
        flat = matrices.reshape(len(matrices), -1)
        if not 1 <= count < len(flat) or count > flat.shape[1]:
            raise InputError(f"{count} principal components of {len(flat)} moments: take fewer, or more moments.")
        if not np.isfinite(flat).all():
            raise InputError("principal components need a trajectory without gaps: see hold_last.")
        mean = flat.mean(axis=0)
        _, values, axes = np.linalg.svd(flat - mean, full_matrices=False)
        return cls(mean, axes[:count], values[:count] ** 2 / (values**2).sum())

    def coordinates(self, matrices: np.ndarray) -> np.ndarray:
        """Coordinates ``(moments, k)`` of matrices ``(moments, rows, columns)``."""
        return (matrices.reshape(len(matrices), -1) - self.mean) @ self.axes.T


def hold_last(values: np.ndarray) -> np.ndarray:
    """Records ``(moments, ...)`` of a run that ended, with the last one repeated in place of ``nan``.

    Raises
    ------
    InputError
        If nothing was recorded.
    """
    known = np.isfinite(values.reshape(len(values), -1)).all(axis=1)
    if not known.any():
        raise InputError("this run left no record: choose moments before its end.")
    last = np.flatnonzero(known)[-1]
    held = values.copy()
    held[last:] = values[last]
    return held


def diameter(points: np.ndarray) -> float:
    """Largest distance between two of the points ``(n, k)``."""
    return float(np.linalg.norm(points[:, None] - points[None], axis=-1).max())


def distance_to_path(points: np.ndarray, path: np.ndarray) -> np.ndarray:
    """Distances ``(n,)`` of points ``(n, k)`` from the broken line through ``path``, ``(m, k)``, ``m >= 2``."""
    start, step = path[:-1], np.diff(path, axis=0)
    length = np.maximum((step**2).sum(axis=1), np.finfo(float).tiny)
    along = np.clip(((points[:, None] - start) * step).sum(axis=-1) / length, 0.0, 1.0)
    return np.linalg.norm(points[:, None] - start - along[..., None] * step, axis=-1).min(axis=1)
