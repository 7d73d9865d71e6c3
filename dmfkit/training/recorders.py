"""What is kept along a trajectory, and when.

A recorder is a frozen dataclass, so that it can stand in the key of a stored result. Called with a `Snapshot`, it
returns named tensors whose first dimension is the run; `dims` names the others.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

import torch
from torch import Tensor

from dmfkit.errors import InputError
from dmfkit.factorizations.compression import InvariantFrames, invariant_frames
from dmfkit.factorizations.factorization import Factorization
from dmfkit.factorizations.starts import OrthogonalStart
from dmfkit.linalg import spectra
from dmfkit.linalg.spectra import leading_singular_vectors
from dmfkit.problems.losses import Problem, full_observation
from dmfkit.training.snapshot import Snapshot
from dmfkit.values import plain_value

# The groups of `AlignmentGroups`: on the diagonal, then off it.
GROUPS = (
    "diagonal, leading",
    "diagonal, trailing",
    "off it, both indices leading",
    "off it, one leading",
    "off it, both trailing",
)


class Recorder(Protocol):
    """Turns a snapshot into named quantities."""

    @property
    def dims(self) -> Mapping[str, tuple[str, ...]]:
        """Name of every quantity and the dimensions that it has besides run and moment."""

    def __call__(self, snapshot: Snapshot) -> dict[str, Tensor]:
        """Return tensors ``(runs, ...)`` by name."""


class Comparable(Recorder, Protocol):
    """A recorder that also says how large its quantities are by nature: whatever a stored result holds is one.

    A quantity can be nothing but rounding, as an angle is between equal spaces. Relative to itself it differs from
    processor to processor; relative to its magnitude it may not.
    """

    def magnitudes(self, problem: Problem) -> Mapping[str, float]:
        """Name of every quantity and how large it is for matrices like the one that is to be found.

        Scales with the problem's matrix as the quantity itself does: 1 for angles, shares and relative errors, the
        norm of the matrix for its singular values.
        """


def gradient_magnitude(problem: Problem) -> float:
    """Frobenius norm of the loss's gradient at the zero matrix, where training from a small start begins."""
    zero = torch.zeros(1, *problem.shape, dtype=problem.dtype, device=problem.device)
    return float(torch.linalg.matrix_norm(problem.lift(problem.gradient(zero))))


@plain_value
@dataclass(frozen=True)
class Loss:
    """Mean squared residual over the observations, whatever the problem's own normalisation."""

    @property
    def dims(self) -> Mapping[str, tuple[str, ...]]:
        return {"mean_square": ()}

    def magnitudes(self, problem: Problem) -> Mapping[str, float]:
        return {"mean_square": float(problem.observed_values.square().sum()) / problem.n_observations}

    def __call__(self, snapshot: Snapshot) -> dict[str, Tensor]:
        return {"mean_square": snapshot.mean_square}


@plain_value
@dataclass(frozen=True)
class RelativeError:
    """Reconstruction error ``||W - W*||_F^2 / ||W*||_F^2`` (Arora et al. 2019, Appendix D.2)."""

    @property
    def dims(self) -> Mapping[str, tuple[str, ...]]:
        return {"relative_error": ()}

    def magnitudes(self, problem: Problem) -> Mapping[str, float]:  # noqa: ARG002
        return {"relative_error": 1.0}

    def __call__(self, snapshot: Snapshot) -> dict[str, Tensor]:
        error = snapshot.relative_error
        if error is None:
            raise InputError("RelativeError needs a problem whose ground truth is known, and this one's is not.")
        return {"relative_error": error}


@plain_value
@dataclass(frozen=True)
class SingularValues:
    """The `count` largest singular values of the product matrix."""

    count: int = 10

    @property
    def dims(self) -> Mapping[str, tuple[str, ...]]:
        return {"singular_value": ("index",)}

    def magnitudes(self, problem: Problem) -> Mapping[str, float]:
        return {"singular_value": problem.magnitude}

    def __call__(self, snapshot: Snapshot) -> dict[str, Tensor]:
        return {"singular_value": snapshot.singular_values[:, : self.count]}


@plain_value
@dataclass(frozen=True)
class EffectiveRank:
    """Effective rank of the product matrix (Roy & Vetterli 2007)."""

    @property
    def dims(self) -> Mapping[str, tuple[str, ...]]:
        return {"effective_rank": ()}

    def magnitudes(self, problem: Problem) -> Mapping[str, float]:  # noqa: ARG002
        return {"effective_rank": 1.0}

    def __call__(self, snapshot: Snapshot) -> dict[str, Tensor]:
        return {"effective_rank": spectra.effective_rank(snapshot.singular_values)}


@plain_value
@dataclass(frozen=True)
class Alignment:
    """Mean and spread of the entries of ``|U^T grad l(W) V|`` on and off the diagonal (Corollary 1, Figure 3).

    The gradient is that of the problem's own loss, and ``U, V`` are the thin singular vectors of the product matrix.
    """

    @property
    def dims(self) -> Mapping[str, tuple[str, ...]]:
        return {"alignment_mean": ("place",), "alignment_std": ("place",), "alignment_off_share": ()}

    def magnitudes(self, problem: Problem) -> Mapping[str, float]:
        largest = gradient_magnitude(problem)
        return {"alignment_mean": largest, "alignment_std": largest, "alignment_off_share": 1.0}

    def __call__(self, snapshot: Snapshot) -> dict[str, Tensor]:
        left, _, right = snapshot.svd
        rotated = left.mT @ snapshot.gradient @ right.mT
        on, off = spectra.split_diagonal(rotated.abs())
        share = off.square().sum(dim=-1) / (on.square().sum(dim=-1) + off.square().sum(dim=-1))
        return {
            "alignment_mean": torch.stack([on.mean(dim=-1), off.mean(dim=-1)], dim=-1),
            "alignment_std": torch.stack([on.std(dim=-1), off.std(dim=-1)], dim=-1),
            "alignment_off_share": share.sqrt(),
        }


@plain_value
@dataclass(frozen=True)
class AlignmentGroups:
    """Which entries of ``U^T grad l(W) V`` hold its norm, by whether their indices are among the `rank` leading ones.

    Shares of the squared Frobenius norm and mean absolute entries of the five groups of `GROUPS`, in that order. A
    group without entries has share and mean zero.
    """

    rank: int

    @property
    def dims(self) -> Mapping[str, tuple[str, ...]]:
        return {"group_share": ("group",), "group_mean": ("group",)}

    def magnitudes(self, problem: Problem) -> Mapping[str, float]:
        return {"group_share": 1.0, "group_mean": gradient_magnitude(problem)}

    def __call__(self, snapshot: Snapshot) -> dict[str, Tensor]:
        left, _, right = snapshot.svd
        rotated = left.mT @ snapshot.gradient @ right.mT
        size = rotated.shape[-1]
        on = torch.eye(size, dtype=torch.bool, device=rotated.device)
        leading = torch.arange(size, device=rotated.device) < self.rank
        both, either = leading[:, None] & leading, leading[:, None] | leading
        masks = torch.stack([on & leading, on & ~leading, both & ~on, either & ~both, ~either & ~on]).to(rotated.dtype)
        squares = torch.einsum("rij,gij->rg", rotated.square(), masks)
        sums = torch.einsum("rij,gij->rg", rotated.abs(), masks)
        return {
            "group_share": squares / squares.sum(dim=-1, keepdim=True),
            "group_mean": sums / masks.sum(dim=(-2, -1)).clamp(min=1.0),
        }


@plain_value
@dataclass(frozen=True)
class HeldOutError:
    """Root mean square error on the held-out entries, in the matrix's own units."""

    @property
    def dims(self) -> Mapping[str, tuple[str, ...]]:
        return {"held_out_rmse": ()}

    def magnitudes(self, problem: Problem) -> Mapping[str, float]:
        return {"held_out_rmse": problem.magnitude / math.sqrt(problem.n_observations)}

    def __call__(self, snapshot: Snapshot) -> dict[str, Tensor]:
        error = snapshot.held_out_rmse
        if error is None:
            raise InputError("HeldOutError needs a completion problem with held-out entries, and this one has none.")
        return {"held_out_rmse": error}


@plain_value
@dataclass(frozen=True)
class UnobservedError:
    """Half the squared error on the entries that are not observed, divided by the number of all entries.

    The recovery error of the code released with Yaras et al. (2023).
    """

    @property
    def dims(self) -> Mapping[str, tuple[str, ...]]:
        return {"unobserved_error": ()}

    def magnitudes(self, problem: Problem) -> Mapping[str, float]:
        return {"unobserved_error": 0.5 * problem.magnitude**2 / math.prod(problem.shape)}

    def __call__(self, snapshot: Snapshot) -> dict[str, Tensor]:
        truth, mask = snapshot.problem.known_ground_truth("UnobservedError"), snapshot.problem.mask
        if mask is None:
            raise InputError("UnobservedError needs a completion problem, some of whose entries are not observed.")
        wrong = (snapshot.end_to_end - truth) * (1.0 - mask)
        return {"unobserved_error": 0.5 * wrong.square().mean(dim=(-2, -1))}


@plain_value
@dataclass(frozen=True)
class Factors:
    """The factors themselves, of one shape; for small examples, whose theorems speak of every weight."""

    @property
    def dims(self) -> Mapping[str, tuple[str, ...]]:
        return {"factor": ("layer", "row", "column")}

    def magnitudes(self, problem: Problem) -> Mapping[str, float]:
        # The product of N such factors, for every N.
        return {"factor": max(1.0, problem.magnitude)}

    def __call__(self, snapshot: Snapshot) -> dict[str, Tensor]:
        return {"factor": torch.stack(snapshot.factorization.factors, dim=1)}


@plain_value
@dataclass(frozen=True)
class TargetCoordinates:
    """Coordinates of the product matrix in the leading singular vectors of the target and of what is observed of it.

    ``B_U^T W B_V`` with ``B_U`` an orthonormal basis of the `count` leading left singular vectors of the ground truth
    and, for completion, of the observed matrix with zeros elsewhere; ``B_V`` the same of right ones. Training from a
    small start hardly leaves these few directions: ``coordinate_share`` is the share of ``||W||_F^2`` in them.
    """

    count: int

    @property
    def dims(self) -> Mapping[str, tuple[str, ...]]:
        return {"coordinate": ("row", "column"), "coordinate_share": ()}

    def magnitudes(self, problem: Problem) -> Mapping[str, float]:
        return {"coordinate": problem.magnitude, "coordinate_share": 1.0}

    def __call__(self, snapshot: Snapshot) -> dict[str, Tensor]:
        left, right = target_bases(snapshot.problem, self.count)
        coordinates = left.mT @ snapshot.end_to_end @ right
        share = coordinates.square().sum(dim=(-2, -1)) / snapshot.end_to_end.square().sum(dim=(-2, -1))
        return {"coordinate": coordinates, "coordinate_share": share}


@lru_cache(maxsize=2)
def target_bases(problem: Problem, count: int) -> tuple[Tensor, Tensor]:
    """Bases ``B_U, B_V`` of `TargetCoordinates`, each ``(d, count)`` or, for completion, ``(d, 2 count)``.

    A problem is hashed by its identity: the bases are computed once a run.
    """
    truth = problem.known_ground_truth("TargetCoordinates")
    parts = [leading_singular_vectors(truth, count)]
    if problem.mask is not None:
        parts.append(leading_singular_vectors(problem.observed_matrix(), count))
    left = torch.cat([vectors.to(truth) for vectors, _, _ in parts], dim=-1)
    right = torch.cat([vectors.to(truth) for _, _, vectors in parts], dim=-1)
    return torch.linalg.qr(left)[0], torch.linalg.qr(right)[0]


class Log:
    """Collects what recorders return, for runs that may end before the last moment.

    Runs that have ended leave ``nan`` behind.
    """

    def __init__(self, recorders: tuple[Recorder, ...], n_runs: int, n_moments: int) -> None:
        self._recorders = recorders
        self._shape = (n_runs, n_moments)
        self.data: dict[str, Tensor] = {}

    def write(self, moment: int, runs: Tensor, problem: Problem, factorization: Factorization) -> None:
        """Record `factorization`, whose rows belong to the runs numbered `runs`, as number `moment`."""
        snapshot = Snapshot(problem, factorization)
        for recorder in self._recorders:
            for name, value in recorder(snapshot).items():
                if name not in self.data:
                    self.data[name] = value.new_full((*self._shape, *value.shape[1:]), torch.nan)
                self.data[name][runs, moment] = value


def principal_sines(subspace: Tensor, within: Tensor) -> Tensor:
    """Sines of the principal angles between two column spaces, ``(..., k)``, descending.

    From ``(I - P) B``, not from cosines: small angles keep their digits.

    Parameters
    ----------
    subspace : Tensor of shape (..., d, k)
        Spans the smaller space.
    within : Tensor of shape (..., d, m)
        Spans the other one, ``m >= k``.
    """
    basis, other = torch.linalg.qr(subspace)[0], torch.linalg.qr(within)[0]
    result: Tensor = torch.linalg.svdvals(basis - other @ (other.mT @ basis)).clamp(max=1.0)
    return result


@plain_value
@dataclass(frozen=True)
class FrameGeometry:
    """The first and last factor of a compressed factorization, Eq (8) of Yaras et al. (2023), as frames.

    ``missed`` is ``||Phi - P_U Phi P_V||_F^2 / ||Phi||_F^2`` with the orthogonal projections on their column spaces: no
    product with these frames has a smaller relative error. ``angle`` is the largest principal angle, in radians, from
    the target's row and column spaces to theirs, and ``departure`` the largest of ``||U^T U - I||_2, ||V^T V - I||_2``.

    Attributes
    ----------
    rank : int
        Rank of the target.
    """

    rank: int

    @property
    def dims(self) -> Mapping[str, tuple[str, ...]]:
        return {"missed": (), "angle": (), "departure": ()}

    def magnitudes(self, problem: Problem) -> Mapping[str, float]:  # noqa: ARG002
        return {"missed": 1.0, "angle": 1.0, "departure": 1.0}

    def __call__(self, snapshot: Snapshot) -> dict[str, Tensor]:
        truth = snapshot.problem.known_ground_truth("FrameGeometry")
        columns, _, rows = target_vectors(snapshot.problem, self.rank)
        frames = (snapshot.factorization.factors[-1], snapshot.factorization.factors[0].mT)
        eye = torch.eye(frames[0].shape[-1], dtype=truth.dtype, device=truth.device)
        departure = [torch.linalg.matrix_norm(frame.mT @ frame - eye, 2) for frame in frames]
        bases = (columns.expand(len(frames[0]), -1, -1), rows.expand(len(frames[1]), -1, -1))
        sines = [principal_sines(base, frame)[:, 0] for base, frame in zip(bases, frames, strict=True)]
        left, right = (torch.linalg.qr(frame)[0] for frame in frames)
        rest = truth - left @ (left.mT @ truth @ right) @ right.mT
        return {
            "missed": rest.square().sum(dim=(-2, -1)) / truth.square().sum(),
            "angle": torch.maximum(*sines).asin(),
            "departure": torch.maximum(*departure),
        }


@lru_cache(maxsize=2)
def target_vectors(problem: Problem, rank: int) -> tuple[Tensor, Tensor, Tensor]:
    """Leading left singular vectors, values and right vectors of the ground truth, computed once a run."""
    return leading_singular_vectors(problem.known_ground_truth("FrameGeometry"), rank)


@plain_value
@dataclass(frozen=True)
class FrameCoordinates:
    """The product matrix in the outer frames of Theorem 1 of Yaras et al. (2023), and what lies outside of them.

    ``coordinate`` is ``U_{L,1}^T W V_{1,1}``, ``outside`` the Frobenius norm of ``W - U U^T W V V^T``. The frames are
    those of an orthogonal start at full width and of the ground truth, so that the run at full width and the
    compressed one, recorded with equal fields, have comparable coordinates: the squared distance of two matrices, the
    second of which lies inside, is that of their coordinates plus the first one's ``outside`` squared.

    Attributes
    ----------
    rank_bound : int
        ``r_hat``.
    depth, layer_scale, seed
        Of the `OrthogonalStart`.
    """

    rank_bound: int
    depth: int
    layer_scale: float | tuple[float, ...]
    seed: int

    @property
    def dims(self) -> Mapping[str, tuple[str, ...]]:
        return {"coordinate": ("row", "column"), "outside": ()}

    def magnitudes(self, problem: Problem) -> Mapping[str, float]:
        return {"coordinate": problem.magnitude, "outside": problem.magnitude}

    def __call__(self, snapshot: Snapshot) -> dict[str, Tensor]:
        frames = _frames(self, snapshot.problem)
        left, right = frames.left[0], frames.right[0]
        coordinates = left.mT @ snapshot.end_to_end @ right
        rest = snapshot.end_to_end - left @ coordinates @ right.mT
        return {"coordinate": coordinates, "outside": torch.linalg.matrix_norm(rest)}


@lru_cache(maxsize=2)
def _frames(recorder: FrameCoordinates, problem: Problem) -> InvariantFrames:
    # A problem is hashed by its identity: the frames are made once a run.
    truth = full_observation(problem.known_ground_truth("FrameCoordinates"))
    start = OrthogonalStart(recorder.depth, recorder.layer_scale, recorder.seed).full(truth)
    return invariant_frames(start, truth.values, recorder.rank_bound)
