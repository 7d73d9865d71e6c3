"""Make a part of a stored result again, from nothing but what the result says of itself."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import xarray as xr

from dmfkit import record, tasks
from dmfkit.descent import Descent
from dmfkit.flow import Flow
from dmfkit.sweeps import Sweep, sweep

_KINDS: dict[str, Any] = {
    kind.__name__: kind
    for kind in (
        *(tasks.CompletionTask, tasks.SensingTask, tasks.RatingsTask, tasks.Start, Descent, Flow),
        *(record.Alignment, record.EffectiveRank, record.Loss, record.RelativeError, record.SingularValues),
    )
}


def plan_of(dataset: xr.Dataset) -> Sweep:
    """Rebuild the sweep that a dataset's attributes describe."""
    specification = json.loads(dataset.attrs["specification"])

    def made(values: dict[str, Any]) -> Any:
        plain = {name: tuple(item) if isinstance(item, list) else item for name, item in values.items()}
        return _KINDS[str(plain.pop("kind"))](**plain)

    grid = {name: tuple(values) for name, values in specification["grid"].items()}
    return Sweep(
        task=made(specification["task"]),
        start=made(specification["start"]),
        method=made(specification["method"]),
        grid={name: grid[name] for name in _order(dataset, grid)},
        record=tuple(made(values) for values in specification["record"]),
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
        if isinstance(method, Descent):
            method = replace(method, max_steps=int(until))
        else:
            method = replace(method, horizon=until)
    single: dict[str, Any] = {name: (value,) for name, value in point.items()}
    return sweep(plan.task, plan.start, method, record=plan.record, record_at=moments, device=device, **single)


def _order(dataset: xr.Dataset, grid: dict[str, Any]) -> list[str]:
    """Names of the grid in the order of the dataset's dimensions (JSON with sorted keys does not keep it)."""
    return [str(name) for name in dataset["status"].dims if name in grid]
