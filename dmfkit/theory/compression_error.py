"""How far a pair of trainings, at full width and compressed, is from Proposition 1 of Yaras et al. (2023).

The proof, Appendix A.2, says what every partial product (Eq 13) and every gradient (Eq 14) of the wide factors is in
terms of the compressed ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor

from dmfkit.factorizations.factorization import Factorization


def compression_check(
    weights: Tensor, cores: Tensor, scales: Tensor, frames: Sequence[Tensor], target: Tensor
) -> dict[str, Tensor]:
    """Compare full and compressed weights along training with Appendix A.2 of Yaras et al. (2023).

    Parameters
    ----------
    weights : Tensor of shape (moments, L, d, d)
        Full weights.
    cores : Tensor of shape (moments, L, 2 r_hat, 2 r_hat)
        Compressed weights at the same moments.
    scales : Tensor of shape (moments, L)
        ``rho_l``.
    frames : sequence of Tensor, each (1, d, d)
        ``V_1, U_1, .., U_L``, the learned columns first.
    target : Tensor of shape (d, d)

    Returns
    -------
    dict of Tensor, each (moments,)
        ``ratio``: squared distance of the products over Proposition 1's bound. ``exact``: departure of the squared
        distance from ``m_hat prod rho^2``, over the bound. ``core``: largest entry of ``U_{l,1}^T W_l V_{l,1}`` minus
        the core. ``partial_product``: largest departure from Eq (13) over all pairs of layers, relative to the
        largest product. ``gradient``: largest departure from Eq (14), relative to the largest entry of all gradients.
    """
    size, d = cores.shape[-1], weights.shape[-1]
    whole = [frame[0] for frame in frames]
    full, small = _products(weights), _products(cores)
    n_layers = weights.shape[1]
    # Eq (13), for all i <= j; in the frames it says that the product is block diagonal with known blocks.
    departures, largest = [], torch.zeros((), dtype=weights.dtype)
    for (last, first), product in full.items():
        inside = whole[last + 1].mT @ product @ whole[first]
        expected = torch.zeros_like(inside)
        expected[:, :size, :size] = small[last, first]
        diagonal = scales[:, first : last + 1].prod(dim=1)
        expected[:, range(size, d), range(size, d)] = diagonal[:, None]
        departures.append((inside - expected).abs().amax(dim=(-2, -1)))
        largest = torch.maximum(largest, product.abs().max())
    left, right = whole[-1][:, :size], whole[0][:, :size]
    gap = full[n_layers - 1, 0] - left @ small[n_layers - 1, 0] @ right.mT
    squared = gap.square().sum(dim=(-2, -1))
    bound = (d - size) * scales[0].prod().square()
    blocks = [
        outer[:, :size].mT @ weights[:, layer] @ inner[:, :size] for layer, (inner, outer) in enumerate(pairwise(whole))
    ]
    projected = torch.stack(blocks, dim=1)
    return {
        "ratio": squared / bound,
        "exact": (squared - (d - size) * scales.prod(dim=1).square()).abs() / bound,
        "core": (projected - cores).abs().amax(dim=(-3, -2, -1)),
        "partial_product": torch.stack(departures).amax(dim=0) / largest,
        "gradient": _gradient_departure(weights, cores, whole, target),
    }


def _products(factors: Tensor) -> dict[tuple[int, int], Tensor]:
    """``W_{j:i}`` for all layers ``i <= j``, ``(moments, rows, columns)``, by ``(j, i)`` counted from 0."""
    products = {}
    for first in range(factors.shape[1]):
        product = factors[:, first]
        products[first, first] = product
        for last in range(first + 1, factors.shape[1]):
            product = factors[:, last] @ product
            products[last, first] = product
    return products


def _gradient_departure(weights: Tensor, cores: Tensor, whole: Sequence[Tensor], target: Tensor) -> Tensor:
    """Largest departure from Eq (14) at every moment, relative to the largest entry of all full gradients."""
    size = cores.shape[-1]
    wide = Factorization.from_factors(list(weights.unbind(dim=1)))
    thin = Factorization.from_factors(list(cores.unbind(dim=1)))
    inner_target = whole[-1][:, :size].mT @ target @ whole[0][:, :size]
    full = wide.pull_back(wide.end_to_end() - target)
    small = thin.pull_back(thin.end_to_end() - inner_target)
    departures = [
        (outer[:, :size].mT @ one @ inner[:, :size] - other).abs().amax(dim=(-2, -1))
        for one, other, (inner, outer) in zip(full, small, pairwise(whole), strict=True)
    ]
    return torch.stack(departures).amax(dim=0) / max(float(one.abs().max()) for one in full)
