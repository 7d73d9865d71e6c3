"""A race of depths: gradient descent on small deep factorizations, run by the page itself."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from dmfkit.errors import InputError
from dmfkit.factorizations.factorization import full_widths
from dmfkit.factorizations.initialisation import initialise
from dmfkit.interactive.explorable import Explorable
from dmfkit.problems.completion import entry_order
from dmfkit.problems.tasks import CompletionTask
from dmfkit.training.descent_batch import BLOW_UP

_SHARES = np.arange(0.2, 0.91, 0.05)
_LRS = (2.5e-4, 5e-4, 1e-3, 2e-3, 3e-3, 4e-3, 6e-3, 8e-3, 0.012, 0.016, 0.024, 0.032, 0.048, 0.064, 0.096)
_N_STEPS = (500, 1000, 2000, 5000, 10_000, 20_000)


class DepthRace(Explorable):
    """Completion of a small matrix by factorizations of several depths at once, from the same scale.

    The script runs gradient descent on the half-sum loss in float64, as `gradient_descent` does. It gets the ground
    truths, the order in which entries are observed, and Gaussian factors of variance 1, and scales these as
    `initialise` does.

    Parameters
    ----------
    picture : Figure
        What stands in its place without JavaScript.
    tasks : sequence of CompletionTask
        Matrices to choose from; they differ in `data_seed` only. Their `n_observed` is observed at first.
    seeds : sequence of int
        Seeds of the initial factors, to choose from.
    depths : sequence of int
        Depths that race, ascending.
    init_scale : float
        Root mean square of the initial product's Frobenius norm, at first.
    lr : float
        Learning rate, at first.
    n_steps : int
        Number of steps to run, at first.

    Raises
    ------
    InputError
        If a value is out of its range, or tasks differ in more than their seed.
    """

    scripts = (
        "matrix.js",
        "descent.js",
        "race_record.js",
        "race_start.js",
        "race_words.js",
        "race_pictures.js",
        "depth_race.js",
    )

    def __init__(
        self,
        picture: Figure,
        *,
        tasks: Sequence[CompletionTask],
        seeds: Sequence[int],
        depths: Sequence[int],
        init_scale: float,
        lr: float,
        n_steps: int,
    ) -> None:
        task = _common(tasks)
        _check(seeds, depths, init_scale, lr, n_steps)
        truths = np.stack([one.ground_truth().numpy() for one in tasks])
        left, values, right = np.linalg.svd(truths)
        # Normal numbers of a seed are drawn factor by factor, so a shallower run starts from the first of these.
        widths = full_widths(task.shape, max(depths))
        unit = task.d ** (len(widths) / 2)
        normals = initialise("gaussian", widths, [unit] * len(seeds), list(seeds)).state
        arrays = {
            "truths": truths,
            "lefts": left[:, :, : task.rank],
            "spectra": values[:, : task.rank],
            "rights": right.swapaxes(1, 2)[:, :, : task.rank],
            "orders": np.stack([entry_order(task.shape, one.data_seed).numpy() for one in tasks]).astype("uint16"),
            "normals": normals.numpy().reshape(len(seeds), max(depths), task.d, task.d),
        }
        settings = {
            "d": task.d,
            "rank": task.rank,
            "tasks": [one.data_seed for one in tasks],
            "seeds": list(seeds),
            "depths": list(depths),
            "n_observed_choices": sorted({*(round(float(s) * task.d**2) for s in _SHARES), task.n_observed}),
            "n_observed": task.n_observed,
            "init_scales": sorted({*(float(f"{s:.0e}") for s in np.geomspace(1e-4, 1, 9)), float(init_scale)}),
            "init_scale": float(init_scale),
            "lrs": sorted({*_LRS, float(lr)}),
            "lr": float(lr),
            "n_steps_choices": sorted({*_N_STEPS, n_steps}),
            "n_steps": n_steps,
            "every": 10,
            "fit": 1e-6,
            "blow_up": BLOW_UP,
        }
        super().__init__(settings, arrays, picture)


def _common(tasks: Sequence[CompletionTask]) -> CompletionTask:
    """Return the first task, after a check that the others are of its kind."""
    if not tasks:
        raise InputError("tasks is empty: give at least one CompletionTask.")
    first = tasks[0]
    kind = (first.d, first.rank, first.n_observed)
    if any((one.d, one.rank, one.n_observed) != kind for one in tasks):
        raise InputError("tasks differ in more than data_seed: give tasks of one d, rank and n_observed.")
    if any(one.normalisation != "half_sum" for one in tasks):
        raise InputError("the race runs on the half-sum loss: give tasks with normalisation='half_sum'.")
    if not (2 <= first.d <= 40 and first.n_observed < first.d**2):
        raise InputError(
            f"d = {first.d}, n_observed = {first.n_observed}: a page can run d between 2 and 40, and needs an entry "
            "that is not observed."
        )
    return first


def _check(seeds: Sequence[int], depths: Sequence[int], init_scale: float, lr: float, n_steps: int) -> None:
    if not seeds:
        raise InputError("seeds is empty: give at least one seed.")
    if len(depths) < 2 or list(depths) != sorted(set(depths)) or depths[0] < 1:
        raise InputError(f"depths = {list(depths)}: give at least two depths, ascending, from 1 up.")
    if not (init_scale > 0 and lr > 0):
        raise InputError(f"init_scale = {init_scale:g}, lr = {lr:g}: give positive numbers.")
    if not 1 <= n_steps <= _N_STEPS[-1]:
        raise InputError(f"n_steps = {n_steps}: give between 1 and {_N_STEPS[-1]} steps.")
