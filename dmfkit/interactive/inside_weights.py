"""Inside the weights: Theorem 1 of Yaras et al. (2023) under the reader's hands, layer by layer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from torch import Tensor

from dmfkit.errors import InputError
from dmfkit.interactive.explorable import Explorable

# Multiples of the given step size. The last one is far beyond what training stands.
STEP_SIZES = (0.25, 1.0, 4.0, 200.0)


class InsideWeights(Explorable):
    """Every layer of a factorization through training, in the standard basis and in the invariant frames.

    Nothing of the theorem is stored: the page gets the start, the target and the first frame, trains, and measures.

    Parameters
    ----------
    picture : Figure
        What stands in its place without JavaScript.
    target : Tensor of shape (d, d)
        ``Phi``; the loss is half the sum of squares.
    starts : sequence of Tensor, each (d, d)
        Orthogonal ``W_1(0) / sigma_1, W_2(0) / sigma_2, ..``, as many as the largest depth; a depth uses the first.
    first_frames : mapping of int to Tensor of shape (d, d)
        By depth, ``V_1`` of Theorem 1 with the learned directions in front; frames of later layers follow from it.
    learned : int
        How many directions learn, ``2r``.
    mask : Tensor of shape (d, d)
        Entries that are seen where the reader takes some away, 1 or 0.
    layer_scales : mapping of str to sequence of float
        Scales ``sigma_l``, one for each of `starts`, by the name that the reader sees; the first is selected at first.
    lr : float
        Step size.
    weight_decays : sequence of float
        Values of ``lambda`` to choose from; 0 is always there.
    steps : sequence of int
        Moments that can be looked at, ascending from 0.
    depth, step : int
        Selected at first.

    Raises
    ------
    InputError
        If sizes or lists do not fit each other.
    """

    scripts = (
        *("matrix.js", "descent.js", "layer_training.js"),
        *("inside_words.js", "inside_pictures.js", "inside_weights.js"),
    )

    def __init__(
        self,
        picture: Figure,
        *,
        target: Tensor,
        starts: Sequence[Tensor],
        first_frames: Mapping[int, Tensor],
        learned: int,
        mask: Tensor,
        layer_scales: Mapping[str, Sequence[float]],
        lr: float,
        weight_decays: Sequence[float],
        steps: Sequence[int],
        depth: int,
        step: int,
    ) -> None:
        d = target.shape[0]
        depths = sorted(first_frames)
        _check(d, [target, mask, *starts, *first_frames.values()], learned)
        if depth not in depths or not 1 <= min(depths) <= max(depths) == len(starts):
            raise InputError(
                f"depth = {depth} with first frames for {depths} and {len(starts)} starts: give frames for that depth, "
                "and as many starts as the largest depth."
            )
        if any(len(scales) != len(starts) for scales in layer_scales.values()) or not layer_scales:
            raise InputError(f"layer_scales must name at least one list of {len(starts)} scales, one for each start.")
        if step not in steps or list(steps) != sorted(set(steps)) or steps[0] != 0:
            raise InputError(f"step = {step} with steps = {list(steps)}: steps must rise from 0 and have it.")
        settings = {
            "n": d,
            "rank": learned // 2,
            "size": learned,
            "lr": float(lr),
            "moments": [int(one) for one in steps],
            "moment": int(step),
            "depths": depths,
            "depth": int(depth),
            # A list, because a notebook stores the keys of a mapping in alphabetical order.
            "starts": [
                {"name": name, "scales": [float(one) for one in scales]} for name, scales in layer_scales.items()
            ],
            "share": float(mask.double().mean()),
            "weightDecays": sorted({0.0, *map(float, weight_decays)}),
            "stepSizes": list(STEP_SIZES),
        }
        arrays = {
            "target": _array(target),
            "starts": np.stack([_array(one) for one in starts]),
            "first": np.stack([_array(first_frames[one]) for one in depths]),
            "mask": (_array(mask) != 0).astype(np.uint8),
        }
        super().__init__(settings, arrays, picture)


def _array(matrix: Tensor) -> np.ndarray:
    return matrix.detach().cpu().double().numpy()


def _check(d: int, matrices: Sequence[Tensor], learned: int) -> None:
    if any(tuple(matrix.shape) != (d, d) for matrix in matrices):
        raise InputError(f"all matrices must be of the target's size, {d} x {d}.")
    if not 0 < learned < d:
        raise InputError(f"learned = {learned} is not allowed: it must lie between 0 and d = {d}.")
