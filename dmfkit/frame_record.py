"""A recorder that looks at any run through the invariant frames of one orthogonal start."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from dmfkit.compression import InvariantFrames, invariant_frames
from dmfkit.problems import Problem, full_observation
from dmfkit.record import Snapshot
from dmfkit.starts import OrthogonalStart


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
        if snapshot.problem.ground_truth is None:
            raise ValueError("FrameCoordinates needs a problem whose ground truth is known")
        frames = _frames(self, snapshot.problem)
        left, right = frames.left[0], frames.right[0]
        coordinates = left.mT @ snapshot.end_to_end @ right
        rest = snapshot.end_to_end - left @ coordinates @ right.mT
        return {"coordinate": coordinates, "outside": torch.linalg.matrix_norm(rest)}


@lru_cache(maxsize=2)
def _frames(recorder: FrameCoordinates, problem: Problem) -> InvariantFrames:
    # A problem is hashed by the identity of its tensors: the frames are made once a run.
    truth = full_observation(problem.ground_truth)  # type: ignore[arg-type]
    start = OrthogonalStart(recorder.depth, recorder.layer_scale, recorder.seed).full(truth)
    return invariant_frames(start, truth.values, recorder.rank_bound)
