"""Compressed deep matrix factorizations (Yaras et al. 2023): all that gradient descent learns, in narrow matrices.

From an orthogonal start with square factors ``W_l(0) = sigma_l Q_l`` and a target of rank at most ``r_hat``, gradient
descent moves every layer inside a subspace of dimension ``2 r_hat`` and multiplies the rest by one number ``rho_l(t)``
(Theorem 1). `invariant_frames` finds orthonormal bases of those subspaces, `compress` the cores between them, and
`expand` gives the full factors back.

The code released with the paper takes its frames from the first layer's gradient at the start, see `gradient_frames`.
The theorem takes ``Psi = W_{L:2}(0)^T Phi``, the code ``G = W_{L:2}(0)^T [Omega * (W(0) - Phi)]``, which holds the
start, too. Two of the code's three versions span the same subspace in exact arithmetic; `stacked` is the third.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from dmfkit.errors import InputError
from dmfkit.factorizations.factorization import Factorization
from dmfkit.linalg.low_rank import LowRank
from dmfkit.linalg.orthogonal import FastLayers, FastOrthogonal
from dmfkit.linalg.spectra import leading_singular_vectors
from dmfkit.problems.losses import Problem

if TYPE_CHECKING:
    from scipy.sparse import csr_array

# Departure of W^T W from a multiple of the identity, in rounding units, up to which a factor counts as orthogonal.
ORTHOGONALITY = 1e4


@dataclass(frozen=True)
class InvariantFrames:
    """Orthonormal bases of the subspaces in which the layers learn, Theorem 1 of Yaras et al. (2023).

    Attributes
    ----------
    frames : tuple of Tensor, each (runs, d, 2 r_hat)
        ``frames[0]`` holds the first columns ``V_{1,1}`` of ``V_1``, ``frames[l]`` those of ``U_l = V_{l+1}``.
    layer_scales : Tensor of shape (runs, L)
        ``sigma_l``.
    """

    frames: tuple[Tensor, ...]
    layer_scales: Tensor

    @property
    def right(self) -> Tensor:
        """``V_{1,1}``, ``(runs, d, 2 r_hat)``."""
        return self.frames[0]

    @property
    def left(self) -> Tensor:
        """``U_{L,1}``, ``(runs, d, 2 r_hat)``."""
        return self.frames[-1]

    @property
    def size(self) -> int:
        """Width ``2 r_hat`` of the cores."""
        return self.frames[0].shape[-1]

    def to(self, device: torch.device | str, dtype: torch.dtype) -> InvariantFrames:
        """Copy on another device or in another precision."""
        return InvariantFrames(
            tuple(frame.to(device, dtype) for frame in self.frames), self.layer_scales.to(device, dtype)
        )


def layer_scales(start: Factorization | FastLayers) -> Tensor:
    """Scales ``sigma_l`` of an orthogonally initialised factorization with square factors, ``(runs, L)``.

    Raises
    ------
    InputError
        If the factors are not square and of one size, or one is not a positive multiple of an orthogonal matrix.
    """
    if isinstance(start, FastLayers):
        return start.scales
    if len(set(start.widths)) != 1:
        raise InputError(
            f"factors of widths {start.widths} have no invariant frames: Theorem 1 needs square factors of one size."
        )
    scales = []
    eye = torch.eye(start.widths[0], dtype=start.state.dtype, device=start.state.device)
    for number, factor in enumerate(start.factors, start=1):
        scale = torch.linalg.matrix_norm(factor) / start.widths[0] ** 0.5
        unit = factor / scale.clamp(min=torch.finfo(factor.dtype).tiny)[:, None, None]
        if not bool((unit.mT @ unit - eye).abs().amax() <= ORTHOGONALITY * torch.finfo(factor.dtype).eps):
            raise InputError(
                f"factor {number} is not a multiple of an orthogonal matrix: compression starts from an orthogonal "
                "initialisation, as initialise('orthogonal', ...) or OrthogonalStart gives."
            )
        scales.append(scale)
    return torch.stack(scales, dim=1)


def check_rank_bound(d: int, rank_bound: int) -> None:
    """Raise `InputError` unless ``0 < 2 r_hat < d``."""
    if not 0 < 2 * rank_bound < d:
        raise InputError(
            f"rank_bound = {rank_bound} is not allowed for {d} x {d} matrices: choose from 1 to {(d - 1) // 2}, "
            "so that 0 < 2 * rank_bound < d."
        )


def _factors(start: Factorization | FastLayers) -> tuple[Tensor | FastOrthogonal, ...]:
    """What all that follows does with factors is to multiply narrow matrices by them."""
    return start.factors


def carried(start: Factorization | FastLayers, scales: Tensor, first: Tensor) -> tuple[Tensor, ...]:
    """Frame ``first`` of the first layer and those of the later ones, ``W_l(0) / sigma_l`` times the one before."""
    frames, factors = [first], _factors(start)
    for factor, scale in zip(factors, scales.unbind(dim=1), strict=True):
        frames.append(factor @ frames[-1] / scale[:, None, None])
    return tuple(frames)


def invariant_frames(
    start: Factorization | FastLayers, target: Tensor | csr_array | LowRank, rank_bound: int
) -> InvariantFrames:
    """Frames of Theorem 1 of Yaras et al. (2023), at the cost of a few products with narrow matrices.

    The inert directions of the first layer are ``N(Psi) & N(Psi^T W_1(0))`` with ``Psi = W_{L:2}(0)^T Phi``; since all
    factors are multiples of orthogonal matrices, what is orthogonal to them is spanned by the right singular vectors
    of ``Phi`` and by ``W_{L:1}(0)^T`` times its left ones. Both are taken at one scale. Later frames are
    ``W_l(0) / sigma_l`` times earlier ones.

    Parameters
    ----------
    start : Factorization or FastLayers
        Square factors, each a multiple of an orthogonal matrix.
    target : Tensor, sparse array or LowRank, of shape (d, d)
        ``Phi``. If its rank exceeds `rank_bound`, its leading part counts.
    rank_bound : int
        ``r_hat``.

    Raises
    ------
    InputError
        If ``0 < 2 r_hat < d`` does not hold, or `start` is not as described.
    """
    check_rank_bound(start.widths[0], rank_bound)
    scales = layer_scales(start)
    left, _, right = leading_singular_vectors(target, rank_bound)
    # Layers that are never formed work in double precision on the CPU.
    like = scales if isinstance(start, FastLayers) else start.state
    left, right = left.to(like), right.to(like)
    reached = left.expand(start.n_runs, -1, -1)
    for factor, scale in zip(reversed(_factors(start)), reversed(scales.unbind(dim=1)), strict=True):
        reached = factor.mT @ reached / scale[:, None, None]
    first = torch.linalg.qr(torch.cat([right.expand(start.n_runs, -1, -1), reached], dim=-1))[0]
    return InvariantFrames(carried(start, scales, first), scales)


def frames_target(problem: Problem, source: str = "observed") -> Tensor | csr_array | LowRank:
    """Matrix from which frames are computed: what is observed, zero elsewhere, or the ground truth.

    Raises
    ------
    InputError
        If the problem does not observe entries, or its ground truth is asked for and unknown.
    """
    if source != "truth":
        return problem.observed_matrix()
    if problem.truth is None:
        raise InputError("frames_from = 'truth' needs a problem whose ground truth is known: choose 'observed'.")
    return problem.truth


def completed_frames(start: Factorization, frames: InvariantFrames) -> tuple[Tensor, ...]:
    """The frames completed to the orthogonal matrices ``V_1, U_1 = V_2, .., U_L`` of Theorem 1, ``(runs, d, d)`` each.

    Dense, for looking at small examples: training needs only the narrow frames.
    """
    size = frames.size
    # Householder QR of the narrow frame gives an orthonormal basis of its complement in the remaining columns.
    whole = torch.linalg.qr(frames.right, mode="complete")[0]
    rest = carried(start, frames.layer_scales, whole[..., size:])
    return tuple(torch.cat([frame, more], dim=-1) for frame, more in zip(frames.frames, rest, strict=True))


def compress(factorization: Factorization | FastLayers, frames: InvariantFrames) -> Factorization:
    """Cores ``U_{l,1}^T W_l V_{l,1}``, all ``2 r_hat x 2 r_hat``, Eq (5) of Yaras et al. (2023)."""
    pairs = zip(_factors(factorization), pairwise(frames.frames), strict=True)
    return Factorization.from_factors([left.mT @ (factor @ right) for factor, (right, left) in pairs])


def with_frames(cores: Factorization, frames: InvariantFrames) -> Factorization:
    """Cores between their outer frames: factors ``V_{1,1}^T, W_1, .., W_L, U_{L,1}`` whose product is Eq (5)."""
    return Factorization.from_factors([frames.right.mT.contiguous(), *cores.factors, frames.left])


def expand(cores: Factorization, frames: InvariantFrames, start: Factorization, middle_scales: Tensor) -> Factorization:
    """Full factors, Eq (3) of Yaras et al. (2023), from cores and ``rho_l``.

    Since ``W_l(0) = sigma_l U_l V_l^T``, the inert part needs no basis of its own:
    ``W_l = (rho_l / sigma_l) W_l(0) + U_{l,1} (core_l - rho_l I) V_{l,1}^T``.

    Parameters
    ----------
    cores : Factorization
    frames : InvariantFrames
    start : Factorization
        The initial full factors.
    middle_scales : Tensor of shape (runs, L)
        ``rho_l``, see `dmfkit.theory.middle_scales`.
    """
    eye = torch.eye(frames.size, dtype=start.state.dtype, device=start.state.device)
    full = []
    for layer, (initial, core) in enumerate(zip(start.factors, cores.factors, strict=True)):
        rho = middle_scales[:, layer, None, None]
        inner = frames.frames[layer + 1] @ (core - rho * eye) @ frames.frames[layer].mT
        full.append(initial * (rho / frames.layer_scales[:, layer, None, None]) + inner)
    return Factorization.from_factors(full)


def project(problem: Problem, frames: InvariantFrames) -> Problem:
    """See a fully observed target through the frames of one run, Eq (6) of Yaras et al. (2023).

    Raises
    ------
    InputError
        If the frames are those of several runs, or not every entry is observed.
    """
    if frames.right.shape[0] != 1:
        raise InputError(
            f"frames of {frames.right.shape[0]} runs were given: every run has a projected problem of its own."
        )
    projected = problem.projected(frames.left[0], frames.right[0])
    if projected is None:
        raise InputError("only a target that is observed in full can be projected: train with its frames as factors.")
    return projected


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
