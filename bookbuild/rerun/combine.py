"""What the runs of a notebook exported, side by side in one labelled dataset."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
import xarray as xr

from bookbuild.outputs import collect_claims, collect_results
from bookbuild.rerun.plan import Plan, text
from dmfkit.errors import InputError
from dmfkit.experiments.provenance import commit, versions

# Names of what every dataset holds.
RESERVED = ("verdict", "measured", "failure", "executed", "wall_seconds")


def combine(plan: Plan, executed: Mapping[str, Path], failures: Mapping[str, str]) -> xr.Dataset:
    """Put the results of all runs side by side.

    Parameters
    ----------
    plan : Plan
    executed : mapping
        By the name of a run the path of its executed notebook; there is no such file where it failed.
    failures : mapping
        By the name of a run what went wrong.

    Returns
    -------
    xarray.Dataset
        Dimensions are those of the grid, or ``set`` for a list of sets, whose parameters are then coordinates along it;
        further ones are those of the results that the notebook exports. A coordinate that only some runs have, and what
        a failed run would have had, is filled with ``nan``. A parameter whose values are lists is labelled by text. A
        dimension of the results that is called like one of the grid gets ``_in_chapter`` appended.

        Besides the exported results: ``verdict`` and ``measured`` over ``claim``, empty where a run does not settle the
        claim; ``failure``, empty where there was none; ``executed``, name of the executed notebook; ``wall_seconds``.
        Attributes say what was run.
    """
    grid = {name: _labels(values) for name, values in plan.axes.items()} or {"set": list(range(len(plan.runs)))}
    names = [run.name for run in plan.runs]
    found = {name: path for name, path in executed.items() if path.is_file()}
    variables = {name: array.rename(_free(array, grid)) for name, array in _results(names, found).items()}
    variables |= _verdicts(names, found)
    variables["failure"] = _over_runs([failures.get(name, "") for name in names])
    variables["executed"] = _over_runs([found[name].name if name in found else "" for name in names])
    variables["wall_seconds"] = _over_runs([_seconds(found.get(name)) for name in names])
    shaped = {name: _unfold(array, grid) for name, array in variables.items()}
    dataset = xr.Dataset(shaped).assign_coords(grid)
    if not plan.axes:
        dataset = dataset.assign_coords(_set_coordinates(plan, taken=set(dataset.variables)))
    return dataset.assign_attrs(_attributes(plan))


def _results(names: Sequence[str], found: Mapping[str, Path]) -> dict[str, xr.DataArray]:
    """Exported results by name, over ``run`` and the dimensions that it had; all runs are there."""
    results = {run: collect_results(path) for run, path in found.items()}
    variables = {}
    for variable in dict.fromkeys(name for collected in results.values() for name in collected):
        if variable in RESERVED:
            raise InputError(
                f"A result cannot be called {variable}, like one of the dataset's own variables: rename it."
            )
        runs = [run for run in names if variable in results.get(run, {})]
        joined = xr.concat([results[run][variable] for run in runs], dim="run", join="outer")
        variables[variable] = joined.assign_coords(run=[names.index(run) for run in runs]).reindex(
            run=range(len(names))
        )
    return variables


def _verdicts(names: Sequence[str], found: Mapping[str, Path]) -> dict[str, xr.DataArray]:
    claims = {run: collect_claims([path], "") for run, path in found.items()}
    identifiers = list(dict.fromkeys(identifier for settled in claims.values() for identifier in settled))
    if not identifiers:
        return {}
    rows = [[claims.get(run, {}).get(identifier, {}) for identifier in identifiers] for run in names]
    return {
        name: xr.DataArray(
            np.array([[settled.get(name, "") for settled in row] for row in rows], dtype=object),
            dims=("run", "claim"),
            coords={"claim": identifiers},
        )
        for name in ("verdict", "measured")
    }


def _over_runs(values: list[Any]) -> xr.DataArray:
    texts = any(isinstance(value, str) for value in values)
    return xr.DataArray(np.array(values, dtype=object if texts else float), dims="run")


def _seconds(path: Path | None) -> float:
    return float("nan") if path is None else float(nbformat.read(path, as_version=4).metadata.papermill.duration)


def _free(array: xr.DataArray, grid: Mapping[str, Any]) -> dict[Any, str]:
    return {dim: f"{dim}_in_chapter" for dim in array.dims if dim in grid}


def _unfold(array: xr.DataArray, grid: Mapping[str, Sequence[Any]]) -> xr.DataArray:
    """Replace the dimension ``run`` by those of the grid."""
    rest = [dim for dim in array.dims if dim != "run"]
    values = array.transpose("run", *rest).values
    shape = (*map(len, grid.values()), *values.shape[1:])
    return xr.DataArray(values.reshape(shape), dims=(*grid, *rest), coords={dim: array[dim] for dim in rest})


def _labels(values: Sequence[Any]) -> list[Any]:
    """Values that a coordinate can hold: numbers where all of them are, else text."""
    numbers = all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)
    return list(values) if numbers else [text(value) for value in values]


def _set_coordinates(plan: Plan, taken: set[Any]) -> dict[str, Any]:
    """The parameters in which the sets of a list differ, along ``set``."""
    named = dict.fromkeys(name for run in plan.runs for name in run.given)
    return {
        f"{name}_given" if name in taken else name: (
            "set",
            _labels([run.injected.get(name, plan.own[name]) for run in plan.runs]),
        )
        for name in named
    }


def _attributes(plan: Plan) -> dict[str, Any]:
    return {
        "notebook": plan.notebook.name,
        "own_settings": json.dumps(plan.own),
        "preset": json.dumps(plan.preset),
        "sets": json.dumps([run.given for run in plan.runs]),
        "versions": versions(),
        "commit": commit(),
    }
