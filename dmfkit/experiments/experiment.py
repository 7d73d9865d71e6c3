"""An experiment: points of a grid that are computed in batches, stored, and put together as one labelled dataset.

`Sweep`, `NuclearNormGrid`, `StepTiming` and `Contest` are experiments: plain values that say what is computed.
`find_or_compute` looks whether that is stored; if not, it runs the batches one after the other or on an executor,
keeps each as soon as it is finished, and writes the whole with what made it.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import shutil
from collections.abc import Callable, Generator, Mapping, Sequence, Set
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np
import torch
import xarray as xr

from dmfkit.errors import InputError
from dmfkit.experiments.cluster import completed, description
from dmfkit.experiments.interrupts import noticed_interrupts
from dmfkit.experiments.progress import Progress
from dmfkit.experiments.provenance import hardware, run_provenance
from dmfkit.experiments.store import Store, read_part, specification_key, write
from dmfkit.problems.losses import Problem
from dmfkit.problems.tasks import Task


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


@dataclass(frozen=True)
class Batch:
    """Points of an experiment that are computed together.

    Attributes
    ----------
    indices : tuple of int
        Their numbers among the experiment's points.
    points : tuple
        What is computed at each of them, with the grid's values put in.
    """

    indices: tuple[int, ...]
    points: tuple[Any, ...]


class Experiment(Protocol):
    """Plain values that say what is computed, and how; may be sent to another process.

    Attributes
    ----------
    kind : str
        What stored results say they are.
    counted : str
        Name of the variable that counts evaluations.
    """

    kind: ClassVar[str]
    counted: ClassVar[str]

    @property
    def specification(self) -> dict[str, Any]:
        """Everything that determines the numbers, as plain values; the key of the result is a checksum of it."""

    @property
    def points(self) -> Sequence[Any]:
        """What is computed, in order; progress counts them."""

    def batches(self) -> list[Batch]:
        """Divide all points among batches; raises `InputError` for any that cannot be computed."""

    def run(
        self, batch: Batch, device: torch.device, on_end: Callable[[int], None] | None, problems: LatestProblem
    ) -> xr.Dataset:
        """Compute one batch.

        `on_end` is called with the number of points that have ended, all of the batch's in the end; `problems` keeps
        the problem from one batch to the next.

        Returns
        -------
        xarray.Dataset
            Holds ``wall_seconds`` and the variable that `counted` names, besides what was asked for.
        """

    def assemble(self, parts: list[xr.Dataset]) -> xr.Dataset:
        """Put together what `run` returned for the batches, in their order."""


def find_or_compute(
    experiment: Experiment,
    name: str,
    *,
    store: Store | None,
    recompute: bool,
    device: str = "auto",
    executor: Executor | None = None,
) -> xr.Dataset:
    """Return the stored result of an experiment, or compute and store it.

    Parameters
    ----------
    experiment : Experiment
    name : str
        Names the stored file, and what progress displays say.
    store : Store or None
        Without one nothing is looked for and nothing is kept.
    recompute : bool
        Compute anew even if there is a stored result; finished batches of an interrupted computation are used.
    device : {"auto", "cpu", "cuda"}
        Chosen where the batches are computed.
    executor : concurrent.futures.Executor, optional
        Computes the batches; without one this process does, one after the other.

    Returns
    -------
    xarray.Dataset
        With the attributes ``kind``, ``specification``, ``key``, ``loaded_from_store``, ``total_wall_seconds``,
        ``total_evaluations``, ``executor``, and those of `run_provenance`.
    """
    if not (executor is None or isinstance(executor, Executor)):
        raise InputError(
            f"executor = {executor!r} cannot be used: give a concurrent.futures.Executor, such as dm.cluster() makes, "
            "or leave it out."
        )
    key = specification_key(experiment.specification)
    if store is None:
        return _compute(experiment, name, None, device, executor).assign_attrs(key=key, loaded_from_store=0)
    if not recompute and (found := store.find(name, key)) is not None:
        return found.assign_attrs(loaded_from_store=1)
    with store.lock(name, key):
        # Another process may have computed it while this one waited.
        if not recompute and (found := store.find(name, key)) is not None:
            return found.assign_attrs(loaded_from_store=1)
        folder = store.parts(name, key)
        dataset = _compute(experiment, name, folder, device, executor)
        store.write(name, key, dataset)
        shutil.rmtree(folder, ignore_errors=True)
    return dataset.assign_attrs(key=key, loaded_from_store=0)


def _compute(
    experiment: Experiment, label: str, folder: Path | None, device: str, executor: Executor | None
) -> xr.Dataset:
    """Compute what is missing in the folder of finished batches, each kept there as soon as it is finished."""
    batches = dict(enumerate(experiment.batches()))
    paths = {
        number: None if folder is None else folder / f"{batch.indices[0]:06d}-{len(batch.indices)}.nc"
        for number, batch in batches.items()
    }
    finished = {number: part for number, path in paths.items() if (part := read_part(path)) is not None}
    missing = {number: batch for number, batch in batches.items() if number not in finished}
    with Progress(len(experiment.points), label) as progress, noticed_interrupts() as interrupted:
        progress.advance(sum(len(batches[number].indices) for number in finished))
        with contextlib.closing(_parts(experiment, missing, device, progress, executor)) as arriving:
            for number, part in arriving:
                if (path := paths[number]) is not None:
                    write(path, part)
                finished[number] = part
                if interrupted.is_set():
                    raise KeyboardInterrupt
    parts = [finished[number] for number in batches]
    dataset = experiment.assemble(parts)
    return dataset.assign_attrs(
        kind=experiment.kind,
        specification=json.dumps(experiment.specification, sort_keys=True),
        total_wall_seconds=float(dataset["wall_seconds"].sum()),
        total_evaluations=int(dataset[experiment.counted].clip(min=0).sum()),
        executor=_distinct(parts, "executor"),
        # Parts are computed where there is a worker, and those of an older version do not say all of it.
        **run_provenance({name: _distinct(parts, name) for name in ("device", "processor", "kernels")}),
    )


def _parts(
    experiment: Experiment, batches: Mapping[int, Batch], device: str, progress: Progress, executor: Executor | None
) -> Generator[tuple[int, xr.Dataset], None, None]:
    """Compute batches and give back each with its number: in their order here, as they are finished on an executor."""
    if executor is None:
        problems = LatestProblem()
        for number, batch in batches.items():
            part = _run(experiment, batch, device, progress.advance, problems)
            yield number, part.assign_attrs(executor="this process")
        return
    calls = {number: (experiment, batch, device) for number, batch in batches.items()}
    with contextlib.closing(completed(executor, run_batch, calls)) as arriving:
        for number, part in arriving:
            progress.advance(len(batches[number].indices))
            yield number, part.assign_attrs(executor=description(executor))


def run_batch(experiment: Experiment, batch: Batch, device: str) -> xr.Dataset:
    """Compute one batch where this is called: what an executor is given."""
    return _run(experiment, batch, device, None, LatestProblem())


def _run(
    experiment: Experiment,
    batch: Batch,
    device: str,
    on_end: Callable[[int], None] | None,
    problems: LatestProblem,
) -> xr.Dataset:
    chosen = choose_device(device)
    return experiment.run(batch, chosen, on_end, problems).assign_attrs(hardware(chosen))


def on_grid(parts: list[xr.Dataset], grid: Mapping[str, tuple[Any, ...]]) -> xr.Dataset:
    """Join batches along their dimension ``run``, numbered by the grid, and make of it the dimensions of the grid.

    Other numbered dimensions are padded with ``nan`` where they have different lengths, as spectra of matrices of
    different sizes do; they are not numbered any more. A dimension of the grid has coordinates unless one of its values
    is None, which netCDF cannot hold.
    """
    joined = xr.concat(parts, dim="run", join="outer", data_vars="all", combine_attrs="drop").sortby("run")
    sizes = {name: len(values) for name, values in grid.items()}
    shaped = {
        name: ((*sizes, *variable.dims[1:]), variable.values.reshape((*sizes.values(), *variable.shape[1:])))
        for name, variable in joined.data_vars.items()
    }
    coords = {name: list(values) for name, values in grid.items() if all(item is not None for item in values)}
    return xr.Dataset(shaped, coords=coords)


def numbered(dataset: xr.Dataset) -> xr.Dataset:
    """Number the dimensions that have no coordinates, so that `on_grid` can pad them."""
    return dataset.assign_coords(
        {str(name): np.arange(size) for name, size in dataset.sizes.items() if name not in dataset.coords}
    )


def _distinct(parts: list[xr.Dataset], name: str) -> str:
    """All values that an attribute has among the parts of a result."""
    return "; ".join(sorted({part.attrs.get(name, "not recorded") for part in parts}))
