"""What a training step costs on the machine at hand: several factorizations, side by side, in one run."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr

from dmfkit.descent import Descent, gradient_descent
from dmfkit.errors import InputError
from dmfkit.grids import choose_device
from dmfkit.progress import Progress
from dmfkit.provenance import device_name, run_provenance
from dmfkit.starts import AnyStart, Beginning
from dmfkit.store import Store, find_or_compute, specification_key
from dmfkit.tasks import Task, key_values

# A repeat takes at least so long, so that neither the clock nor the first calls count.
LEAST_SECONDS = 0.3


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
            **run_provenance(device_name(chosen)),
        )

    return find_or_compute(store, name or "timings", specification_key(specification), compute, recompute=recompute)


def _measure(task: Task, starts: Mapping[str, AnyStart], device: torch.device, repeats: int, label: str) -> xr.Dataset:
    task.check()
    problem = task.problem().to(device)
    begin_seconds, beginnings = [], []
    for start in starts.values():
        began = time.perf_counter()
        beginnings.append(start.begin(problem))
        _wait(device)
        begin_seconds.append(time.perf_counter() - began)
    # The first run of each warms up and says how many steps fill a repeat.
    rough = [_seconds(beginning, 2, device) for beginning in beginnings]
    steps = [max(2, int(np.ceil(LEAST_SECONDS / each))) for each in rough]
    seconds = np.empty((len(starts), repeats))
    with Progress(repeats, label) as progress:
        for repeat in range(repeats):
            for number, beginning in enumerate(beginnings):
                seconds[number, repeat] = _seconds(beginning, steps[number], device)
            progress.advance(1)
    variables: dict[str, Any] = {
        "step_seconds": (("start", "repeat"), seconds),
        "begin_seconds": (("start",), begin_seconds),
        "n_parameters": (("start",), [one.factorization.state.shape[1] for one in beginnings]),
        "n_steps": (("start",), [count * repeats for count in steps]),
    }
    return xr.Dataset(variables, coords={"start": list(starts)})


def _seconds(beginning: Beginning, steps: int, device: torch.device) -> float:
    """Seconds per step of one short run; the learning rate is small enough to change nothing."""
    method = Descent(lr=1e-12, stop=0.0, max_steps=steps, factor_rates=beginning.factor_rates)
    _wait(device)
    began = time.perf_counter()
    gradient_descent(beginning.problem, beginning.factorization, method)
    _wait(device)
    # The last loss is evaluated, too.
    return (time.perf_counter() - began) / (steps + 1)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
