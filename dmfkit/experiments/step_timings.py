"""What a training step costs on the machine at hand: several factorizations, side by side, in one run.

Seconds per step in the steady state, of several ways to take it, interleaved.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray

from dmfkit.errors import InputError
from dmfkit.experiments.progress import Progress
from dmfkit.experiments.provenance import hardware, run_provenance
from dmfkit.experiments.store import Store, find_or_compute, specification_key
from dmfkit.experiments.sweeps import choose_device
from dmfkit.factorizations.starts import AnyStart, InitialPoint
from dmfkit.problems.tasks import Task, key_values
from dmfkit.training.descent import Descent
from dmfkit.training.loop import train

# What is added to the shorter of two runs takes about so long.
LEAST_SECONDS = 0.3


def step_seconds(
    ways: Mapping[str, Callable[[int], object]], repeats: int, label: str, least_seconds: float | None = None
) -> dict[str, NDArray[np.float64]]:
    """Seconds per step of each way, once for every repetition.

    A way is called with a number of steps. What a call costs beside its steps cancels: a repetition is the difference
    between a longer and a shorter call. Repetitions of all ways are interleaved, so that a machine that slows down
    slows all of them.

    Parameters
    ----------
    ways : mapping of str to callable
    repeats : int
    label : str
        What the progress bar says.
    least_seconds : float, optional
        What is added to the shorter of two calls takes about so long; 0.3 if not given.
    """
    least = LEAST_SECONDS if least_seconds is None else least_seconds
    short = 2
    counts = {}
    for name, way in ways.items():
        way(short)  # compiles, warms up
        counts[name] = _enough(way, short, least)
    found: dict[str, list[float]] = {name: [] for name in ways}
    with Progress(repeats, label) as progress:
        for _ in range(repeats):
            for name, way in ways.items():
                longer = _seconds(way, short + counts[name])
                found[name].append((longer - _seconds(way, short)) / counts[name])
            progress.advance(1)
    return {name: np.array(values) for name, values in found.items()}


def _enough(way: Callable[[int], object], steps: int, least: float) -> int:
    """Steps that take that many seconds, roughly; found by longer and longer calls, since short ones say little."""
    while (seconds := _seconds(way, steps)) < least / 4:
        steps *= 2
    return max(steps, math.ceil(steps * least / seconds)) if seconds < least else steps


def _seconds(way: Callable[[int], object], steps: int) -> float:
    wait()
    began = time.perf_counter()
    way(steps)
    wait()
    return time.perf_counter() - began


def wait() -> None:
    """Wait until the GPU, if there is one in use, has done what it was given."""
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        torch.cuda.synchronize()


# A repeat takes about so long: chapters time many ways, and a median of repeats is what counts.
REPEAT_SECONDS = 0.1


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
        point = start.begin(problem)
        wait()
        begin_seconds.append(time.perf_counter() - began)
        taken[name] = []
        ways[name] = partial(_train, point, taken[name])
        n_parameters.append(point.factorization.state.shape[1])
    seconds = step_seconds(ways, repeats, label, REPEAT_SECONDS)
    variables: dict[str, Any] = {
        "step_seconds": (("start", "repeat"), np.array(list(seconds.values()))),
        "begin_seconds": (("start",), begin_seconds),
        "n_parameters": (("start",), n_parameters),
        "n_steps": (("start",), [sum(each) for each in taken.values()]),
    }
    return xr.Dataset(variables, coords={"start": list(starts)})


def _train(point: InitialPoint, taken: list[int], steps: int) -> None:
    """Take so many steps, and note it; the learning rate is small enough to change nothing."""
    taken.append(steps)
    method = Descent(lr=1e-12, stop=0.0, max_steps=steps)
    train(point.problem, point.factorization, method, factor_rates=point.factor_rates)
