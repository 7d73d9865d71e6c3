"""Executes a notebook with every one of many parameter sets, and keeps what is finished."""

from __future__ import annotations

import os
import shutil
import sys
from contextlib import closing
from pathlib import Path

from bookbuild.notebooks import Job, JobRunner, run_processes
from bookbuild.project import PAPER, Layout, RerunError, only_one_in, read_preset
from bookbuild.rerun.combine import combine
from bookbuild.rerun.plan import Plan, PlannedRun, label, make_plan, read_sets
from dmfkit.errors import InputError
from dmfkit.experiments.store import write

RESULTS = "results.nc"


def rerun(
    layout: Layout,
    notebook: Path,
    sets: Path,
    *,
    preset: str = PAPER,
    jobs: int | None = None,
    run_jobs: JobRunner = run_processes,
) -> Path:
    """Execute a notebook with every parameter set, and write one dataset of all results.

    Executed notebooks are kept in ``executed`` below the output folder as soon as they are finished, and found there by
    the next call: an interrupted one goes on where it was, and a larger grid computes what is new. Those that failed
    are kept in ``failed``, and tried again.

    Parameters
    ----------
    layout
        `layout.output` gets everything; presets are looked for in `layout.notebooks`.
    notebook, sets
        The notebook, and the YAML file of its parameter sets, see `read_sets`.
    preset
        Name of a preset whose values hold where a set does not have others.
    jobs
        How many notebooks are executed at the same time; one for each processor core by default.
    run_jobs
        Executes them.

    Returns
    -------
    Path
        Of the dataset, see `combine`.

    Raises
    ------
    InputError
        If an argument, a name or a value cannot be used; nothing has been executed then.
    RerunError
        If sets failed; the dataset holds the others.
    """
    if jobs is not None and jobs < 1:
        raise InputError(f"jobs = {jobs} is too small: give the number of notebooks to run at a time, at least 1.")
    notebook = notebook.absolute()
    base = {} if preset == PAPER else read_preset(layout, preset, [notebook])[notebook.stem]
    plan = make_plan(notebook, read_sets(sets), base)
    with only_one_in(layout.output, "re-run"):
        failures = _execute(layout.output, plan, jobs or os.cpu_count() or 1, run_jobs)
        target = layout.output / RESULTS
        write(target, combine(plan, {run.name: _kept(layout.output, run) for run in plan.runs}, failures))
    if failures:
        raise RerunError("\n\n".join([*failures.values(), f"The others are in {target}."]))
    return target


def _execute(output: Path, plan: Plan, at_once: int, run_jobs: JobRunner) -> dict[str, str]:
    """Execute what is not there yet; return a description of each failure by the run's name."""
    shutil.rmtree(output / "running", ignore_errors=True)
    waiting = {run.name: run for run in plan.runs if not _kept(output, run).is_file()}
    before = len(plan.runs) - len(waiting)
    print(f"{len(plan.runs)} parameter sets, {before} of them finished before", file=sys.stderr)
    if not waiting:
        return {}
    failures = dict[str, str]()
    queue = [_job(output, plan, run) for run in waiting.values()]
    with closing(run_jobs(queue, min(at_once, len(queue)))) as ended:
        for one in ended:
            run = waiting[one.job.target.stem]
            folder = "failed" if one.failure else "executed"
            if one.failure:
                failures[run.name] = f"The parameter set {one.job.name} failed.\n{one.failure}"
            if one.job.target.is_file():
                (output / folder).mkdir(exist_ok=True)
                one.job.target.replace(output / folder / one.job.target.name)
            if not one.failure:
                (output / "failed" / one.job.target.name).unlink(missing_ok=True)
    shutil.rmtree(output / "running", ignore_errors=True)
    # In the order of the sets, whatever the order in which they ended.
    return {run.name: failures[run.name] for run in plan.runs if run.name in failures}


def _kept(output: Path, run: PlannedRun) -> Path:
    return output / "executed" / f"{run.name}.ipynb"


def _job(output: Path, plan: Plan, run: PlannedRun) -> Job:
    return Job(
        name=f"({label(run.given)})",
        short=label(run.given)[:24],
        source=plan.notebook,
        target=output / "running" / f"{run.name}.ipynb",
        log=output / "logs" / f"{run.name}.log",
        folder=plan.notebook.parent,
        parameters=run.injected,
    )
