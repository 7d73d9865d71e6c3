"""What Theorem 1 and Proposition 1 of Yaras et al. (2023) say in numbers: the inert scales and what follows from them.

With ``P_l = prod_{k != l} rho_k^2``, the scale of the inert block of layer ``l`` obeys Eq (4),
``rho_l(t) = rho_l(t-1) (1 - lr lambda - lr P_l(t-1))``, at any step size. That it decreases needs a step-size
condition which the paper does not state, see `monotone_lr`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Integers = NDArray[np.int32]


def middle_scales(layer_scales: Sequence[float], lr: float, n_steps: int, weight_decay: float = 0.0) -> Tensor:
    """Scales ``rho_l(t)`` of the inert blocks, Eq (4) of Yaras et al. (2023), all layers at once.

    Parameters
    ----------
    layer_scales : sequence of float
        ``rho_l(0) = sigma_l``.
    lr : float
        For the half-sum loss.
    n_steps : int
    weight_decay : float
        ``lambda``.

    Returns
    -------
    Tensor of shape (n_steps + 1, L), float64
    """
    # Python's own numbers: a step is a handful of multiplications, and a tensor's operation takes longer than all.
    rate, decayed = float(lr), 1.0 - float(lr * weight_decay)
    rho = [float(scale) for scale in layer_scales]
    history = [rho]
    for _ in range(n_steps):
        squares = [scale * scale for scale in rho]
        others = [math.prod(squares[:layer] + squares[layer + 1 :]) for layer in range(len(rho))]
        rho = [scale * (decayed - rate * product) for scale, product in zip(rho, others, strict=True)]
        history.append(rho)
    return torch.tensor(history, dtype=torch.float64)


def others_squared(scales: Tensor) -> Tensor:
    """``P_l = prod_{k != l} rho_k^2``, ``(..., L)``; 1 for a single layer. Zeros need no care: nothing is divided."""
    count = scales.shape[-1]
    # For every l, all scales with the l-th one replaced by 1.
    table = scales.square().unsqueeze(-2).expand(*scales.shape[:-1], count, count).clone()
    table.diagonal(dim1=-2, dim2=-1).fill_(1.0)
    return table.prod(dim=-1)


def largest_factor(layer_scales: Sequence[float], weight_decay: float = 0.0) -> float:
    """``lambda + max_l P_l(0)``: the first step multiplies the fastest inert scale by ``1 - lr`` times this."""
    return weight_decay + float(others_squared(torch.tensor(list(layer_scales), dtype=torch.float64)).max())


def monotone_lr(layer_scales: Sequence[float], weight_decay: float = 0.0) -> float:
    """Largest rate up to which every ``rho_l`` stays non-negative and never grows: ``1 / (lambda + max_l P_l(0))``.

    The condition that Section 2 of Yaras et al. (2023) leaves out. By induction: while no scale grows, no ``P_l`` does,
    so every factor of Eq (4) stays between 0 and 1.
    """
    return 1.0 / largest_factor(layer_scales, weight_decay)


def bounded_lr(layer_scales: Sequence[float], weight_decay: float = 0.0) -> float:
    """Largest rate up to which no ``|rho_l|`` ever grows, twice `monotone_lr`; sufficient for Proposition 1's bound."""
    return 2.0 / largest_factor(layer_scales, weight_decay)


def step_size_map(ratios: Sequence[float], heights: Sequence[float], depth: int, n_steps: int = 400) -> Integers:
    """What Eq (4) without weight decay does where the step size is too large for `monotone_lr`.

    Parameters
    ----------
    ratios : sequence of float
        First scale over the others, which are 1.
    heights : sequence of float
        Step sizes in units of `monotone_lr`.
    depth : int
    n_steps : int

    Returns
    -------
    ndarray of int, shape (len(heights), len(ratios))
        0: no scale grows or changes its sign. 1: a sign changes. 2: also, some ``|rho_l|`` grows. 3: also, one passes a
        million times its start, and with it any bound.
    """
    now = torch.ones(len(heights), len(ratios), depth, dtype=torch.float64)
    now[..., 0] = torch.tensor(list(ratios), dtype=torch.float64)
    lr = torch.tensor(list(heights), dtype=torch.float64)[:, None, None]
    lr = lr / others_squared(now).amax(dim=-1, keepdim=True)
    changed, grown = (torch.zeros(now.shape[:2], dtype=torch.bool) for _ in range(2))
    largest = now.amax(dim=-1)
    for _ in range(n_steps):
        after = now * (1.0 - lr * others_squared(now))
        changed |= (after < 0).any(dim=-1)
        grown |= (after.abs() > now.abs() * (1 + 1e-12)).any(dim=-1)
        now = after.clamp(-1e12, 1e12)
    lost = now.abs().amax(dim=-1) > 1e6 * largest
    return (changed.int() + grown.int() + lost.int()).numpy()


def equal_scale_decay(layer_scale: float, depth: int, time: Tensor) -> Tensor:
    """Inert scale under gradient flow without weight decay from equal scales, ``time = lr * t``.

    ``d rho / d time = -rho^(2L-1)`` gives ``(sigma^(-2(L-1)) + 2 (L-1) time)^(-1/(2(L-1)))`` and, for one layer,
    ``sigma exp(-time)``: for large times the power law ``(2 (L-1) time)^(-1/(2(L-1)))`` whatever the start.
    """
    if depth == 1:
        return layer_scale * torch.exp(-time)
    power = 2 * (depth - 1)
    return (layer_scale**-power + power * time) ** (-1.0 / power)


def unequal_scale_limits(layer_scales: Sequence[float]) -> tuple[float, ...]:
    """Limits of the inert scales under gradient flow without weight decay: ``sqrt(sigma_l^2 - min sigma^2)``.

    The flow conserves ``rho_l^2 - rho_k^2`` and ends where the smallest is zero.
    """
    least = min(layer_scales)
    return tuple(math.sqrt(scale**2 - least**2) for scale in layer_scales)


def compression_bound(layer_scales: Sequence[float], d: int, rank_bound: int) -> float:
    """Proposition 1's bound ``m_hat prod_l sigma_l^2`` on the squared distance, ``m_hat = d - 2 r_hat``."""
    return (d - 2 * rank_bound) * math.prod(layer_scales) ** 2


def compression_gap(scales: Tensor, d: int, rank_bound: int) -> Tensor:
    """Exact squared distance ``m_hat prod_l rho_l(t)^2`` (Appendix A.2), ``(...)``, from scales ``(..., L)``."""
    return (d - 2 * rank_bound) * scales.prod(dim=-1).square()
