"""One sweep of gradient flows, in this process and on one and two workers on this machine."""

from __future__ import annotations

import time
from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any

import xarray as xr

from benchmarks.rows import Row, compared
from dmfkit import CompletionTask, Flow, Start, cluster, sweep
from dmfkit.errors import InputError

ABSENT = "distributed is not installed, so there are no rows of workers: pip install distributed to have them."
RUNS_PER_BATCH = 3


def rows(task: CompletionTask, depths: Sequence[int], seeds: int, counts: Sequence[int] = (1, 2)) -> list[Row]:
    """Seconds of the sweep; starting workers, and their first imports, are rows of their own.

    Raises
    ------
    InputError
        If a result differs from one place to another: then the times are not of one thing.
    """
    grid: dict[str, Any] = {"depth": tuple(depths), "seed": tuple(range(seeds))}
    number = len(depths) * seeds
    _swept(task, {"seed": (0,)})  # loads what is needed
    began = time.perf_counter()
    here = _swept(task, grid)
    alone = Row(f"sweep of {number} flows: this process", time.perf_counter() - began, "s")
    found = [alone]
    if find_spec("distributed") is None:
        return found
    for count in counts:
        label = f"{count} worker{'s' if count > 1 else ''}"
        began = time.perf_counter()
        with cluster(workers=count) as executor:
            # One run per worker loads what they need.
            _swept(task, {"seed": tuple(range(count))}, executor=executor, runs_per_batch=1)
            ready = time.perf_counter() - began
            began = time.perf_counter()
            there = _swept(task, grid, executor=executor)
            seconds = time.perf_counter() - began
        if not bool((there["n_steps"] == here["n_steps"]).all()):
            raise InputError(f"the sweep took other steps on {label} than here: these times cannot be compared.")
        found.append(compared(f"sweep of {number} flows: {label}, 1 thread each", seconds, "s", alone))
        found.append(Row(f"starting {label}", ready, "s"))
    return found


def _swept(task: CompletionTask, grid: dict[str, Any], **options: Any) -> xr.Dataset:
    return sweep(
        task, Start(), Flow(), name="workers", device="cpu", **{"runs_per_batch": RUNS_PER_BATCH, **options}, **grid
    )
