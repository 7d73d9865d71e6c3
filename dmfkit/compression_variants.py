"""Frames as the code released with Yaras et al. (2023) makes them: from the first layer's gradient at the start.

The theorem takes ``Psi = W_{L:2}(0)^T Phi``. The code takes ``G = W_{L:2}(0)^T [Omega * (W(0) - Phi)]``, which holds
the start, too. Two of its three versions span the same subspace in exact arithmetic; `stacked` is the third.
"""

from __future__ import annotations

import torch
from torch import Tensor

from dmfkit.compression import InvariantFrames, carried, check_rank_bound, layer_scales
from dmfkit.factorization import Factorization
from dmfkit.problems.losses import Problem


def first_layer_gradient(start: Factorization, problem: Problem) -> Tensor:
    """Gradient of the half-sum loss in ``W_1``, ``(runs, d, d)``."""
    gradient = problem.gradient(start.end_to_end()) / problem.gradient_scale
    for factor in reversed(start.factors[1:]):
        gradient = factor.mT @ gradient
    return gradient


def gradient_frames(
    start: Factorization, problem: Problem, rank_bound: int, *, stacked: bool = False
) -> InvariantFrames:
    """Frames from the gradient ``G = A S B^T`` of the first layer at the start.

    Parameters
    ----------
    start : Factorization
        Square factors, each a multiple of an orthogonal matrix.
    problem : Problem
    rank_bound : int
        ``r_hat``.
    stacked : bool
        False: the span of the first ``r_hat`` columns of ``B`` and of ``W_1(0)^T A``. True: the leading ``2 r_hat``
        right singular vectors of ``G`` on top of ``G^T W_1(0)``; the second block is smaller by ``sigma_1``, so that it
        counts only where ``G`` itself has no more than ``r_hat`` directions.

    Raises
    ------
    InputError
        If ``0 < 2 r_hat < d`` does not hold, or `start` is not as described.
    """
    check_rank_bound(start.widths[0], rank_bound)
    scales = layer_scales(start)
    gradient, first = first_layer_gradient(start, problem), start.factors[0]
    if stacked:
        both = torch.cat([gradient, gradient.mT @ first], dim=-2)
        right = torch.linalg.svd(both, full_matrices=False)[2][..., : 2 * rank_bound, :].mT
    else:
        left, _, rows = torch.linalg.svd(gradient)
        reached = first.mT @ left[..., :rank_bound] / scales[:, :1, None]
        right = torch.linalg.qr(torch.cat([rows[..., :rank_bound, :].mT, reached], dim=-1))[0]
    return InvariantFrames(carried(start, scales, right), scales)
