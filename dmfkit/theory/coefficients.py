"""The coefficient matrices of the motion of singular vectors: Appendix B.5 and B.6 of Arora et al. (2019).

All take signed singular values ``(..., k)`` and return ``(..., k, k)``; row ``r``, column ``r'``. Those that divide by
differences raise `InputError` where two squared values are equal.
"""

from __future__ import annotations

import torch
from torch import Tensor

from dmfkit.errors import InputError

# Squares closer than this, relative to the largest, are equal but for rounding; values below it are zero.
SMALLEST_GAP = 1e-14


def off_diagonal(size: int) -> Tensor:
    """Ones off the diagonal and zeros on it, the ``I`` with a bar of Eq (28)."""
    return 1.0 - torch.eye(size, dtype=torch.float64)


def square_differences(values: Tensor) -> Tensor:
    """``E``: ``sigma_{r'}^2 - sigma_r^2``, with the sign that Appendix B.6 needs (it is printed with the other)."""
    squares = values.square()
    return squares.unsqueeze(-2) - squares.unsqueeze(-1)


def inverse_square_differences(values: Tensor) -> Tensor:
    """``H`` of Eq (30): ``1 / (sigma_{r'}^2 - sigma_r^2)`` off the diagonal, zero on it."""
    check_distinct(values)
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
    """
    check_distinct(values)
    roots = values.square() ** (1.0 / depth)
    return _inverse_off_diagonal(roots.unsqueeze(-2) - roots.unsqueeze(-1))


def check_distinct(values: Tensor) -> None:
    """Raise `InputError` where two squared singular values agree."""
    squares = values.square()
    gaps = square_differences(values).abs() + torch.diag_embed(torch.full_like(values, torch.inf))
    if values.numel() and bool((gaps <= SMALLEST_GAP * squares.amax(-1)[..., None, None]).any()):
        raise InputError(
            "two singular values have the same square: how their vectors move is not determined there, so choose a "
            "moment at which all squares differ."
        )


def check_nonzero(values: Tensor) -> None:
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
