"""How singular vectors move, and when they rest: Lemma 2 and Corollary 1 of Arora et al. (2019), corrected.

Velocities of ``left`` and ``right`` vectors are those of ``U`` and ``V`` in the analytic decomposition ``W = U S V^T``.
The vectors turn within the span of all ``u_r`` (a skew-symmetric mixing) and, if the matrix is not square, out of it.

1. The coefficient matrices of Appendix B.5 and B.6. All take signed singular values ``(..., k)`` and return
   ``(..., k, k)``: row ``r``, column ``r'``.
2. Lemma 2, Eqs (8) and (9), as it is right and as it is printed, and the steps of its proof.
3. Both sides of Corollary 1, with a constant. Eq (41) reads
   ``U^T U' S - S V^T V' = - (G without its diagonal) * (U^T gradient V)``, entry by entry. Dividing by ``G`` and taking
   norms turns "no movement, no entries off the diagonal" into "little movement, little off the diagonal". For matrices
   that are not square, the second terms of Eqs (8) and (9) do the same for the part of the gradient outside the spans
   of ``U`` and ``V``.
"""

from __future__ import annotations

import torch
from torch import Tensor

from dmfkit.errors import InputError
from dmfkit.linalg.svd_paths import SignedSVD

# Squares closer than this, relative to the largest, are equal but for rounding; values below it are zero.
SMALLEST_GAP = 1e-14


# Coefficient matrices


def off_diagonal(size: int) -> Tensor:
    """Ones off the diagonal and zeros on it, the ``I`` with a bar of Eq (28)."""
    return 1.0 - torch.eye(size, dtype=torch.float64)


def square_differences(values: Tensor) -> Tensor:
    """``E``: ``sigma_{r'}^2 - sigma_r^2``, with the sign that Appendix B.6 needs (it is printed with the other)."""
    squares = values.square()
    return squares.unsqueeze(-2) - squares.unsqueeze(-1)


def inverse_square_differences(values: Tensor) -> Tensor:
    """``H`` of Eq (30): ``1 / (sigma_{r'}^2 - sigma_r^2)`` off the diagonal, zero on it.

    Raises
    ------
    InputError
        If two singular values have the same square.
    """
    _check_distinct(values)
    return _inverse_off_diagonal(square_differences(values))


def depth_weights(values: Tensor, depth: int) -> Tensor:
    """``G`` of Eq (38): ``sum_j (sigma_r^2)^{(j-1)/N} (sigma_{r'}^2)^{(N-j)/N}``, symmetric."""
    squares = values.square()
    rows, columns = squares.unsqueeze(-1), squares.unsqueeze(-2)
    terms = [rows ** ((j - 1) / depth) * columns ** ((depth - j) / depth) for j in range(1, depth + 1)]
    return torch.stack(terms).sum(dim=0)


def rotation_rates(values: Tensor, depth: int) -> Tensor:
    """``F`` of Lemma 2: ``1 / ((sigma_{r'}^2)^{1/N} - (sigma_r^2)^{1/N})`` off the diagonal, zero on it.

    Eq (39) prints it with the other sign.

    Raises
    ------
    InputError
        If two singular values have the same square.
    """
    _check_distinct(values)
    roots = values.square() ** (1.0 / depth)
    return _inverse_off_diagonal(roots.unsqueeze(-2) - roots.unsqueeze(-1))


def _check_distinct(values: Tensor) -> None:
    """Raise `InputError` where two squared singular values agree."""
    squares = values.square()
    gaps = square_differences(values).abs() + torch.diag_embed(torch.full_like(values, torch.inf))
    if values.numel() and bool((gaps <= SMALLEST_GAP * squares.amax(-1)[..., None, None]).any()):
        raise InputError(
            "two singular values have the same square: how their vectors move is not determined there, so choose a "
            "moment at which all squares differ."
        )


def _check_nonzero(values: Tensor) -> None:
    """Raise `InputError` where a singular value is zero but for rounding."""
    size = values.abs()
    if values.numel() and bool((size <= SMALLEST_GAP * size.amax(-1, keepdim=True)).any()):
        raise InputError(
            "a singular value is zero and the matrix is not square: its longer singular vector is not determined, so "
            "choose a matrix of full rank."
        )


def _inverse_off_diagonal(matrix: Tensor) -> Tensor:
    on = torch.eye(matrix.shape[-1], dtype=matrix.dtype, device=matrix.device)
    return (1.0 - on) / (matrix + on)


# Lemma 2


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
        Gradient of the loss in the product matrix.
    depth : int
        ``N``.

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
    """``dV/dt``, Eq (9) with ``U`` in its last term and made right for negative values, ``(..., d_in, k)``.

    Parameters and errors are those of `left_velocity`, with ``d_in > d`` where it has ``d > d_in``.
    """
    turn = svd.right @ (rotation_rates(svd.values, depth) * mixing(svd, gradient)[1])
    if not _leaves_span(svd.right):
        return -turn
    return -turn - _outside(svd.right, gradient.mT @ svd.left) * _signed_power(svd, depth)


def left_velocity_as_printed(svd: SignedSVD, gradient: Tensor, depth: int) -> Tensor:
    """Eq (8) as printed: the last factor is ``(S^2)^{1/2 - 1/N}``, which forgets the sign of negative values.

    Parameters and result are those of `left_velocity`.
    """
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

    Returns
    -------
    Tensor of shape (..., d_in, k)

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
    """Return the brackets of Eqs (8) and (9): ``M S + S M^T`` and ``S M + M^T S`` with ``M = U^T matrix V``.

    Parameters
    ----------
    svd : SignedSVD
    matrix : Tensor of shape (..., d, d_in)

    Returns
    -------
    tuple of Tensor, each (..., k, k)
    """
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
    _check_nonzero(svd.values)
    return svd.values


def _signed_power(svd: SignedSVD, depth: int) -> Tensor:
    values = _nonzero(svd)
    return (values * values.square() ** (-1.0 / depth)).unsqueeze(-2)


# Corollary 1


def misalignment(svd: SignedSVD, gradient: Tensor) -> Tensor:
    """Frobenius norm of the off-diagonal part of ``U^T gradient V``, ``(...)``."""
    result: Tensor = torch.linalg.matrix_norm(svd.rotate(gradient) * off_diagonal(svd.values.shape[-1]))
    return result


def unaligned_part(svd: SignedSVD, gradient: Tensor) -> Tensor:
    """The gradient without ``sum_r (u_r^T gradient v_r) u_r v_r^T``, ``(..., d, d_in)``.

    Zero exactly if every ``u_r``, ``v_r`` is a pair of singular vectors of the gradient.
    """
    aligned = (svd.left * svd.rotate(gradient).diagonal(dim1=-2, dim2=-1).unsqueeze(-2)) @ svd.right.mT
    return gradient - aligned


def movement(svd: SignedSVD, gradient: Tensor, depth: int) -> Tensor:
    """``||dU/dt||_F + ||dV/dt||_F`` by Lemma 2, ``(...)``."""
    left, right = left_velocity(svd, gradient, depth), right_velocity(svd, gradient, depth)
    result: Tensor = torch.linalg.matrix_norm(left) + torch.linalg.matrix_norm(right)
    return result


def alignment_constant(values: Tensor, depth: int) -> Tensor:
    """``C`` in ``misalignment <= C movement``: the largest ``|sigma_r|`` over the least off-diagonal entry of ``G``.

    Zero for a single value, which has nothing off the diagonal.
    """
    size = values.shape[-1]
    weights = depth_weights(values, depth)[..., off_diagonal(size).bool()]
    if size == 1:
        return torch.zeros_like(values[..., 0])
    return values.abs().amax(dim=-1) / weights.amin(dim=-1)


def complement_constant(values: Tensor, depth: int) -> Tensor:
    """``C`` in ``||(I - U U^T) gradient V||_F <= C ||dU/dt||_F``, and so for ``V``: max ``|sigma_r|^{2/N - 1}``.

    From the second term of Eq (8), which is at right angles to the first.
    """
    return (values.abs() ** (2.0 / depth - 1.0)).amax(dim=-1)


def movement_map(svd: SignedSVD, depth: int) -> Tensor:
    """Matrix of the linear map from the gradient to ``(dU/dt, dV/dt)`` at one product matrix.

    Its kernel holds every gradient under which the singular vectors rest.

    Parameters
    ----------
    svd : SignedSVD
        Of one matrix, without leading dimensions.
    depth : int

    Returns
    -------
    Tensor of shape ((d + d_in) k, d d_in)
    """
    rows, columns = svd.left.shape[-2], svd.right.shape[-2]
    gradients = torch.eye(rows * columns, dtype=svd.values.dtype).view(-1, rows, columns)
    moved = [left_velocity(svd, gradients, depth), right_velocity(svd, gradients, depth)]
    return torch.cat([part.flatten(start_dim=1) for part in moved], dim=1).mT
