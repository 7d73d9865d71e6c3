"""How the product matrix moves when the factors follow gradient flow: Eq (4) and Lemma 3 of Arora et al. (2019)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from dmfkit.factorizations.factorization import Factorization


def balanced_factorization(end_to_end: Tensor, depth: int) -> Factorization:
    """Factor matrices into balanced factors, ``W_{j+1}^T W_{j+1} = W_j W_j^T`` (Eq 5).

    Every factor takes the `depth`-th root of the singular values; hidden widths are ``k = min(d, d_in)``.

    Parameters
    ----------
    end_to_end : Tensor of shape (runs, d, d_in)
    depth : int
        At least 1.
    """
    if depth == 1:
        return Factorization.from_factors([end_to_end])
    left, values, right = torch.linalg.svd(end_to_end, full_matrices=False)
    root = values ** (1.0 / depth)
    factors = [root.unsqueeze(-1) * right, *[torch.diag_embed(root)] * (depth - 2), left * root.unsqueeze(-2)]
    return Factorization.from_factors(factors)


def product_velocity(factorization: Factorization, velocities: Sequence[Tensor]) -> Tensor:
    """Velocity of the product from the velocities of the factors, by the product rule.

    Parameters
    ----------
    factorization : Factorization
    velocities : sequence of Tensor
        ``dW_1/dt, .., dW_N/dt``, shaped like the factors.

    Returns
    -------
    Tensor of shape (runs, d, d_in)
        ``sum_j W_N .. W_{j+1} (dW_j/dt) W_{j-1} .. W_1``.
    """
    product, moving = factorization.factors[0], velocities[0]
    for factor, velocity in zip(factorization.factors[1:], velocities[1:], strict=True):
        product, moving = factor @ product, velocity @ product + factor @ moving
    return moving


def end_to_end_velocity(end_to_end: Tensor, gradient: Tensor, depth: int) -> Tensor:
    """Velocity of the product under gradient flow of balanced factors, Lemma 3 of Arora et al. (2019).

    Parameters
    ----------
    end_to_end : Tensor of shape (..., d, d_in)
    gradient : Tensor of shape (..., d, d_in)
        Gradient of the loss at `end_to_end`.
    depth : int
        ``N``.

    Returns
    -------
    Tensor of shape (..., d, d_in)
        ``- sum_j [W W^T]^{(j-1)/N} gradient [W^T W]^{(N-j)/N}``. The powers are taken of the singular values; the power
        0 is the identity of the whole space, also where ``W`` is singular or not square.
    """
    left, values, right = torch.linalg.svd(end_to_end, full_matrices=False)
    total = torch.zeros_like(gradient)
    for j in range(1, depth + 1):
        term = gradient
        if j > 1:
            term = (left * (values ** (2 * (j - 1) / depth)).unsqueeze(-2)) @ (left.mT @ term)
        if j < depth:
            term = (term @ right.mT * (values ** (2 * (depth - j) / depth)).unsqueeze(-2)) @ right
        total = total - term
    return total


def field_asymmetry(field: Callable[[Tensor], Tensor], point: Tensor, step: float = 1e-5) -> float:
    """How far a vector field on matrices is from being a gradient: ``||J - J^T|| / ||J||`` of its Jacobian ``J``.

    A field is the gradient of some function near a point only if its Jacobian is symmetric there. Zero where the
    Jacobian vanishes.

    Parameters
    ----------
    field : callable
        Takes and returns matrices ``(runs, d, d_in)``.
    point : Tensor of shape (d, d_in)
    step : float
        Of the central differences that give the Jacobian.
    """
    directions = torch.eye(point.numel(), dtype=point.dtype).view(-1, *point.shape)
    slopes = (field(point + step * directions) - field(point - step * directions)) / (2 * step)
    jacobian = slopes.flatten(start_dim=1)
    size = float(jacobian.norm())
    return float((jacobian - jacobian.mT).norm()) / size if size else 0.0
