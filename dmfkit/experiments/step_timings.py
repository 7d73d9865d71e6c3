"""Seconds of a training step on the machine at hand: several factorizations, in turn, without what a call costs."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray

from dmfkit.errors import InputError
from dmfkit.experiments.experiment import Batch, LatestProblem, find_or_compute
from dmfkit.experiments.progress import Progress
from dmfkit.experiments.store import Store
from dmfkit.factorizations.starts import AnyStart, InitialPoint
from dmfkit.problems.tasks import Task
from dmfkit.training.descent import Descent
from dmfkit.training.loop import train
from dmfkit.values import key_values

# What is added to the shorter of two runs takes about so long.
LEAST_SECONDS = 0.3


# A repetition of a stored timing takes about so long: chapters time many starts, and a median is what counts.
REPETITION_SECONDS = 0.1

Steps = Callable[[int], object]
Clock = Callable[[], float]


def step_seconds(
    candidates: Mapping[str, Steps], repeats: int, label: str, least_seconds: float = LEAST_SECONDS
) -> dict[str, NDArray[np.float64]]:
    """Seconds per step of several functions that take so many steps, once for every repetition.

    What a call costs beside its steps cancels: a repetition is the difference between a longer and a shorter call.
    Repetitions of all functions are interleaved, so that a machine that slows down slows all of them.

    Parameters
    ----------
    candidates : mapping of str to callable
        Each is called with a number of steps.
    repeats : int
    label : str
        What the progress bar says.
    least_seconds : float
        What is added to the shorter of two calls takes about so long.
    """
    with Progress(repeats, label) as progress:
        return _interleaved(candidates, repeats, least_seconds, time.perf_counter, progress.advance)


def _interleaved(
    candidates: Mapping[str, Steps], repeats: int, least: float, clock: Clock, on_end: Callable[[int], None] | None
) -> dict[str, NDArray[np.float64]]:
    short = 2
    counts = {}
    for name, steps in candidates.items():
        steps(short)  # compiles, warms up
        counts[name] = _enough(steps, short, least, clock)
    found: dict[str, list[float]] = {name: [] for name in candidates}
    for _ in range(repeats):
        for name, steps in candidates.items():
            longer = _seconds(steps, short + counts[name], clock)
            found[name].append((longer - _seconds(steps, short, clock)) / counts[name])
        if on_end is not None:
            on_end(1)
    return {name: np.array(values) for name, values in found.items()}


def _enough(take: Steps, steps: int, least: float, clock: Clock) -> int:
    """Steps that take that many seconds, roughly; found by longer and longer calls, since short ones say little."""
    while (seconds := _seconds(take, steps, clock)) < least / 4:
        steps *= 2
    return max(steps, math.ceil(steps * least / seconds)) if seconds < least else steps


def _seconds(take: Steps, steps: int, clock: Clock) -> float:
    wait()
    began = clock()
    take(steps)
    wait()
    return clock() - began


def wait() -> None:
    """Wait until the GPU, if there is one in use, has done what it was given."""
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        torch.cuda.synchronize()


@dataclass(frozen=True)
class StepTiming:
    """Starts whose steps of gradient descent are timed in turn.

    Attributes
    ----------
    task : Task
    starts : mapping of str to start
    repeats : int
    clock : callable
        Gives seconds; differences count.
    """

    kind: ClassVar[str] = "timing"
    counted: ClassVar[str] = "n_steps"

    task: Task
    starts: Mapping[str, AnyStart]
    repeats: int = 5
    clock: Clock = time.perf_counter

    def __post_init__(self) -> None:
        if not self.starts or self.repeats < 1:
            raise InputError("there is nothing to time: give at least one start and repeats of at least 1.")

    @property
    def specification(self) -> dict[str, Any]:
        """Everything that says what is timed, as plain values."""
        return {
            "timing": {label: key_values(start) for label, start in self.starts.items()},
            "task": key_values(self.task),
            "repeats": self.repeats,
        }

    @property
    def points(self) -> range:
        """Repetitions."""
        return range(self.repeats)

    def batches(self) -> list[Batch]:
        """One: times are only compared with those of the same minutes on the same machine."""
        self.task.check()
        return [Batch(tuple(self.points), tuple(self.points))]

    def run(
        self,
        batch: Batch,
        device: torch.device,
        on_end: Callable[[int], None] | None,
        problems: LatestProblem,
    ) -> xr.Dataset:
        """Time all starts; see `step_timings`."""
        began = self.clock()
        problem = problems.of(self.task, device, torch.float64)
        begin_seconds, candidates, taken, n_parameters = [], {}, dict[str, list[int]](), []
        for name, start in self.starts.items():
            before = self.clock()
            initial = start.begin(problem)
            wait()
            begin_seconds.append(self.clock() - before)
            taken[name] = []
            candidates[name] = partial(_train, initial, taken[name])
            n_parameters.append(initial.factorization.state.shape[1])
        seconds = _interleaved(candidates, len(batch.points), REPETITION_SECONDS, self.clock, on_end)
        variables: dict[str, Any] = {
            "step_seconds": (("start", "repeat"), np.array(list(seconds.values()))),
            "begin_seconds": (("start",), begin_seconds),
            "n_parameters": (("start",), n_parameters),
            "n_steps": (("start",), [sum(each) for each in taken.values()]),
            "wall_seconds": ((), self.clock() - began),
        }
        return xr.Dataset(variables, coords={"start": list(self.starts)})

    def assemble(self, parts: list[xr.Dataset]) -> xr.Dataset:
        """Return the only part."""
        (whole,) = parts
        return whole


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
    timing = StepTiming(task, starts, repeats)
    return find_or_compute(timing, name or "timings", store=store, recompute=recompute, device=device)


def _train(point: InitialPoint, taken: list[int], steps: int) -> None:
    """Take so many steps, and note it; the learning rate is small enough to change nothing."""
    taken.append(steps)
    method = Descent(lr=1e-12, stop=0.0, max_steps=steps)
    train(point.problem, point.factorization, method, factor_rates=point.factor_rates)
