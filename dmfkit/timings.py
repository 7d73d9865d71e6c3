"""What a training step costs on the machine at hand: several factorizations, side by side, in one run."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr

from dmfkit.descent import Descent, gradient_descent
from dmfkit.errors import InputError
from dmfkit.grids import choose_device
from dmfkit.provenance import hardware, run_provenance
from dmfkit.starts import AnyStart, Beginning
from dmfkit.steady import step_seconds, wait
from dmfkit.store import Store, find_or_compute, specification_key
from dmfkit.tasks import Task, key_values

# A repeat takes about so long: chapters time many ways, and a median of repeats is what counts.
LEAST_SECONDS = 0.1


def step_timings(
    task: Task,
    starts: Mapping[str, AnyStart],
    *,
    name: str = "",
    store: Store | None = None,
    recompute: bool = False,
    device: str = "auto",
    repeats: int = 5,
) -> xr.Dataset:
    """Measure seconds per gradient descent step, and seconds to begin, of several starts on one problem.

    Repeats of all starts are interleaved, so that a machine that slows down slows all of them; a first run of each is
    not counted. Compare ratios: seconds belong to the device that the attributes name.

    Parameters
    ----------
    task : Task
    starts : mapping of str to start
        By the names that the result's dimension ``start`` has.
    name, store, recompute
        As in `sweep`. A stored result keeps the times and the name of the device on which it was made.
    device : {"auto", "cpu", "cuda"}
    repeats : int

    Returns
    -------
    xarray.Dataset
        ``step_seconds`` (start, repeat): one step of descent, loss and gradient included; ``begin_seconds`` (start):
        making the initial factors, frames included; ``n_parameters`` (start).

    Raises
    ------
    InputError
        If there is nothing to time.
    """
    if not starts or repeats < 1:
        raise InputError("there is nothing to time: give at least one start and repeats of at least 1.")
    specification = {
        "timing": {label: key_values(start) for label, start in starts.items()},
        "task": key_values(task),
        "repeats": repeats,
    }

    def compute(parts: Path | None) -> xr.Dataset:  # noqa: ARG001
        chosen = choose_device(device)
        began = time.perf_counter()
        dataset = _measure(task, starts, chosen, repeats, name or "timings")
        return dataset.assign_attrs(
            specification=json.dumps(specification, sort_keys=True),
            total_wall_seconds=time.perf_counter() - began,
            total_evaluations=int(dataset["n_steps"].sum()),
            **run_provenance(hardware(chosen)),
        )

    return find_or_compute(store, name or "timings", specification_key(specification), compute, recompute=recompute)


def _measure(task: Task, starts: Mapping[str, AnyStart], device: torch.device, repeats: int, label: str) -> xr.Dataset:
    task.check()
    problem = task.problem().to(device)
    begin_seconds, ways, taken, n_parameters = [], {}, dict[str, list[int]](), []
    for name, start in starts.items():
        began = time.perf_counter()
        beginning = start.begin(problem)
        wait()
        begin_seconds.append(time.perf_counter() - began)
        taken[name] = []
        ways[name] = partial(_train, beginning, taken[name])
        n_parameters.append(beginning.factorization.state.shape[1])
    seconds = step_seconds(ways, repeats, label, LEAST_SECONDS)
    variables: dict[str, Any] = {
        "step_seconds": (("start", "repeat"), np.array(list(seconds.values()))),
        "begin_seconds": (("start",), begin_seconds),
        "n_parameters": (("start",), n_parameters),
        "n_steps": (("start",), [sum(each) for each in taken.values()]),
    }
    return xr.Dataset(variables, coords={"start": list(starts)})


def _train(beginning: Beginning, taken: list[int], steps: int) -> None:
    """Take so many steps, and note it; the learning rate is small enough to change nothing."""
    taken.append(steps)
    method = Descent(lr=1e-12, stop=0.0, max_steps=steps, factor_rates=beginning.factor_rates)
    gradient_descent(beginning.problem, beginning.factorization, method)
