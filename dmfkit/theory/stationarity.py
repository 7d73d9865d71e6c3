"""Singular vectors at rest: both sides of Corollary 1 of Arora et al. (2019), with a constant.

Eq (41) reads ``U^T U' S - S V^T V' = - (G without its diagonal) * (U^T gradient V)``, entry by entry. Dividing by ``G``
and taking norms turns "no movement, no entries off the diagonal" into "little movement, little off the diagonal". For
matrices that are not square, the second terms of Eqs (8) and (9) do the same for the part of the gradient outside the
spans of ``U`` and ``V``.
"""

from __future__ import annotations

import torch
from torch import Tensor

from dmfkit.linalg.svd_paths import SignedSVD
from dmfkit.theory.coefficients import depth_weights, off_diagonal
from dmfkit.theory.singular_vectors import left_velocity, right_velocity


def misalignment(svd: SignedSVD, gradient: Tensor) -> Tensor:
    """Frobenius norm of the off-diagonal part of ``U^T gradient V``, ``(...)``."""
    return torch.linalg.matrix_norm(svd.rotate(gradient) * off_diagonal(svd.values.shape[-1]))


def unaligned_part(svd: SignedSVD, gradient: Tensor) -> Tensor:
    """The gradient without ``sum_r (u_r^T gradient v_r) u_r v_r^T``, ``(..., d, d_in)``.

    Zero exactly if every ``u_r``, ``v_r`` is a pair of singular vectors of the gradient.
    """
    aligned = (svd.left * svd.rotate(gradient).diagonal(dim1=-2, dim2=-1).unsqueeze(-2)) @ svd.right.mT
    return gradient - aligned


def movement(svd: SignedSVD, gradient: Tensor, depth: int) -> Tensor:
    """``||dU/dt||_F + ||dV/dt||_F`` by Lemma 2, ``(...)``."""
    left, right = left_velocity(svd, gradient, depth), right_velocity(svd, gradient, depth)
    return torch.linalg.matrix_norm(left) + torch.linalg.matrix_norm(right)


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
