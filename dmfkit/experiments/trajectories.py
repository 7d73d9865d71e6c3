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
        result: np.ndarray = (matrices.reshape(len(matrices), -1) - self.mean) @ self.axes.T
        return result


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
    result: np.ndarray = np.linalg.norm(points[:, None] - start - along[..., None] * step, axis=-1).min(axis=1)
    return result


@dataclass(frozen=True)
class PathComparison:
    """Trajectories in the principal components of a reference, with distances over the diameter of its curve.

    Attributes
    ----------
    points : dict of ndarray (moments, k)
        Coordinates by label; the reference has the label ``reference``.
    apart : dict of ndarray (moments,)
        Distance from the reference at equal moments.
    off_path : dict of float
        Largest distance from the reference's curve, whatever the moment.
    matrices : dict of float
        Frobenius distance of the last matrices, over the norm of the reference's.
    share : float
        Share of the reference's variance that the components hold.
    """

    points: dict[str, np.ndarray]
    apart: dict[str, np.ndarray]
    off_path: dict[str, float]
    matrices: dict[str, float]
    share: float


def compare_paths(reference: np.ndarray, others: dict[str, np.ndarray], count: int = 3) -> PathComparison:
    """Compare trajectories ``(moments, rows, columns)``, recorded at the same moments, that all begin near zero.

    The start is put in front as zero; a run that ended stays where it was.
    """

    def whole(matrices: np.ndarray) -> np.ndarray:
        return np.concatenate([np.zeros_like(matrices[:1]), hold_last(matrices)])

    path, paths = whole(reference), {label: whole(other) for label, other in others.items()}
    components = PrincipalComponents.of(path, count)
    base = components.coordinates(path)
    across = diameter(base)
    points = {label: components.coordinates(other) for label, other in paths.items()}
    return PathComparison(
        points={"reference": base} | points,
        apart={label: np.linalg.norm(point - base, axis=1) / across for label, point in points.items()},
        off_path={label: float(distance_to_path(point, base).max()) / across for label, point in points.items()},
        matrices={
            label: float(np.linalg.norm(other[-1] - path[-1]) / np.linalg.norm(path[-1]))
            for label, other in paths.items()
        },
        share=float(components.shares.sum()),
    )
