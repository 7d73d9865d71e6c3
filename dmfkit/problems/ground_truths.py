"""Random matrices of low rank: what is to be found."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from dmfkit.errors import InputError


def check_rank(shape: tuple[int, ...], rank: int) -> None:
    """Raise `InputError` unless a matrix of this shape can have this rank."""
    if not 1 <= rank <= min(shape):
        raise InputError(
            f"rank = {rank} is not allowed: the rank of a {shape[0]} x {shape[1]} matrix lies between 1 and "
            f"{min(shape)}."
        )


def check_target_norm(target_norm: float | None) -> None:
    """Raise `InputError` unless a matrix can be rescaled to this norm."""
    if target_norm is not None and not (math.isfinite(target_norm) and target_norm > 0):
        raise InputError(
            f"target_norm = {target_norm} is not allowed: take a positive finite number, or None for no rescaling."
        )


def random_low_rank(shape: tuple[int, int], rank: int, seed: int, target_norm: float | None = None) -> Tensor:
    """Random matrix ``U V^T`` with i.i.d. standard normal factors (Arora et al. 2019, Appendix D.2).

    Parameters
    ----------
    shape : (d, d_in)
    rank : int
        Number of columns of ``U`` and ``V``.
    seed : int
    target_norm : float, optional
        Rescale to this Frobenius norm. ``None`` leaves the matrix raw, so that ``E ||W*||_F^2 = rank * d * d_in``; the
        released code rescales to ``d``.

    Returns
    -------
    Tensor of shape (d, d_in), float64, on the CPU

    Raises
    ------
    InputError
        If the rank exceeds a side of the matrix or is not positive, or the norm is not positive.
    """
    check_rank(shape, rank)
    check_target_norm(target_norm)
    left, right = gaussian_factors(shape, rank, seed)
    matrix = left @ right.mT
    return matrix if target_norm is None else matrix * (target_norm / torch.linalg.matrix_norm(matrix))


def gaussian_factors(shape: tuple[int, int], rank: int, seed: int) -> tuple[Tensor, Tensor]:
    """The factors ``U, V`` of `random_low_rank` before any rescaling, ``(d, rank)`` and ``(d_in, rank)``."""
    generator = torch.Generator().manual_seed(seed)
    left = torch.randn(shape[0], rank, generator=generator, dtype=torch.float64)
    right = torch.randn(shape[1], rank, generator=generator, dtype=torch.float64)
    return left, right


def truncated_gaussian(shape: tuple[int, int], rank: int, seed: int, target_norm: float | None = None) -> Tensor:
    """Best rank-`rank` approximation of a matrix with i.i.d. standard normal entries.

    The target of the code released with Yaras et al. (2023), whose text names none. Its non-zero singular values are
    nearly equal, about ``2 sqrt(d)`` for a ``d x d`` matrix.

    Parameters
    ----------
    shape : (d, d_in)
    rank, seed : int
    target_norm : float, optional
        Rescale to this Frobenius norm; ``None`` leaves the matrix as it is.

    Returns
    -------
    Tensor of shape (d, d_in), float64, on the CPU

    Raises
    ------
    InputError
        If the rank exceeds a side of the matrix or is not positive, or the norm is not positive.
    """
    check_rank(shape, rank)
    check_target_norm(target_norm)
    generator = torch.Generator().manual_seed(seed)
    left, values, right = torch.linalg.svd(
        torch.randn(*shape, generator=generator, dtype=torch.float64), full_matrices=False
    )
    matrix = (left[:, :rank] * values[:rank]) @ right[:rank]
    result: Tensor = matrix if target_norm is None else matrix * (target_norm / torch.linalg.matrix_norm(matrix))
    return result


def halving_spectrum(shape: tuple[int, int], rank: int, seed: int, target_norm: float | None = None) -> Tensor:
    """The singular vectors of `truncated_gaussian`, and its first singular value, halved from one to the next."""
    left, values, right = torch.linalg.svd(truncated_gaussian(shape, rank, seed, target_norm), full_matrices=False)
    halves = 0.5 ** torch.arange(rank, dtype=values.dtype)
    result: Tensor = (left[:, :rank] * (values[0] * halves)) @ right[:rank]
    return result
