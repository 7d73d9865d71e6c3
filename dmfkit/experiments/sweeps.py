"""Grids of runs: one call, one labelled dataset.

`sweep` takes a task, a start and a method (frozen dataclasses of plain values) and any of their fields as lists. Grid
points that share shapes and a problem train together as one batch: here, one after the other, or on an executor. Every
finished batch is written at once, so that an interrupted sweep goes on where it was.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
import xarray as xr

from dmfkit.errors import InputError
from dmfkit.experiments.experiment import (
    Batch,
    LatestProblem,
    check_grid,
    find_or_compute,
    grid_points,
    numbered,
    on_grid,
)
from dmfkit.experiments.store import Store
from dmfkit.factorizations.factorization import Factorization
from dmfkit.factorizations.starts import AnyStart
from dmfkit.linalg import spectra
from dmfkit.problems.losses import Problem
from dmfkit.problems.tasks import Task
from dmfkit.training.descent import Descent
from dmfkit.training.flow import Flow
from dmfkit.training.loop import Record, per_run_settings, shared_settings, train
from dmfkit.training.recorders import EffectiveRank, HeldOutError, Recorder, RelativeError, SingularValues
from dmfkit.training.result import Result
from dmfkit.training.snapshot import Snapshot
from dmfkit.values import field_names, key_values, with_fields

# Runs in one batch. Larger batches gain nothing on two cores at d = 100 and would be lost whole by an interruption.
RUNS_PER_BATCH = 12


@dataclass(frozen=True)
class Sweep:
    """A grid of runs, described by plain values only.

    Attributes
    ----------
    task, start, method
        What is learned, where from and how; fields named in `grid` are replaced point by point.
    grid : mapping
        Names of fields, each with the values that it takes; their order is the order of dimensions.
    record : tuple of Recorder
    record_at : tuple of numbers
        Step numbers (descent) or flow times (flow), strictly ascending.
    runs_per_batch : int
        At most so many runs train together; no part of the specification.
    """

    kind: ClassVar[str] = "sweep"
    counted: ClassVar[str] = "n_evaluations"

    task: Task
    start: AnyStart
    method: Descent | Flow
    grid: Mapping[str, tuple[Any, ...]]
    record: tuple[Recorder, ...] = ()
    record_at: tuple[float, ...] = ()
    runs_per_batch: int = RUNS_PER_BATCH

    def __post_init__(self) -> None:
        known = {name for part in (self.task, self.start, self.method) for name in field_names(part)}
        check_grid(self.grid, known)
        if any(later <= earlier for earlier, later in itertools.pairwise(self.record_at)):
            raise InputError("record_at must rise strictly from one moment to the next.")
        if self.runs_per_batch < 1:
            raise InputError(f"runs_per_batch = {self.runs_per_batch} is not allowed: it must be at least 1.")

    @property
    def specification(self) -> dict[str, Any]:
        """Everything that determines the numbers, as plain values."""
        return {
            "task": key_values(self.task),
            "start": key_values(self.start),
            "method": key_values(self.method),
            "grid": {name: list(values) for name, values in self.grid.items()},
            "record": [key_values(recorder) for recorder in self.record],
            "record_at": [float(moment) for moment in self.record_at],
        }

    @property
    def points(self) -> list[dict[str, Any]]:
        """Grid points in the order of the grid's dimensions, last dimension fastest."""
        return grid_points(self.grid)

    @property
    def moment(self) -> str:
        """Name of the dimension of recorded moments."""
        return self.method.moment_name

    def at(self, point: Mapping[str, Any]) -> tuple[Task, AnyStart, Descent | Flow]:
        """Task, start and method at one grid point."""
        return with_fields(self.task, point), with_fields(self.start, point), with_fields(self.method, point)

    def batches(self) -> list[Batch]:
        """Divide the points among batches of runs with one problem, equal widths, and one method up to the rate.

        Checks every task before anything is trained, so that impossible values are found at once. Batches of one task
        follow each other, so that its problem need be made only once.
        """
        resolved = [self.at(point) for point in self.points]
        tasks: dict[Task, dict[Any, list[int]]] = {}
        for index, (task, start, method) in enumerate(resolved):
            if task not in tasks:
                task.check()
                tasks[task] = {}
            shared = (start.widths(task.shape), start.shared, shared_settings(method))
            tasks[task].setdefault(shared, []).append(index)
        return [
            Batch(tuple(indices), tuple(resolved[index] for index in indices))
            for groups in tasks.values()
            for group in groups.values()
            for first in range(0, len(group), self.runs_per_batch)
            for indices in (group[first : first + self.runs_per_batch],)
        ]

    def run(
        self, batch: Batch, device: torch.device, on_end: Callable[[int], None] | None, problems: LatestProblem
    ) -> xr.Dataset:
        """Train one batch; the dataset has the dimension ``run``, numbered by the grid."""
        return _train(self, batch, device, on_end, problems)

    def assemble(self, parts: list[xr.Dataset]) -> xr.Dataset:
        """Put the batches together: dimension ``run`` becomes the dimensions of the grid."""
        dataset = on_grid(parts, self.grid)
        if self.record:
            times = np.asarray(self.record_at, dtype=float if self.moment == "time" else int)
            dataset = dataset.assign_coords({self.moment: times})
        return dataset.assign_coords(place=["on", "off"]) if "alignment_mean" in dataset else dataset


def sweep(
    task: Task,
    start: AnyStart,
    method: Descent | Flow,
    *,
    name: str = "",
    store: Store | None = None,
    recompute: bool = False,
    record: tuple[Recorder, ...] = (),
    record_at: Sequence[float] = (),
    device: str = "auto",
    runs_per_batch: int = RUNS_PER_BATCH,
    executor: Executor | None = None,
    **grid: Sequence[Any],
) -> xr.Dataset:
    """Train every point of a grid.

    Parameters
    ----------
    task, start, method
        What is learned, where from and how.
    name : str
        Name under which the result is stored and progress is shown.
    store : Store, optional
        Where a stored result is looked for and the new one kept. Without one nothing is stored.
    recompute : bool
        Compute anew even if there is a stored result. Unfinished parts of an interrupted sweep are used all the same.
    record, record_at
        What to record along each run, and at which steps (descent) or flow times (flow).
    device : {"auto", "cpu", "cuda"}
    runs_per_batch : int
        At most so many runs train together.
    executor : concurrent.futures.Executor, optional
        Where batches train side by side, such as `cluster` makes it; `device` is then chosen there. Without one they
        train one after the other in this process. Batches are the same either way, and so are the results, to the bit
        where processors and the numbers of threads are.
    **grid
        Fields of task, start or method, each with the values it takes.

    Returns
    -------
    xarray.Dataset
        Dimensions are the swept names. Holds, for the end of every run, ``status`` (see `Status`), ``n_steps``,
        ``n_evaluations``, ``flow_time``, ``stable_lr``, ``initial_norm`` (``||W(0)||_F``), ``final_mean_square``,
        ``final_singular_value``, ``final_effective_rank``, ``final_nuclear_norm``, where the truth is known
        ``final_relative_error``, and where entries are held out ``final_held_out_rmse``; and whatever was recorded,
        with a further dimension ``step`` or ``time``. Attributes say what made it.

    Raises
    ------
    InputError
        For names that cannot be swept, empty or doubled values, impossible parameters; all before any training. Later,
        if the results' folder is full or the executor's workers cannot go on.
    """
    values = {key: tuple(values) for key, values in grid.items()}
    planned = Sweep(task, start, method, values, record, tuple(record_at), runs_per_batch)
    return find_or_compute(planned, name or "sweep", store=store, recompute=recompute, device=device, executor=executor)


def _train(
    plan: Sweep, batch: Batch, device: torch.device, on_end: Callable[[int], None] | None, problems: LatestProblem
) -> xr.Dataset:
    """Train one batch; the dataset has the dimension ``run``, numbered by the grid."""
    tasks, starts, methods = zip(*batch.points, strict=True)
    given = problems.of(tasks[0], device, getattr(torch, methods[0].dtype))
    points = [start.begin(given) for start in starts]
    # Of a batch with a `ProjectedPoint` all starts are equal, see `AnyStart.shared`: so are the problems.
    problem, rates = points[0].problem, points[0].factor_rates
    initial = Factorization(torch.cat([one.factorization.state for one in points]), points[0].factorization.widths)
    began = time.perf_counter()
    record = Record(plan.record, plan.record_at, on_end)
    per_run = per_run_settings(methods)
    result = train(problem, initial, methods[0], factor_rates=rates, per_run=per_run, record=record)
    seconds = time.perf_counter() - began
    dataset = _dataset(plan, problem, initial, result).assign_coords(run=list(batch.indices))
    # A run's share of its batch's wall time: what it cost, not how long it would have taken alone.
    return dataset.assign(wall_seconds=("run", np.full(len(batch.indices), seconds / len(batch.indices))))


def _dataset(plan: Sweep, problem: Problem, initial: Factorization, result: Result) -> xr.Dataset:
    """Final measurements and records of one batch."""
    variables: dict[str, tuple[tuple[str, ...], torch.Tensor]] = {
        "status": ((), result.status),
        "n_steps": ((), result.n_steps),
        "n_evaluations": ((), result.n_evaluations),
        "flow_time": ((), result.time),
        # Asked for here, also where it has yet to be measured: whoever reads the dataset has no problem to ask.
        "stable_lr": ((), result.stable_lr),
        "initial_norm": ((), Snapshot(problem, initial).norm),
        "final_mean_square": ((), result.mean_square),
    }
    end = Snapshot(problem, result.factorization)
    values = end.singular_values
    variables["final_nuclear_norm"] = ((), spectra.nuclear_norm(values))
    measured: list[Recorder] = [SingularValues(values.shape[-1]), EffectiveRank()]
    measured += [RelativeError()] if end.relative_error is not None else []
    measured += [HeldOutError()] if end.held_out_rmse is not None else []
    for recorder in measured:
        for name, value in recorder(end).items():
            variables[f"final_{name}"] = (tuple(f"final_{dim}" for dim in recorder.dims[name]), value)
    for recorder in plan.record:
        for name, dims in recorder.dims.items():
            if name in result.records:
                variables[name] = ((plan.moment, *dims), result.records[name])
    return numbered(
        xr.Dataset({name: (("run", *dims), value.cpu().numpy()) for name, (dims, value) in variables.items()})
    )
