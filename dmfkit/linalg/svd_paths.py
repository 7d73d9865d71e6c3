"""Singular value decompositions that move smoothly: signed, unordered, and followed along a path of matrices.

A program that decomposes a matrix sorts the singular values and makes them positive. Along a path of matrices this puts
kinks into the values where two of them meet or one crosses zero, and jumps into the vectors. An analytic path has a
decomposition without either (Lemma 1 of Arora et al. 2019): the values may change sign and change places. `track_svd`
follows it, by asking at every moment which vectors continue which.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from scipy.optimize import brentq, linear_sum_assignment
from torch import Tensor

from dmfkit.errors import InputError

# A vector continues another one if the cosine of the angle between them is at least this.
LEAST_OVERLAP = 0.9
# Two moments are taken closer together at most this many times, each time by half.
MAX_HALVINGS = 40


@dataclass(frozen=True)
class SignedSVD:
    """Thin decompositions ``W = U S V^T`` with signed, unordered singular values; ``k = min(d, d_in)``.

    Attributes
    ----------
    left : Tensor of shape (..., d, k)
        Left singular vectors ``u_r``, the columns of ``U``.
    values : Tensor of shape (..., k)
        Signed singular values, the diagonal of ``S``.
    right : Tensor of shape (..., d_in, k)
        Right singular vectors ``v_r``, the columns of ``V``.
    """

    left: Tensor
    values: Tensor
    right: Tensor

    def matrix(self) -> Tensor:
        """Recompose ``U S V^T``, of shape (..., d, d_in)."""
        return (self.left * self.values.unsqueeze(-2)) @ self.right.mT

    def rotate(self, matrix: Tensor) -> Tensor:
        """Write a matrix of shape (..., d, d_in) in the singular vectors: ``U^T matrix V``, (..., k, k)."""
        return self.left.mT @ matrix @ self.right

    def with_signs(self, signs: Tensor) -> SignedSVD:
        """Multiply values and left vectors by `signs`, ``(k,)`` of 1 and -1: another decomposition of the same."""
        return SignedSVD(self.left * signs.unsqueeze(-2), self.values * signs, self.right)


@dataclass(frozen=True)
class SVDVelocity:
    """Time derivatives of the three parts of a `SignedSVD`, of the same shapes."""

    left: Tensor
    values: Tensor
    right: Tensor


def sorted_svd(matrix: Tensor) -> SignedSVD:
    """Decomposition with values in descending order and not negative, as a program gives it."""
    left, values, right = torch.linalg.svd(matrix, full_matrices=False)
    return SignedSVD(left, values, right.mT)


def continue_svd(matrix: Tensor, reference: SignedSVD) -> tuple[SignedSVD, float]:
    """Decompose one matrix so that it continues the decomposition of a matrix near it.

    Parameters
    ----------
    matrix : Tensor of shape (d, d_in)
    reference : SignedSVD
        Of one matrix of the same shape.

    Returns
    -------
    SignedSVD
        Columns in the order, and with the signs, that overlap the reference's most.
    float
        The smallest cosine of an angle between a vector and the one that it continues.
    """
    found = sorted_svd(matrix)
    left, right = reference.left.mT @ found.left, reference.right.mT @ found.right
    _, order = linear_sum_assignment(-(left.abs() + right.abs()).numpy())
    left, right = left[:, order].diagonal(), right[:, order].diagonal()
    signs_left, signs_right = torch.where(left < 0, -1.0, 1.0).to(matrix), torch.where(right < 0, -1.0, 1.0).to(matrix)
    continued = SignedSVD(
        found.left[:, order] * signs_left,
        found.values[order] * signs_left * signs_right,
        found.right[:, order] * signs_right,
    )
    return continued, float(torch.minimum(left.abs(), right.abs()).min())


def track_svd(path: Callable[[Tensor], Tensor], times: Tensor, signs: Tensor | None = None) -> SignedSVD:
    """Follow the analytic singular value decomposition of a path of matrices.

    Parameters
    ----------
    path : callable
        Takes times ``(moments,)`` and returns matrices ``(moments, d, d_in)``.
    times : Tensor of shape (moments,)
        Ascending. Between two of them the path is looked at more often where the vectors turn far.
    signs : Tensor of shape (k,), optional
        Signs of the singular values at the first time, largest value first; all positive by default.

    Returns
    -------
    SignedSVD
        With one leading dimension, the moments. The columns keep the order of the first moment.

    Raises
    ------
    InputError
        If the vectors cannot be followed: a moment lies on a crossing, or values stay equal.
    """
    matrices = path(times)
    now = sorted_svd(matrices[0])
    if signs is not None:
        now = now.with_signs(signs)
    found = [now]
    for number in range(1, len(times)):
        now = _follow(path, now, float(times[number - 1]), float(times[number]), matrices[number], MAX_HALVINGS)
        found.append(now)
    return SignedSVD(*(torch.stack([getattr(one, name) for one in found]) for name in ("left", "values", "right")))


def _follow(
    path: Callable[[Tensor], Tensor], now: SignedSVD, before: float, after: float, matrix: Tensor, halvings: int
) -> SignedSVD:
    continued, overlap = continue_svd(matrix, now)
    if overlap >= LEAST_OVERLAP:
        return continued
    if halvings == 0:
        raise InputError(
            f"the singular vectors cannot be followed through time {after:.6g}: two singular values are equal there, "
            "so choose times that are no crossings and a path whose singular values do not stay equal."
        )
    middle = 0.5 * (before + after)
    half = _follow(path, now, before, middle, path(torch.tensor([middle], dtype=matrix.dtype))[0], halvings - 1)
    return _follow(path, half, middle, after, matrix, halvings - 1)


def svd_differences(path: Callable[[Tensor], Tensor], svd: SignedSVD, times: Tensor, step: float) -> SVDVelocity:
    """Central differences ``(f(t + step) - f(t - step)) / (2 step)`` of a tracked decomposition, for every moment.

    Parameters
    ----------
    path : callable
        As in `track_svd`.
    svd : SignedSVD
        The decomposition at `times`, which those at ``t - step`` and ``t + step`` are made to continue.
    times : Tensor of shape (moments,)
    step : float
    """
    sides = []
    for matrices in (path(times - step), path(times + step)):
        moments = [
            continue_svd(matrix, SignedSVD(svd.left[i], svd.values[i], svd.right[i]))[0]
            for i, matrix in enumerate(matrices)
        ]
        sides.append(moments)
    slopes = (
        torch.stack([(getattr(b, name) - getattr(a, name)) / (2 * step) for a, b in zip(*sides, strict=True)])
        for name in ("left", "values", "right")
    )
    return SVDVelocity(*slopes)


def track_around(
    path: Callable[[Tensor], Tensor], times: Tensor, moment: float, step: float
) -> tuple[SignedSVD, SignedSVD]:
    """Decompositions at ``moment - step`` and ``moment + step``: followed, and sorted with the best choice of signs.

    Parameters
    ----------
    path : callable
        As in `track_svd`.
    times : Tensor of shape (moments,)
        Where to follow the path on the way; those after ``moment - 2 step`` are left out.
    moment, step : float

    Returns
    -------
    tuple of SignedSVD
        With one leading dimension, the two times.
    """
    around = torch.tensor([moment - step, moment + step], dtype=times.dtype)
    whole = track_svd(path, torch.cat([times[times < moment - 2 * step], around]))
    followed = SignedSVD(whole.left[-2:], whole.values[-2:], whole.right[-2:])
    plain = sorted_svd(path(around))
    signs = [
        torch.stack([torch.ones_like(part[0, 0]), (part[0] * part[1]).sum(0).sign()])
        for part in (plain.left, plain.right)
    ]
    values = plain.values * signs[0] * signs[1]
    return followed, SignedSVD(plain.left * signs[0].unsqueeze(1), values, plain.right * signs[1].unsqueeze(1))


@dataclass(frozen=True)
class Crossing:
    """A time at which two tracked singular values have the same size, or one is zero (then ``first == second``)."""

    time: float
    first: int
    second: int


def find_crossings(path: Callable[[Tensor], Tensor], svd: SignedSVD, times: Tensor) -> list[Crossing]:
    """Find where tracked singular values meet in absolute value or pass through zero, in order of time.

    Parameters
    ----------
    path : callable
        As in `track_svd`.
    svd : SignedSVD
        Tracked at `times`, which lie so close that no pair meets twice between two of them.
    times : Tensor of shape (moments,)
    """
    found = []
    for i in range(len(times) - 1):
        here = SignedSVD(svd.left[i], svd.values[i], svd.right[i])
        for first in range(svd.values.shape[1]):
            for second in range(first, svd.values.shape[1]):

                def gap(values: Tensor, a: int = first, b: int = second) -> float:
                    return float(values[a] if a == b else values[a].abs() - values[b].abs())

                def gap_at(time: float, start: SignedSVD = here, measure: Callable[[Tensor], float] = gap) -> float:
                    return measure(continue_svd(path(torch.tensor([time], dtype=times.dtype))[0], start)[0].values)

                if gap(svd.values[i]) * gap(svd.values[i + 1]) < 0:
                    time = brentq(gap_at, float(times[i]), float(times[i + 1]), xtol=1e-13)
                    found.append(Crossing(float(time), first, second))
    return sorted(found, key=lambda crossing: crossing.time)
