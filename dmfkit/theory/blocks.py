"""Theorem 1 of Yaras et al. (2023) as its proof builds it: inert space, frames, and the blocks through training.

`dmfkit.factorizations.compression` finds the same frames in thin matrices for training. Here everything is dense and
follows Appendix A.1 step by step, so that the one can be held against the other; and nothing needs the theorem's
hypotheses, so that a control which lacks one of them can be looked at in the same frames.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from dmfkit.errors import InputError


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
    return right[int((values > rtol * values[0]).sum()) :].mT


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
