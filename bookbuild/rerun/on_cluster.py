"""Executes notebooks on an executor, such as the workers of a Dask cluster."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Executor
from contextlib import AbstractContextManager, closing
from dataclasses import dataclass
from pathlib import Path

import torch
from tqdm import tqdm

from bookbuild.notebooks import (
    Finished,
    Job,
    JobRunner,
    describe_failure,
    notebook_environment,
    start_papermill,
    stop_processes,
    threads_for,
)
from dmfkit.errors import InputError
from dmfkit.experiments.cluster import cluster, completed, description


@dataclass(frozen=True)
class Executed:
    """What a worker sends back.

    Attributes
    ----------
    return_code : int
        Papermill's.
    notebook : str
        The executed notebook as text; empty if papermill has not begun to write it.
    log : str
        What papermill printed.
    """

    return_code: int
    notebook: str
    log: str


def on_cluster(open_executor: Callable[[int], AbstractContextManager[Executor]]) -> JobRunner:
    """Return a runner whose jobs are calls on an executor.

    A call carries the notebook's text and its parameters, and brings the executed notebook back; workers need no folder
    in common with this process. Where they do see the notebook's folder, the notebook runs in it, and finds there what
    a parameter names by a relative path. Dask calls again elsewhere where a worker dies.

    Parameters
    ----------
    open_executor : callable
        Gets the number of notebooks that are to be executed at the same time, where that is not the cluster's to say,
        and returns the executor as a context.
    """

    def run(jobs: Sequence[Job], at_once: int) -> Generator[Finished, None, None]:
        with (
            open_executor(at_once) as executor,
            closing(completed(executor, execute, {n: _arguments(job) for n, job in enumerate(jobs)})) as ended,
            tqdm(total=len(jobs), unit="notebook", desc=description(executor), disable=None) as bar,
        ):
            for number, executed in ended:
                job = jobs[number]
                failure = _bring_home(job, executed)
                tqdm.write(f"{job.name}: {'FAILED' if failure else 'executed'}", file=sys.stderr)
                bar.update()
                yield Finished(job, failure)

    return run


def opener(where: str, jobs: int | None) -> Callable[[int], AbstractContextManager[Executor]]:
    """Return what opens the cluster that a command names.

    Parameters
    ----------
    where : str
        A scheduler's address, or "local".
    jobs : int, optional
        Notebooks executed at a time, as the command was given it.

    Raises
    ------
    InputError
        If `jobs` is given for a cluster whose workers are not started here.
    """
    if where == "local":
        return lambda at_once: cluster(workers=at_once, threads=threads_for(at_once))
    if jobs is not None:
        raise InputError(
            f"jobs = {jobs} is not allowed with the cluster {where}: as many notebooks are executed at a time as it "
            "has threads of workers."
        )
    return lambda _: cluster(where)


def execute(source: str, name: str, parameters: dict[str, object], folder: str) -> Executed:
    """Execute a notebook, given as text, in `folder` if there is one here, else in one that is removed afterwards.

    It gets as many threads as PyTorch has where this is called.
    """
    with tempfile.TemporaryDirectory(prefix="dmfkit-") as scratch:
        here = Path(scratch)
        (here / name).write_text(source, encoding="utf-8")
        work = Path(folder)
        if not work.is_dir():
            work = here / "work"
            work.mkdir()
        job = Job("", "", here / name, here / "executed.ipynb", here / "log", work, parameters)
        process = start_papermill(job, notebook_environment(torch.get_num_threads()))
        try:
            process.wait()
        finally:
            stop_processes([process])
        notebook = job.target.read_text(encoding="utf-8") if job.target.is_file() else ""
        return Executed(process.returncode, notebook, job.log.read_text(encoding="utf-8", errors="replace"))


def _arguments(job: Job) -> tuple[str, str, dict[str, object], str]:
    """The arguments of `execute` for a job."""
    return job.source.read_text(encoding="utf-8"), job.source.name, dict(job.parameters), str(job.folder)


def _bring_home(job: Job, executed: Executed) -> str:
    """Write the executed notebook and its log where the job wants them; return what went wrong."""
    for path, text in ((job.log, executed.log), (job.target, executed.notebook)):
        path.parent.mkdir(parents=True, exist_ok=True)
        if text:
            path.write_text(text, encoding="utf-8")
    return describe_failure(job.source, job.target, job.log, executed.return_code)
