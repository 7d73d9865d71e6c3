"""A recorder of the outer frames of a compressed factorization: how well they hold the target, and their shape."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from dmfkit.problems import Problem
from dmfkit.record import Snapshot
from dmfkit.spectra import leading_singular_vectors


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
    return torch.linalg.svdvals(basis - other @ (other.mT @ basis)).clamp(max=1.0)


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
        truth = snapshot.problem.ground_truth
        if truth is None:
            raise ValueError("FrameGeometry needs a problem whose ground truth is known")
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
    if problem.ground_truth is None:
        raise ValueError("this problem's ground truth is not known")
    return leading_singular_vectors(problem.ground_truth, rank)
