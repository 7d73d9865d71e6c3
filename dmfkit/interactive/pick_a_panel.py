"""Pick a panel: every run of Figures 1 and 2 of Arora et al. (2019) under the reader's hands."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import xarray as xr
from matplotlib.figure import Figure
from numpy.typing import NDArray

from dmfkit.errors import InputError
from dmfkit.interactive.explorable import Explorable
from dmfkit.linalg import spectra
from dmfkit.training.result import Status

LEADING = 40
"""How many singular values of a run the page gets, if that is more than the rank; of the others it gets the sum."""

_GRID = ("n_observed", "depth", "init_scale", "seed")
_WHOLE = ("n_steps", "n_evaluations")
_REAL = ("final_relative_error", "final_nuclear_norm", "final_effective_rank", "final_mean_square")


class PickAPanel(Explorable):
    """Runs of gradient descent and of gradient flow: one picked, shown among the others and against a pinned one.

    Parameters
    ----------
    picture : Figure
        What stands in its place without JavaScript.
    descent : Dataset
        Runs over ``n_observed, depth, init_scale, lr, seed``, as `sweep` returns them.
    flow : Dataset
        The same without ``lr``: gradient flow on the same grid.
    truth : array of shape (d, d_in)
        The matrix that is completed.
    rank : int
        Its rank.
    stop : float
        Mean square on the known entries below which a run has converged.
    convex : Dataset, optional
        Completions of least nuclear norm over ``n_observed``, as `nuclear_norm_solutions` returns them. With them the
        nuclear norm and the effective rank are shown, without them the number of gradient evaluations.

    Raises
    ------
    InputError
        If the datasets are not over the same grid, or the rank is not one of the matrix.
    """

    scripts = ("panel_runs.js", "panel_words.js", "panel_pictures.js", "panel.js")

    def __init__(
        self,
        picture: Figure,
        *,
        descent: xr.Dataset,
        flow: xr.Dataset,
        truth: NDArray[np.float64],
        rank: int,
        stop: float,
        convex: xr.Dataset | None = None,
    ) -> None:
        _check(descent, flow, convex)
        if not 1 <= rank < min(truth.shape):
            raise InputError(f"rank = {rank}: give the rank of the matrix, from 1 to {min(truth.shape) - 1}.")
        # Ascending on every axis: sliders go from small to large.
        descent, flow = descent.sortby([*_GRID, "lr"]), flow.sortby([*_GRID])
        settings = {
            "grid": {name: flow[name].values.tolist() for name in _GRID},
            "lrs": [*descent["lr"].values.tolist(), None],
            "statuses": {int(status): status.name.lower() for status in Status},
            "rank": int(rank),
            "stop": float(stop),
            "truth": _of_truth(truth, rank),
            "mean_square": float((truth**2).mean()),
            "n_values": min(truth.shape),
        }
        leading = min(max(LEADING, rank + 1), min(truth.shape))
        if convex is not None:
            samples = flow["n_observed"].values.tolist()
            settings["convex"] = [_of_convex(convex.sel(n_observed=m), leading) for m in samples]
        super().__init__(settings, _arrays(descent, flow, leading), picture)


def _check(descent: xr.Dataset, flow: xr.Dataset, convex: xr.Dataset | None) -> None:
    for name, data, axes in (("descent", descent, {*_GRID, "lr"}), ("flow", flow, {*_GRID})):
        if set(data["status"].dims) != axes:
            raise InputError(
                f"{name} is over {', '.join(map(str, data['status'].dims))}: give runs over {', '.join(sorted(axes))}."
            )
    for axis in _GRID:
        if set(descent[axis].values) != set(flow[axis].values):
            raise InputError(f"descent and flow have other values of {axis}: run both on the same grid.")
    if convex is not None and not set(flow["n_observed"].values) <= set(convex["n_observed"].values):
        raise InputError("convex lacks some of the numbers of entries of the runs: solve it for all of them.")


def _arrays(descent: xr.Dataset, flow: xr.Dataset, leading: int) -> dict[str, np.ndarray]:
    """Arrays over ``n_observed, depth, init_scale, lr, seed``; gradient flow comes last on the axis of rates."""

    def both(name: str) -> np.ndarray:
        rest = [dim for dim in flow[name].dims if dim not in _GRID]
        first = descent[name].transpose("n_observed", "depth", "init_scale", "lr", "seed", *rest).values
        last = flow[name].transpose("n_observed", "depth", "init_scale", "seed", *rest).values
        return np.concatenate([first, last[:, :, :, None]], axis=3)

    values = both("final_singular_value")
    arrays = {"status": both("status").astype(np.uint8)}
    arrays |= {name: both(name).astype(np.int32) for name in _WHOLE}
    arrays |= {name.removeprefix("final_"): both(name) for name in _REAL}
    arrays |= {"spectrum": values[..., :leading], "rest": values[..., leading:].sum(-1)}
    return arrays | {"stable_lr": flow["stable_lr"].transpose(*_GRID).values}


def _of_truth(truth: NDArray[np.float64], rank: int) -> dict[str, Any]:
    values = torch.linalg.svdvals(torch.from_numpy(truth))
    return {
        # Beyond the rank there is only what rounding left.
        "spectrum": values[:rank].tolist(),
        "nuclear_norm": float(spectra.nuclear_norm(values)),
        "effective_rank": float(spectra.effective_rank(values)),
        "relative_error": 0.0,
    }


def _of_convex(one: xr.Dataset, leading: int) -> dict[str, Any]:
    # Value and effective rank as they are stored, and not computed again: the chapter's tables print the same.
    return {
        "spectrum": one["singular_value"].values[:leading].tolist(),
        "nuclear_norm": float(one["value"]),
        "effective_rank": float(one["effective_rank"]),
        "relative_error": float(one["relative_error"]),
    }
