"""Grids of runs: one call, one labelled dataset.

`sweep` takes a task, a start and a method (frozen dataclasses of plain values) and any of their fields as lists. Grid
points that share shapes and a problem train together as one batch: here, one after the other, or each on a worker of a
cluster. Every finished batch is written at once, so that an interrupted sweep goes on where it was.

What every computation over a grid needs: checks, points, a device, and one problem at a time.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import time
from collections.abc import Callable, Generator, Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr

from dmfkit.errors import InputError
from dmfkit.experiments.cluster import Executor
from dmfkit.experiments.progress import Progress
from dmfkit.experiments.provenance import hardware, run_provenance
from dmfkit.experiments.store import Store, find_or_compute, read_part, specification_key, write
from dmfkit.factorizations.factorization import Factorization
from dmfkit.factorizations.starts import AnyStart
from dmfkit.linalg import spectra
from dmfkit.problems.losses import Problem
from dmfkit.problems.tasks import Task, field_names, key_values, with_fields
from dmfkit.training.descent import Descent
from dmfkit.training.flow import Flow
from dmfkit.training.loop import Record, per_run_settings, shared_settings, train
from dmfkit.training.recorders import Recorder
from dmfkit.training.result import Result
from dmfkit.training.snapshot import Snapshot


def check_grid(grid: Mapping[str, tuple[Any, ...]], known: Set[str]) -> None:
    """Raise `InputError` unless every swept name is `known` and has values, each of them once."""
    for name, values in grid.items():
        if name not in known:
            raise InputError(f"{name!r} cannot be swept: choose from {', '.join(sorted(known))}.")
        if not len(values):
            raise InputError(f"{name} is an empty list: give it at least one value.")
        if len(set(values)) != len(values):
            raise InputError(f"{name} = {list(values)} has a value twice: give every value once.")


def grid_points(grid: Mapping[str, tuple[Any, ...]]) -> list[dict[str, Any]]:
    """Grid points in the order of the grid's dimensions, last dimension fastest."""
    return [dict(zip(grid, values, strict=True)) for values in itertools.product(*grid.values())]


def choose_device(device: str) -> torch.device:
    """Device of that name; ``auto`` takes a GPU where there is one.

    Raises
    ------
    InputError
        If a GPU is asked for where there is none.
    """
    if device not in ("auto", "cpu", "cuda"):
        raise InputError(f"device = {device!r} is not allowed: choose 'auto', 'cpu' or 'cuda'.")
    if device == "cuda" and not torch.cuda.is_available():
        raise InputError("device = 'cuda' was asked for, but there is no CUDA GPU here: choose 'auto' or 'cpu'.")
    return torch.device("cuda" if device != "cpu" and torch.cuda.is_available() else "cpu")


class LatestProblem:
    """The problem that was asked for last, so that neighbours on a grid share it.

    Never holds two: the operator of 5000 measurements of a 100 x 100 matrix takes 400 MB.
    """

    def __init__(self) -> None:
        self._key: Any = None
        self._problem: Problem | None = None

    def of(self, task: Task, device: torch.device, dtype: torch.dtype) -> Problem:
        """Return the task's problem there and in that precision; made anew only if the last one was another."""
        if self._problem is None or self._key != (task, device, dtype):
            self._problem = None  # let go before the next one is made
            self._problem, self._key = task.problem().to(device, dtype), (task, device, dtype)
        return self._problem


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
    """

    task: Task
    start: AnyStart
    method: Descent | Flow
    grid: Mapping[str, tuple[Any, ...]]
    record: tuple[Recorder, ...] = ()
    record_at: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        known = {name for part in (self.task, self.start, self.method) for name in field_names(part)}
        check_grid(self.grid, known)
        if any(later <= earlier for earlier, later in itertools.pairwise(self.record_at)):
            raise InputError("record_at must rise strictly from one moment to the next.")

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
    executor : Executor, optional
        Where batches train side by side, as `cluster` makes it; `device` is then chosen there. Without one they train
        one after the other in this process. Batches are the same either way, and so are the results, to the bit where
        processors and the numbers of threads are.
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
    if not (executor is None or isinstance(executor, Executor)):
        raise InputError(f"executor = {executor!r} cannot be used: make one with dm.cluster, or leave it out.")
    plan = Sweep(task, start, method, {key: tuple(values) for key, values in grid.items()}, record, tuple(record_at))
    key = specification_key(plan.specification)
    label = name or "sweep"

    def compute(parts: Path | None) -> xr.Dataset:
        """Train batch by batch, each kept in the folder `parts` as soon as it is finished."""
        batches = dict(enumerate(_batches(plan, runs_per_batch)))
        paths = {
            number: None if parts is None else parts / f"{indices[0]:06d}-{len(indices)}.nc"
            for number, indices in batches.items()
        }
        finished = {number: part for number, path in paths.items() if (part := read_part(path)) is not None}
        missing = {number: indices for number, indices in batches.items() if number not in finished}
        with Progress(len(plan.points), label) as progress:
            progress.advance(sum(len(batches[number]) for number in finished))
            with contextlib.closing(_trained(plan, missing, device, progress, executor)) as arriving:
                for number, part in arriving:
                    if (path := paths[number]) is not None:
                        write(path, part)
                    finished[number] = part
        return _assemble(plan, [finished[number] for number in batches])

    return find_or_compute(store, label, key, compute, recompute=recompute)


def _resolve(plan: Sweep, point: dict[str, Any]) -> tuple[Task, AnyStart, Descent | Flow]:
    """Task, start and method at one grid point."""
    return with_fields(plan.task, point), with_fields(plan.start, point), with_fields(plan.method, point)


def _batches(plan: Sweep, runs_per_batch: int) -> list[list[int]]:
    """Indices of the points that train together: same problem, same widths, same method up to per-run settings.

    Checks every task before anything is trained, so that impossible values are found at once. Batches of one task
    follow each other, so that its problem need be made only once.
    """
    tasks: dict[Task, dict[Any, list[int]]] = {}
    for index, point in enumerate(plan.points):
        task, start, method = _resolve(plan, point)
        if task not in tasks:
            task.check()
            tasks[task] = {}
        shared = (start.widths(task.shape), start.shared, shared_settings(method))
        tasks[task].setdefault(shared, []).append(index)
    return [
        group[first : first + runs_per_batch]
        for groups in tasks.values()
        for group in groups.values()
        for first in range(0, len(group), runs_per_batch)
    ]


def _trained(
    plan: Sweep, batches: Mapping[int, list[int]], device: str, progress: Progress, executor: Executor | None
) -> Generator[tuple[int, xr.Dataset], None, None]:
    """Train batches and give back each with its number: in their order here, as they are finished on an executor."""
    if executor is None:
        chosen, problems = choose_device(device), LatestProblem()
        for number, indices in batches.items():
            part = _train(plan, indices, chosen, progress.advance, problems)
            yield number, part.assign_attrs(executor="this process")
        return
    calls = {number: (plan, indices, device) for number, indices in batches.items()}
    with contextlib.closing(executor.run(train_batch, calls)) as arriving:
        for number, part in arriving:
            progress.advance(len(batches[number]))
            yield number, part.assign_attrs(executor=executor.description)


def train_batch(plan: Sweep, indices: list[int], device: str) -> xr.Dataset:
    """Train one batch where this is called: a task for an executor, see `_train`."""
    return _train(plan, indices, choose_device(device), None, LatestProblem())


def _train(
    plan: Sweep,
    indices: list[int],
    device: torch.device,
    on_end: Callable[[int], None] | None,
    problems: LatestProblem,
) -> xr.Dataset:
    """Train one batch; the dataset has the dimension ``run``, numbered by the grid, and says on which device."""
    tasks, starts, methods = zip(*(_resolve(plan, plan.points[index]) for index in indices), strict=True)
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
    dataset = _dataset(plan, problem, initial, result).assign_coords(run=indices)
    # A run's share of its batch's wall time: what it cost, not how long it would have taken alone.
    dataset = dataset.assign(wall_seconds=("run", np.full(len(indices), seconds / len(indices))))
    return dataset.assign_attrs(hardware(device))


def _dataset(plan: Sweep, problem: Problem, initial: Factorization, result: Result) -> xr.Dataset:
    """Final measurements and records of one batch."""
    end = Snapshot(problem, result.factorization)
    values, error = end.singular_values, end.relative_error
    variables: dict[str, tuple[tuple[str, ...], torch.Tensor]] = {
        "status": ((), result.status),
        "n_steps": ((), result.n_steps),
        "n_evaluations": ((), result.n_evaluations),
        "flow_time": ((), result.time),
        # Asked for here, also where it has yet to be measured: whoever reads the dataset has no problem to ask.
        "stable_lr": ((), result.stable_lr),
        "initial_norm": ((), Snapshot(problem, initial).norm),
        "final_mean_square": ((), result.mean_square),
        "final_singular_value": (("final_index",), values),
        "final_effective_rank": ((), spectra.effective_rank(values)),
        "final_nuclear_norm": ((), spectra.nuclear_norm(values)),
    }
    if error is not None:
        variables["final_relative_error"] = ((), error)
    if end.held_out_rmse is not None:
        variables["final_held_out_rmse"] = ((), end.held_out_rmse)
    extra = {name: dims for recorder in plan.record for name, dims in recorder.dims.items()}
    for name, value in result.records.items():
        variables[name] = ((plan.moment, *extra[name]), value)
    dataset = xr.Dataset({name: (("run", *dims), value.cpu().numpy()) for name, (dims, value) in variables.items()})
    # Numbered only until batches are joined, so that spectra of different lengths can stand in one dataset.
    return dataset.assign_coords(
        {name: np.arange(dataset.sizes[name]) for name in ("index", "final_index") if name in dataset.sizes}
    )


def _assemble(plan: Sweep, parts: list[xr.Dataset]) -> xr.Dataset:
    """Put the batches together: dimension ``run`` becomes the dimensions of the grid."""
    # Runs of different shapes have spectra of different lengths; missing entries are nan.
    joined = xr.concat(parts, dim="run", join="outer", data_vars="all").sortby("run")
    sizes = {name: len(values) for name, values in plan.grid.items()}
    shaped = {}
    for name, variable in joined.data_vars.items():
        rest = variable.dims[1:]
        values = variable.values.reshape((*sizes.values(), *variable.shape[1:]))
        shaped[name] = ((*sizes, *rest), values)
    coords: dict[str, Any] = {
        name: list(values) for name, values in plan.grid.items() if all(item is not None for item in values)
    }
    if plan.record:
        coords[plan.moment] = np.asarray(plan.record_at, dtype=float if plan.moment == "time" else int)
    if "alignment_mean" in shaped:
        coords["place"] = ["on", "off"]
    dataset = xr.Dataset(shaped, coords=coords)
    return dataset.assign_attrs(
        specification=json.dumps(plan.specification, sort_keys=True),
        total_wall_seconds=float(dataset["wall_seconds"].sum()),
        total_evaluations=int(dataset["n_evaluations"].sum()),
        executor=_distinct(parts, "executor"),
        # Parts are computed where there is a worker, and those of an older version do not say all of it.
        **run_provenance({name: _distinct(parts, name) for name in ("device", "processor", "kernels")}),
    )


def _distinct(parts: list[xr.Dataset], name: str) -> str:
    """All values that an attribute has among the parts of a result."""
    return "; ".join(sorted({part.attrs.get(name, "not recorded") for part in parts}))
