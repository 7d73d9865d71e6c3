"""Singular values and what is measured from them. All functions take batches: leading dimensions are runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from dmfkit.linalg.low_rank import LowRank

if TYPE_CHECKING:
    from scipy.sparse import csr_array


def singular_values(matrix: Tensor) -> Tensor:
    """Singular values in descending order, ``(runs, min(d, d_in))``, of matrices ``(runs, d, d_in)``."""
    result: Tensor = torch.linalg.svdvals(matrix)
    return result


def finite_singular_values(matrix: Tensor) -> Tensor:
    """The same, with rows of ``nan`` for matrices that are not finite, which have no singular values."""
    finite = torch.isfinite(matrix).all(dim=(-2, -1))
    values = matrix.new_full((len(finite), min(matrix.shape[-2:])), torch.nan)
    if bool(finite.any()):
        values[finite] = singular_values(matrix[finite])
    return values


def leading_singular_vectors(matrix: Tensor | csr_array | LowRank, count: int) -> tuple[Tensor, Tensor, Tensor]:
    """The `count` largest singular values of one matrix with their vectors, by a Lanczos method of SciPy's.

    Parameters
    ----------
    matrix : Tensor, sparse array or LowRank, of shape (d, d_in)
        What is returned for a sparse array is in double precision on the CPU. Of a LowRank the first of its batch, by
        decompositions of its factors.
    count : int
        At least 1 and below ``min(d, d_in)``.

    Returns
    -------
    left : Tensor of shape (d, count)
    values : Tensor of shape (count,)
        Descending.
    right : Tensor of shape (d_in, count)
        Both sets of vectors are orthonormal, also where singular values are zero or equal.
    """
    if isinstance(matrix, LowRank):
        return matrix.singular_vectors(count)
    # A fixed first vector: the same matrix gives the same vectors.
    first = np.random.default_rng(0).standard_normal(min(matrix.shape))
    host = matrix.detach().to("cpu", torch.float64).numpy() if isinstance(matrix, Tensor) else matrix
    from scipy.sparse.linalg import svds  # takes a tenth of a second to load

    left, values, right = svds(host, k=count, v0=first)
    order = np.argsort(-values, kind="stable")
    like = matrix if isinstance(matrix, Tensor) else torch.empty(0, dtype=torch.float64)
    return tuple(  # type: ignore[return-value]
        torch.from_numpy(np.ascontiguousarray(part)).to(like)
        for part in (left[:, order], values[order], right[order].T)
    )


def effective_rank(values: Tensor) -> Tensor:
    """Effective rank of Roy & Vetterli (2007): the exponential of the entropy of the normalised singular values.

    Parameters
    ----------
    values : Tensor of shape (..., k)
        Non-negative singular values, at least one of them positive.

    Returns
    -------
    Tensor of shape (...)
        Between 1 and k; equal to k when all k values agree. Exact zeros add nothing to the entropy.
    """
    weights = values / values.sum(dim=-1, keepdim=True)
    result: Tensor = torch.special.entr(weights).sum(dim=-1).exp()
    return result


def nuclear_norm(values: Tensor) -> Tensor:
    """Sum of the singular values, ``(...)``."""
    return values.sum(dim=-1)


def schatten(values: Tensor, p: float) -> Tensor:
    """Sum of the p-th powers, ``(...)``: the Schatten-p quasi-norm to the power p of Arora et al. (2019), Section 2.

    Parameters
    ----------
    values : Tensor of shape (..., k)
        Singular values. Exact zeros add nothing. What rounding leaves in place of zero does, and almost 1 for p near 0:
        set it to zero first.
    p : float
        Above 0; at 1 the nuclear norm.
    """
    return values.pow(p).sum(dim=-1)


def schatten_norm(values: Tensor, p: float) -> Tensor:
    """``schatten(values, p)`` to the power 1/p: the Schatten-p norm, for p below 1 a quasi-norm, ``(...)``."""
    return schatten(values, p).pow(1 / p)


def relative_error(matrix: Tensor, target: Tensor) -> Tensor:
    """``||W - W*||_F^2 / ||W*||_F^2``, the reconstruction error of Arora et al. (2019), Appendix D.2."""
    return (matrix - target).square().sum(dim=(-2, -1)) / target.square().sum(dim=(-2, -1))


def split_diagonal(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """Entries on the main diagonal, ``(runs, k)``, and all others, ``(runs, d d_in - k)``, ``k = min(d, d_in)``."""
    rows, columns = matrix.shape[-2:]
    on = torch.eye(rows, columns, dtype=torch.bool, device=matrix.device)
    return matrix[..., on], matrix[..., ~on]
