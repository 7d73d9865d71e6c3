"""Theorem 1 and Proposition 1 of Yaras et al. (2023) in dense matrices, and which step sizes they are about.

1. Theorem 1 as its proof builds it: inert space, frames, and the weights seen in the frames. Everything follows
   Appendix A.1 step by step, so that `dmfkit.factorizations.compression`, which finds the same frames in thin matrices
   for training, can be held against it; and nothing needs the theorem's hypotheses, so that a control which lacks one
   of them can be looked at in the same frames.
2. The scales of the inert blocks. With ``P_l = prod_{k != l} rho_k^2``, that of layer ``l`` obeys Eq (4),
   ``rho_l(t) = rho_l(t-1) (1 - lr lambda - lr P_l(t-1))``, at any step size. That it decreases needs a step-size
   condition which the paper does not state, see `monotone_lr`. Proposition 1 bounds by these scales what compression
   leaves out.
3. Sharpness of the global minima: which step sizes gradient descent can end with.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse.linalg import LinearOperator, eigsh
from torch import Tensor

from dmfkit.errors import InputError

Array = NDArray[np.float64]
Integers = NDArray[np.int32]


# Theorem 1


def inert_space(factors: Sequence[Tensor], target: Tensor, rtol: float = 1e-10) -> Tensor:
    """Orthonormal basis of ``S = N(Psi) & N(Psi^T W_1(0))`` with ``Psi = W_{L:2}(0)^T Phi``, Lemma 1's proof.

    Parameters
    ----------
    factors : sequence of Tensor, each (d, d)
        ``W_1(0) .. W_L(0)``.
    target : Tensor of shape (d, d)
        ``Phi``.
    rtol : float
        Singular values of the two conditions, stacked at equal norm, count as zero up to this part of the largest.

    Returns
    -------
    Tensor of shape (d, dim S)
        The basis ``V_{1,2}``; for a target of rank r, ``dim S >= d - 2r``.
    """
    later = torch.eye(target.shape[0], dtype=target.dtype)
    for factor in factors[1:]:
        later = factor @ later
    psi = later.mT @ target
    conditions = [psi, psi.mT @ factors[0]]
    norms = [torch.linalg.matrix_norm(one) for one in conditions]
    if not all(float(norm) > 0 for norm in norms):
        return torch.eye(target.shape[0], dtype=target.dtype)
    stacked = torch.cat([one / norm for one, norm in zip(conditions, norms, strict=True)])
    _, values, right = torch.linalg.svd(stacked)
    result: Tensor = right[int((values > rtol * values[0]).sum()) :].mT
    return result


def carried_frames(factors: Sequence[Tensor], inert: Tensor) -> tuple[Tensor, ...]:
    """Orthogonal matrices ``V_1, U_1 = V_2, .., U_L`` of Theorem 1, learned directions first.

    ``V_1`` is the given basis completed in front, and ``U_l = W_l(0) V_l / sigma_l``. A factor that is no multiple of
    an orthogonal matrix is replaced by its nearest orthogonal one: for controls.

    Parameters
    ----------
    factors : sequence of Tensor, each (d, d)
    inert : Tensor of shape (d, m)
        Orthonormal columns ``V_{1,2}``.

    Returns
    -------
    tuple of L + 1 Tensor, each (d, d)
    """
    # The left singular vectors beyond the first m are orthonormal and orthogonal to the basis.
    rest = torch.linalg.svd(inert)[0][:, inert.shape[1] :]
    frames = [torch.cat([rest, inert], dim=1)]
    for factor in factors:
        left, _, right = torch.linalg.svd(factor)
        frames.append(left @ (right @ frames[-1]))
    return tuple(frames)


@dataclass(frozen=True)
class BlockStructure:
    """Weights seen in fixed frames, ``U_l^T W_l(t) V_l``.

    Attributes
    ----------
    blocks : Tensor of shape (moments, L, d, d)
    size : int
        Rows and columns of the upper left block.
    """

    blocks: Tensor
    size: int

    @property
    def core(self) -> Tensor:
        """Upper left blocks, ``(moments, L, size, size)``."""
        return self.blocks[..., : self.size, : self.size]

    @property
    def off(self) -> Tensor:
        """Largest absolute entry of the two blocks off the diagonal, ``(moments, L)``."""
        upper, lower = self.blocks[..., : self.size, self.size :], self.blocks[..., self.size :, : self.size]
        return torch.maximum(upper.abs().amax(dim=(-2, -1)), lower.abs().amax(dim=(-2, -1)))

    @property
    def off_share(self) -> Tensor:
        """Frobenius norm of the two blocks off the diagonal over that of the whole, ``(moments, L)``."""
        upper, lower = self.blocks[..., : self.size, self.size :], self.blocks[..., self.size :, : self.size]
        squares = upper.square().sum(dim=(-2, -1)) + lower.square().sum(dim=(-2, -1))
        return (squares / self.blocks.square().sum(dim=(-2, -1))).sqrt()

    def rest(self, scales: Tensor) -> Tensor:
        """Largest absolute entry of the lower right block minus ``rho_l I``, ``(moments, L)``, for given ``rho_l``."""
        lower = self.blocks[..., self.size :, self.size :]
        eye = torch.eye(lower.shape[-1], dtype=lower.dtype)
        return (lower - scales[..., None, None] * eye).abs().amax(dim=(-2, -1))


def block_structure(weights: Tensor, frames: Sequence[Tensor], size: int) -> BlockStructure:
    """Look at weights in the frames of Theorem 1.

    Parameters
    ----------
    weights : Tensor of shape (moments, L, d, d)
    frames : sequence of L + 1 Tensor, each (d, d)
        ``V_1, U_1, .., U_L``.
    size : int
        How many leading directions are learned, ``2r`` in the theorem.

    Returns
    -------
    BlockStructure

    Raises
    ------
    InputError
        If the numbers of layers and frames do not fit, or a block would be empty.
    """
    if len(frames) != weights.shape[1] + 1:
        raise InputError(f"{len(frames)} frames were given for {weights.shape[1]} layers: give one more than layers.")
    if not 0 < size < weights.shape[-1]:
        raise InputError(f"size = {size} is not allowed: it must lie between 0 and {weights.shape[-1]}.")
    right, left = torch.stack(list(frames[:-1])), torch.stack(list(frames[1:]))
    return BlockStructure(left.mT @ weights @ right, size)


def lemma_residuals(
    weights: Tensor, frames: Sequence[Tensor], size: int, target: Tensor, scales: Tensor
) -> dict[str, Tensor]:
    """How far properties A to D of Lemma 1 are from holding: largest absolute entries, each ``(moments, L)``.

    Parameters
    ----------
    weights, frames, size
        As in `block_structure`.
    target : Tensor of shape (d, d)
        ``Phi``.
    scales : Tensor of shape (moments, L)
        ``rho_l(t)``.

    Returns
    -------
    dict of Tensor
        ``A``: ``W_l V_{l,2} - rho_l U_{l,2}``. ``B``: ``W_l^T U_{l,2} - rho_l V_{l,2}``. ``C``: ``Phi^T W_{L:l+1}
        U_{l,2}``. ``D``: ``Phi W_{l-1:1}^T V_{l,2}``.
    """
    rho = scales[..., None, None]
    right = torch.stack([frame[:, size:] for frame in frames[:-1]])
    left = torch.stack([frame[:, size:] for frame in frames[1:]])
    depth = weights.shape[1]
    after, before = [left[depth - 1].expand(len(weights), -1, -1)], [right[0].expand(len(weights), -1, -1)]
    for layer in range(depth - 2, -1, -1):  # W_{L:l+1} u^(l), each from its own vectors
        moved = left[layer].expand(len(weights), -1, -1)
        for later in range(layer + 1, depth):
            moved = weights[:, later] @ moved
        after.insert(0, moved)
    for layer in range(1, depth):  # W_{l-1:1}^T v^(l)
        moved = right[layer].expand(len(weights), -1, -1)
        for earlier in range(layer - 1, -1, -1):
            moved = weights[:, earlier].mT @ moved
        before.append(moved)
    residuals = {
        "A": weights @ right - rho * left,
        "B": weights.mT @ left - rho * right,
        "C": target.mT @ torch.stack(after, dim=1),
        "D": target @ torch.stack(before, dim=1),
    }
    return {name: value.abs().amax(dim=(-2, -1)) for name, value in residuals.items()}


# Scales of the inert blocks, and Proposition 1


def middle_scales(layer_scales: Sequence[float], lr: float, n_steps: int, weight_decay: float = 0.0) -> Tensor:
    """Scales ``rho_l(t)`` of the inert blocks, Eq (4) of Yaras et al. (2023), all layers at once.

    Parameters
    ----------
    layer_scales : sequence of float
        ``rho_l(0) = sigma_l``.
    lr : float
        For the half-sum loss.
    n_steps : int
        Of gradient descent.
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
    """``lambda + max_l P_l(0)``: the first step multiplies the fastest inert scale by ``1 - lr`` times this.

    Parameters
    ----------
    layer_scales : sequence of float
        ``rho_l(0) = sigma_l``.
    weight_decay : float
        ``lambda``.
    """
    return weight_decay + float(others_squared(torch.tensor(list(layer_scales), dtype=torch.float64)).max())


def monotone_lr(layer_scales: Sequence[float], weight_decay: float = 0.0) -> float:
    """Largest rate up to which every ``rho_l`` stays non-negative and never grows: ``1 / (lambda + max_l P_l(0))``.

    The condition that Section 2 of Yaras et al. (2023) leaves out. By induction: while no scale grows, no ``P_l`` does,
    so every factor of Eq (4) stays between 0 and 1. Parameters are those of `largest_factor`.
    """
    return 1.0 / largest_factor(layer_scales, weight_decay)


def bounded_lr(layer_scales: Sequence[float], weight_decay: float = 0.0) -> float:
    """Largest rate up to which no ``|rho_l|`` ever grows, twice `monotone_lr`; sufficient for Proposition 1's bound.

    Parameters are those of `largest_factor`.
    """
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

    Parameters
    ----------
    layer_scale : float
        ``sigma``, of every layer.
    depth : int
        ``L``.
    time : Tensor

    Returns
    -------
    Tensor shaped like `time`
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
    """Proposition 1's bound ``m_hat prod_l sigma_l^2`` on the squared distance, ``m_hat = d - 2 r_hat``.

    Parameters
    ----------
    layer_scales : sequence of float
        ``sigma_l``.
    d : int
    rank_bound : int
        ``r_hat``.
    """
    return (d - 2 * rank_bound) * math.prod(layer_scales) ** 2


def compression_gap(scales: Tensor, d: int, rank_bound: int) -> Tensor:
    """Exact squared distance ``m_hat prod_l rho_l(t)^2`` (Appendix A.2), ``(...)``, from scales ``(..., L)``."""
    return (d - 2 * rank_bound) * scales.prod(dim=-1).square()


# Sharpness


def flattest_sharpness(top: float, depth: int) -> float:
    """Least sharpness of any global minimum, ``L s^(2 - 2/L)`` for a target of largest singular value ``s``.

    Sharpness is the largest eigenvalue of the Hessian of the half-sum loss in the factors; gradient descent of step
    ``lr`` can stay near a minimum only if ``lr`` times it is at most 2 (Mulayoff & Michaeli 2020).
    """
    return float(depth * top ** (2 - 2 / depth))


def minimum_sharpness(factors: Sequence[Array]) -> float:
    """Sharpness at a global minimum of the half-sum loss with all entries observed, where the residual vanishes.

    There the Hessian is ``J^T J``, with the eigenvalues of ``J J^T``, which maps ``X`` to ``sum_l (W_{L:l+1}
    W_{L:l+1}^T) X (W_{l-1:1}^T W_{l-1:1})``.

    Parameters
    ----------
    factors : sequence of ndarray, each (d_l, d_{l-1})
        ``W_1 .. W_L``.

    Returns
    -------
    float
        By Lanczos iterations from a fixed start.
    """
    before, after = [np.eye(factors[0].shape[1])], [np.eye(factors[-1].shape[0])]
    for factor in factors[:-1]:
        before.append(factor @ before[-1])
    for factor in reversed(factors[1:]):
        after.insert(0, after[0] @ factor)
    pairs = [(left @ left.T, right.T @ right) for left, right in zip(after, before, strict=True)]
    shape = (pairs[0][0].shape[0], pairs[0][1].shape[0])

    def curvature(direction: Array) -> Any:
        matrix = direction.reshape(shape)
        return sum(left @ matrix @ right for left, right in pairs).ravel()  # type: ignore[union-attr]

    first = np.random.default_rng(0).standard_normal(shape[0] * shape[1])
    operator = LinearOperator((first.size, first.size), matvec=curvature, dtype=np.float64)
    return float(eigsh(operator, k=1, return_eigenvectors=False, v0=first)[0])
