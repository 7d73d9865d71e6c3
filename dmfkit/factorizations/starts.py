"""Where a run starts, as plain values: depth, widths, initial factors, and the rates at which factors move.

A start is a frozen dataclass of numbers and words, so that a sweep can vary any of its fields and a stored result can
name it. What it makes for a problem is an `InitialPoint`.
"""

from __future__ import annotations

import math
from collections.abc import Hashable
from dataclasses import dataclass, field, replace
from typing import Literal, Protocol

import torch

from dmfkit.errors import InputError
from dmfkit.factorizations.compression import compress, frames_target, invariant_frames, with_frames
from dmfkit.factorizations.factorization import Factorization, full_widths
from dmfkit.factorizations.initialisation import initialise, orthogonal_factors
from dmfkit.linalg.orthogonal import FastLayers, fast_layers
from dmfkit.problems.losses import Problem
from dmfkit.values import ADDED_LATER, plain_value


@dataclass(frozen=True)
class InitialPoint:
    """Where training starts.

    Attributes
    ----------
    problem : Problem
        The problem that the factorization is trained on: the one that was given, unless this is a `ProjectedPoint`.
    factorization : Factorization
        One run.
    factor_rates : tuple of float
        Multipliers of the learning rate for ``W_1 .. W_N``; empty means all one.
    """

    problem: Problem
    factorization: Factorization
    factor_rates: tuple[float, ...] = ()


@dataclass(frozen=True)
class ProjectedPoint(InitialPoint):
    """An initial point of another problem than the one that was given: that one, projected on fixed frames.

    The frames belong to one start, so runs from different ones do not share the problem.
    """


class AnyStart(Protocol):
    """Plain values from which an initial point is made."""

    @property
    def seed(self) -> int:
        """Draws the initial factors."""

    def widths(self, shape: tuple[int, int]) -> tuple[int, ...]:
        """Widths ``(d_0, .., d_N)`` of the factorization of a matrix of this shape.

        Raises `InputError` for values that no factorization can have.
        """

    @property
    def shared(self) -> Hashable:
        """What runs must have in common, besides widths, to train as one batch."""

    def begin(self, problem: Problem) -> InitialPoint:
        """Make the initial factors, on the problem's device and in its precision; maybe a `ProjectedPoint`."""


@plain_value
@dataclass(frozen=True)
class Start:
    """Depth and initial factors.

    Attributes
    ----------
    depth : int
        Number ``N`` of factors.
    init : {"gaussian", "identity", "orthogonal", "balanced"}
    init_scale : float
        Frobenius norm of the initial product matrix (Gaussian: its root mean square).
    seed : int
    hidden_width : int, optional
        Width of every hidden layer; ``None`` takes the least that does not limit the rank.
    """

    depth: int = 3
    init: str = "gaussian"
    init_scale: float = 1e-3
    seed: int = 0
    hidden_width: int | None = None

    def widths(self, shape: tuple[int, int]) -> tuple[int, ...]:
        return full_widths(shape, self.depth, self.hidden_width)

    @property
    def shared(self) -> Hashable:
        return replace(self, seed=0, init_scale=1.0)

    def begin(self, problem: Problem) -> InitialPoint:
        made = initialise(
            self.init,  # type: ignore[arg-type]
            self.widths(problem.shape),
            [self.init_scale],
            [self.seed],
            device=problem.device,
            dtype=problem.dtype,
        )
        return InitialPoint(problem, made)


@plain_value
@dataclass(frozen=True)
class OrthogonalStart:
    """Scaled orthogonal factors (Yaras et al. 2023, Section 2); narrow hidden layers are semi-orthogonal.

    Attributes
    ----------
    depth : int
    layer_scale : float or tuple of float
        ``sigma_l``, every singular value of the initial factor ``W_l``: one for all layers, or one each.
    seed : int
    hidden_width : int, optional
        Width of every hidden layer; ``None`` takes the least that does not limit the rank.
    orthogonal : {"uniform", "cosine"}
        Distribution of the orthogonal matrices: uniform, or that of `FastOrthogonal`, for square factors.
    """

    depth: int = 3
    layer_scale: float | tuple[float, ...] = 1e-3
    seed: int = 0
    hidden_width: int | None = None
    orthogonal: Literal["uniform", "cosine"] = field(default="uniform", metadata=ADDED_LATER)

    @property
    def layer_scales(self) -> tuple[float, ...]:
        """``(sigma_1, .., sigma_L)``."""
        return self.layer_scale if isinstance(self.layer_scale, tuple) else (self.layer_scale,) * self.depth

    def check(self) -> None:
        """Raise `InputError` for values that no factors can have, whatever the shape."""
        if len(self.layer_scales) != self.depth:
            raise InputError(
                f"{len(self.layer_scales)} layer scales were given for depth {self.depth}: give one, or one per layer."
            )
        for scale in self.layer_scales:
            if not (math.isfinite(scale) and scale > 0):
                raise InputError(f"layer_scale = {scale} is not allowed: it must be a positive finite number.")
        if self.orthogonal not in ("uniform", "cosine"):
            raise InputError(f"orthogonal = {self.orthogonal!r} is not allowed: choose 'uniform' or 'cosine'.")

    def widths(self, shape: tuple[int, int]) -> tuple[int, ...]:
        self.check()
        widths = full_widths(shape, self.depth, self.hidden_width)
        if self.orthogonal == "cosine" and len(set(widths)) != 1:
            raise InputError(
                f"orthogonal = 'cosine' is not allowed for widths {widths}: it makes square factors; choose 'uniform'."
            )
        return widths

    @property
    def shared(self) -> Hashable:
        return replace(self, seed=0, layer_scale=1.0)

    def fast(self, d: int) -> FastLayers:
        """Return the initial factors of ``orthogonal = 'cosine'``, never formed."""
        return fast_layers(d, self.layer_scales, self.seed)

    def full(self, problem: Problem) -> Factorization:
        """Return the initial factors of the layers themselves, one run."""
        widths = self.widths(problem.shape)
        if self.orthogonal == "cosine":
            eye = torch.eye(widths[0], dtype=torch.float64)
            scaled = [layer @ eye for layer in self.fast(widths[0]).factors]
        else:
            frames = orthogonal_factors(widths, self.seed)
            scaled = [scale * frame for scale, frame in zip(self.layer_scales, frames, strict=True)]
        return Factorization.from_factors([one.unsqueeze(0).to(problem.device, problem.dtype) for one in scaled])

    def begin(self, problem: Problem) -> InitialPoint:
        return InitialPoint(problem, self.full(problem))


@plain_value
@dataclass(frozen=True)
class CompressedStart:
    """The compressed factorization, Eq (5) of Yaras et al. (2023), of an orthogonal start at full width.

    With fixed frames and every entry observed, the cores alone are trained on the projected target, and no matrix of
    the problem's size is ever formed. Otherwise the frames are the first and the last of ``depth + 2`` factors.

    Attributes
    ----------
    depth, layer_scale, seed
        Of the `OrthogonalStart` that is compressed.
    rank_bound : int
        ``r_hat``, an upper bound of the target's rank; the cores are ``2 r_hat x 2 r_hat``.
    discrepant_rate : float
        ``gamma``: the frames move at ``gamma`` times the learning rate. At 0 they are fixed.
    frames_from : {"observed", "truth"}
        Which matrix the frames are computed from: the observed entries with zeros elsewhere, as one has them, or, as a
        control, the ground truth.
    orthogonal : {"uniform", "cosine"}
        Of the `OrthogonalStart`. With ``cosine`` its factors are never formed: memory and time are of order ``d``.
    """

    depth: int = 3
    layer_scale: float | tuple[float, ...] = 1e-3
    seed: int = 0
    rank_bound: int = 5
    discrepant_rate: float = 0.0
    frames_from: Literal["observed", "truth"] = "observed"
    orthogonal: Literal["uniform", "cosine"] = field(default="uniform", metadata=ADDED_LATER)

    @property
    def wide(self) -> OrthogonalStart:
        """The start at full width."""
        return OrthogonalStart(self.depth, self.layer_scale, self.seed, orthogonal=self.orthogonal)

    def widths(self, shape: tuple[int, int]) -> tuple[int, ...]:
        self.wide.check()
        if self.orthogonal == "uniform":
            self.wide.widths(shape)  # its factors are formed, so they must fit
        if shape[0] != shape[1] or not 0 < 2 * self.rank_bound < shape[0]:
            raise InputError(
                f"rank_bound = {self.rank_bound} is not allowed for a {shape[0]} x {shape[1]} matrix: compression "
                "needs a square matrix and 0 < 2 * rank_bound < d."
            )
        if not (math.isfinite(self.discrepant_rate) and self.discrepant_rate >= 0):
            raise InputError(
                f"discrepant_rate = {self.discrepant_rate} is not allowed: it must be at least 0 and finite."
            )
        if self.frames_from not in ("observed", "truth"):
            raise InputError(f"frames_from = {self.frames_from!r} is not allowed: choose 'observed' or 'truth'.")
        size = 2 * self.rank_bound
        return (shape[1], *([size] * (self.depth + 1)), shape[0])

    @property
    def shared(self) -> Hashable:
        # Fixed frames make a problem of their own.
        return self if self.discrepant_rate == 0 else replace(self, seed=0, layer_scale=1.0)

    def begin(self, problem: Problem) -> InitialPoint:
        self.widths(problem.shape)
        wide = self.wide.fast(problem.shape[0]) if self.orthogonal == "cosine" else self.wide.full(problem)
        frames = invariant_frames(wide, frames_target(problem, self.frames_from), self.rank_bound)
        frames = frames.to(problem.device, problem.dtype)
        cores = compress(wide, frames)
        fixed = self.discrepant_rate == 0
        if fixed and (projected := problem.projected(frames.left[0], frames.right[0])) is not None:
            return ProjectedPoint(projected, cores)
        rates = (self.discrepant_rate, *([1.0] * self.depth), self.discrepant_rate)
        return InitialPoint(problem, with_frames(cores, frames), rates)
