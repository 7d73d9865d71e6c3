"""The whole grids of Figure 1 of Arora et al. (2019), with the settings of the chapter on it."""

from __future__ import annotations

import contextlib
import os
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import nbformat

from benchmarks.rows import Row
from dmfkit import CompletionTask, Descent, Flow, Start, Status, cluster, sweep
from dmfkit.chapters.settings import literals

CHAPTER = Path(__file__).parents[1] / "notebooks" / "01_matrix_completion.ipynb"


def settings() -> dict[str, Any]:
    """Read the chapter's parameters."""
    cells = nbformat.read(CHAPTER, as_version=4).cells
    return literals(next(cell.source for cell in cells if "parameters" in cell.metadata.get("tags", [])))


def rows(parameters: dict[str, Any], device: str, workers: int | None) -> list[Row]:
    """Train both grids anew and store nothing; on the terminal a bar says how far they are.

    Parameters
    ----------
    parameters : dict
        As `settings` returns.
    device : str
    workers : int, optional
        Processes of one thread each, side by side; 1 trains in this process. Without a number there are as many as
        cores, where the package distributed is there to start them.
    """
    p = parameters
    task = CompletionTask(d=p["d"], rank=p["rank"], data_seed=p["data_seed"])
    limits = {"stop": p["stop"]}
    grid = {"n_observed": p["n_observed"], "depth": p["depths"], "init_scale": p["init_scales"], "seed": p["seeds"]}
    plans: dict[str, tuple[Descent | Flow, dict[str, Any]]] = {
        "flow": (Flow(rtol=p["flow_rtol"], **limits), grid),
        "descent": (Descent(max_steps=p["max_steps"], **limits), {**grid, "lr": p["lrs"]}),
    }
    count = workers or (1 if find_spec("distributed") is None or device == "cuda" else os.cpu_count() or 1)
    found = [Row("Figure 1: processes side by side", float(count), "")]
    with contextlib.ExitStack() as stack:
        executor = stack.enter_context(cluster(workers=count)) if count > 1 else None
        for label, (method, points) in plans.items():
            began = time.perf_counter()
            done = sweep(task, Start(), method, name=f"Figure 1, {label}", device=device, executor=executor, **points)
            seconds = time.perf_counter() - began
            name = f"Figure 1, {label} grid"
            found += [
                Row(name, seconds, "s"),
                Row(f"{name}: runs", float(done["status"].size), ""),
                Row(f"{name}: runs that reached the stop", float((done["status"] == Status.CONVERGED).sum()), ""),
                Row(f"{name}: evaluations", float(done.attrs["total_evaluations"]), ""),
            ]
    return found
