"""How singular vectors move: Lemma 2 of Arora et al. (2019), corrected and as printed, and the steps of its proof.

`left` and `right` velocities are those of ``U`` and ``V`` in the analytic decomposition ``W = U S V^T``. The vectors
turn within the span of all ``u_r`` (a skew-symmetric mixing) and, if the matrix is not square, out of it.
"""

from __future__ import annotations

from torch import Tensor

from dmfkit.errors import InputError
from dmfkit.linalg.svd_paths import SignedSVD
from dmfkit.theory.coefficients import check_nonzero, inverse_square_differences, rotation_rates


def vectors_from_velocity(svd: SignedSVD, velocity: Tensor) -> tuple[Tensor, Tensor]:
    """Velocities of ``U`` and ``V`` for any smooth path, Eqs (33) and (34).

    Parameters
    ----------
    svd : SignedSVD
    velocity : Tensor of shape (..., d, d_in)
        ``dW/dt``.

    Returns
    -------
    tuple of Tensor
        ``dU/dt`` of shape (..., d, k) and ``dV/dt`` of shape (..., d_in, k).

    Raises
    ------
    InputError
        If two singular values have the same square, or one is zero and the matrix is not square.
    """
    rates = inverse_square_differences(svd.values)
    left_mixing, right_mixing = mixing(svd, velocity)
    left = svd.left @ (rates * left_mixing)
    right = svd.right @ (rates * right_mixing)
    if _leaves_span(svd.left):
        left = left + _outside(svd.left, velocity @ svd.right) / _nonzero(svd).unsqueeze(-2)
    if _leaves_span(svd.right):
        right = right + _outside(svd.right, velocity.mT @ svd.left) / _nonzero(svd).unsqueeze(-2)
    return left, right


def left_velocity(svd: SignedSVD, gradient: Tensor, depth: int) -> Tensor:
    """``dU/dt`` under gradient flow of balanced factors, Eq (8) made right for negative singular values.

    Parameters
    ----------
    svd : SignedSVD
    gradient : Tensor of shape (..., d, d_in)
    depth : int

    Returns
    -------
    Tensor of shape (..., d, k)
        The last factor of the second term is ``S (S^2)^{-1/N}``, not the printed ``(S^2)^{1/2 - 1/N}``.

    Raises
    ------
    InputError
        If two singular values have the same square, or one is zero and ``d > d_in``: there ``U`` is not determined.
    """
    turn = svd.left @ (rotation_rates(svd.values, depth) * mixing(svd, gradient)[0])
    if not _leaves_span(svd.left):
        return -turn
    return -turn - _outside(svd.left, gradient @ svd.right) * _signed_power(svd, depth)


def right_velocity(svd: SignedSVD, gradient: Tensor, depth: int) -> Tensor:
    """``dV/dt``, Eq (9) with ``U`` in its last term and made right for negative values; see `left_velocity`."""
    turn = svd.right @ (rotation_rates(svd.values, depth) * mixing(svd, gradient)[1])
    if not _leaves_span(svd.right):
        return -turn
    return -turn - _outside(svd.right, gradient.mT @ svd.left) * _signed_power(svd, depth)


def left_velocity_as_printed(svd: SignedSVD, gradient: Tensor, depth: int) -> Tensor:
    """Eq (8) as printed: the last factor is ``(S^2)^{1/2 - 1/N}``, which forgets the sign of negative values."""
    turn = svd.left @ (rotation_rates(svd.values, depth) * mixing(svd, gradient)[0])
    return -turn - _outside(svd.left, gradient @ svd.right) * _signed_power(svd, depth).abs()


def right_velocity_as_printed(svd: SignedSVD, gradient: Tensor, depth: int, *, signed: bool = False) -> Tensor:
    """Eq (9) as printed, with ``U^T`` where ``U`` is meant.

    Parameters
    ----------
    svd, gradient, depth
        As in `left_velocity`.
    signed : bool
        Correct the signs of the last factor, ``S (S^2)^{-1/N}``, so that the transpose is the only slip left.

    Raises
    ------
    InputError
        If the product ``gradient^T U^T`` does not exist, that is, if the matrix has more rows than columns.
    """
    if svd.left.shape[-2] != svd.left.shape[-1]:
        raise InputError(
            f"the printed last term multiplies a {gradient.shape[-1]} x {gradient.shape[-2]} matrix by a "
            f"{svd.left.shape[-1]} x {svd.left.shape[-2]} one, which only exists for matrices with at most as many "
            "rows as columns."
        )
    turn = svd.right @ (rotation_rates(svd.values, depth) * mixing(svd, gradient)[1])
    power = _signed_power(svd, depth)
    return -turn - _outside(svd.right, gradient.mT @ svd.left.mT) * (power if signed else power.abs())


def mixing(svd: SignedSVD, matrix: Tensor) -> tuple[Tensor, Tensor]:
    """Return the brackets of Eqs (8) and (9): ``M S + S M^T`` and ``S M + M^T S`` with ``M = U^T matrix V``."""
    rotated = svd.rotate(matrix)
    rows, columns = svd.values.unsqueeze(-1), svd.values.unsqueeze(-2)
    return rotated * columns + rows * rotated.mT, rows * rotated + rotated.mT * columns


def _outside(vectors: Tensor, matrix: Tensor) -> Tensor:
    """Project the columns of `matrix` onto the complement of the span of `vectors`."""
    return matrix - vectors @ (vectors.mT @ matrix)


def _leaves_span(vectors: Tensor) -> bool:
    """Whether there is room outside the span of the vectors: fewer of them than dimensions."""
    return vectors.shape[-1] < vectors.shape[-2]


def _nonzero(svd: SignedSVD) -> Tensor:
    check_nonzero(svd.values)
    return svd.values


def _signed_power(svd: SignedSVD, depth: int) -> Tensor:
    values = _nonzero(svd)
    return (values * values.square() ** (-1.0 / depth)).unsqueeze(-2)
