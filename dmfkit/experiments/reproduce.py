"""Make a part of a stored result again, from nothing but what the result says of itself."""

from __future__ import annotations

import json
from typing import Any

import torch
import xarray as xr

import dmfkit.theory.singular_values  # noqa: F401 (defines the recorder SingularValueSpeeds)
from dmfkit.experiments.nuclear_norms import NuclearNormGrid
from dmfkit.experiments.sweeps import Sweep, sweep
from dmfkit.experiments.work_precision import Contest
from dmfkit.nuclear_norm.splitting import Bounds, bounds
from dmfkit.values import from_key_values


def kind_of(dataset: xr.Dataset) -> str:
    """What a stored result is: ``"sweep"``, ``"timing"``, ``"work_precision"`` or ``"nuclear_norm"``."""
    if "kind" in dataset.attrs:
        return str(dataset.attrs["kind"])
    # Results from before files said it themselves have different words in their specifications.
    specification = json.loads(dataset.attrs["specification"])
    for kind in ("timing", "work_precision"):
        if kind in specification:
            return kind
    return "sweep" if "start" in specification else "nuclear_norm"


def plan_of(dataset: xr.Dataset) -> Sweep:
    """Rebuild the sweep that a dataset's attributes describe."""
    specification = json.loads(dataset.attrs["specification"])
    return Sweep(
        task=from_key_values(specification["task"]),
        start=from_key_values(specification["start"]),
        method=from_key_values(specification["method"]),
        grid=_grid(dataset, specification),
        record=tuple(from_key_values(values) for values in specification["record"]),
        record_at=tuple(specification["record_at"]),
    )


def recompute_point(
    plan: Sweep, point: dict[str, Any], *, until: float | None = None, device: str = "auto"
) -> xr.Dataset:
    """Train one grid point of `plan` again, if asked only `until` some step number or flow time.

    Returns
    -------
    xarray.Dataset
        Like the stored one with the grid's dimensions of length one. With `until`, only moments up to it are recorded,
        and what is said of the end of the run is that of its shortened self.
    """
    method, moments = plan.method, plan.record_at
    if until is not None:
        moments = tuple(moment for moment in moments if moment <= until)
        method = method.until(until)
    single: dict[str, Any] = {name: (value,) for name, value in point.items()}
    return sweep(plan.task, plan.start, method, record=plan.record, record_at=moments, device=device, **single)


def nuclear_norms_of(dataset: xr.Dataset) -> NuclearNormGrid:
    """Rebuild the grid of minimum-nuclear-norm problems that a dataset's attributes describe."""
    specification = json.loads(dataset.attrs["specification"])
    return NuclearNormGrid(
        task=from_key_values(specification["task"]),
        method=from_key_values(specification["method"]),
        grid=_grid(dataset, specification),
    )


def certified(dataset: xr.Dataset, point: dict[str, Any]) -> Bounds:
    """Bounds of the least nuclear norm at one grid point, from the stored matrix and multipliers and nothing else.

    The observations are drawn again from the task; the solver is not asked.
    """
    plan = nuclear_norms_of(dataset)
    problem = plan.at(point)[0].problem()
    stored = dataset.isel({name: plan.grid[name].index(value) for name, value in point.items()})
    matrix = torch.from_numpy(stored["matrix"].values)[: problem.shape[0], : problem.shape[1]]
    multipliers = torch.from_numpy(stored["multiplier"].values)[: problem.n_observations]
    return bounds(problem.observation_operator(), matrix, multipliers)


def contest_of(dataset: xr.Dataset) -> Contest:
    """Rebuild the comparison of integrators that a dataset's attributes describe."""
    specification = json.loads(dataset.attrs["specification"])
    chosen = specification["work_precision"]
    return Contest(
        task=from_key_values(specification["task"]),
        start=from_key_values(specification["start"]),
        rtols=tuple(chosen["rtols"]),
        lr_shares=tuple(chosen["lr_shares"]),
        stop=chosen["stop"],
    )


def _grid(dataset: xr.Dataset, specification: dict[str, Any]) -> dict[str, tuple[Any, ...]]:
    """Return the grid in the order of the dataset's dimensions (JSON with sorted keys does not keep it)."""
    grid = {name: tuple(values) for name, values in specification["grid"].items()}
    return {str(name): grid[str(name)] for name in dataset["status"].dims if name in grid}
