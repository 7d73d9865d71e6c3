"""Execute notebooks by papermill, several at a time, each in a process of its own."""

from __future__ import annotations

import base64
import os
import subprocess
import sys
import time
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import yaml
from tqdm import tqdm

import dmfkit
from dmfkit.book import attended
from dmfkit.book.outcome import count_code_cells, count_finished_cells, describe_failure

POLL_SECONDS = 0.5


@dataclass(frozen=True)
class Job:
    """One notebook to be executed, as plain values.

    Attributes
    ----------
    name, short : str
        How messages and the progress bar call it.
    source, target : Path
        The notebook, and the file that the executed one is written to, cell by cell.
    log : Path
        Gets what papermill prints.
    folder : Path
        The kernel's working folder.
    parameters : mapping
        What papermill injects.
    """

    name: str
    short: str
    source: Path
    target: Path
    log: Path
    folder: Path
    parameters: Mapping[str, Any]


@dataclass(frozen=True)
class Finished:
    """A job that has ended, and what went wrong: the notebook, the cell and the error, or nothing."""

    job: Job
    failure: str = ""


class JobRunner(Protocol):
    """Executes jobs, wherever it likes to, and yields each when it has ended.

    It must stop what still runs when it is closed or interrupted.
    """

    def __call__(self, jobs: Sequence[Job], at_once: int) -> Generator[Finished, None, None]:
        """Execute `jobs`, at most `at_once` at the same time."""


@dataclass(frozen=True)
class _Run:
    """A job whose process has been started."""

    job: Job
    progress: Path
    process: subprocess.Popen[bytes]

    def position(self) -> str:
        """Return what the notebook last said about its progress, with the job's short name."""
        text = self.progress.read_text(encoding="utf-8").strip() if self.progress.exists() else ""
        return f"{self.job.short}: {text.splitlines()[-1]}" if text else ""


def run_processes(jobs: Sequence[Job], at_once: int) -> Generator[Finished, None, None]:
    """Execute jobs in processes of this machine, whose cores are divided among those that run at the same time.

    A `JobRunner`. Shows a progress bar on a terminal.
    """
    waiting, running, finished_cells = list(jobs), list[_Run](), 0
    cells = {job.source: count_code_cells(job.source) for job in jobs}
    total = sum(cells[job.source] for job in jobs)
    # `disable=None`: a bar on a terminal only, and not in the log of a continuous-integration run.
    with tqdm(total=total, unit="cell", desc="notebooks", disable=None) as bar:
        try:
            while waiting or running:
                while waiting and len(running) < at_once:
                    running.append(_start(waiting.pop(0), at_once))
                time.sleep(POLL_SECONDS)
                for run in [run for run in running if run.process.poll() is not None]:
                    running.remove(run)
                    job = run.job
                    finished_cells += cells[job.source]
                    failure = describe_failure(job.source, job.target, job.log, run.process.returncode)
                    tqdm.write(f"{job.name}: {'FAILED' if failure else 'executed'}", file=sys.stderr)
                    yield Finished(job, failure)
                bar.n = min(total, finished_cells + sum(count_finished_cells(run.job.target) for run in running))
                bar.set_postfix_str(" | ".join(filter(None, (run.position() for run in running))))
        finally:
            stop_processes([run.process for run in running])


def _start(job: Job, at_once: int) -> _Run:
    for folder in (job.target.parent, job.log.parent):
        folder.mkdir(parents=True, exist_ok=True)
    job.target.unlink(missing_ok=True)
    progress = job.log.with_suffix(".progress")
    progress.unlink(missing_ok=True)
    environment = {**notebook_environment(threads_for(at_once)), "DMFKIT_PROGRESS": str(progress)}
    return _Run(job, progress, start_papermill(job, environment))


def start_papermill(job: Job, environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
    """Start the execution of a notebook, which ends with this process; the folders of target and log must exist."""
    command = [sys.executable, attended.__file__, str(os.getpid())]
    command += [str(job.source), str(job.target), "--cwd", str(job.folder)]
    command += ["--kernel", "python3", "--no-progress-bar"]
    if job.parameters:
        encoded = base64.b64encode(yaml.safe_dump(dict(job.parameters)).encode())
        command += ["--parameters_base64", encoded.decode()]
    with job.log.open("wb") as stream:
        # A session of its own: Ctrl-C reaches this process only, which then stops the workers itself.
        return subprocess.Popen(command, stdout=stream, stderr=stream, env=dict(environment), start_new_session=True)


def threads_for(at_once: int) -> int:
    """Threads of each of several notebooks that share the cores of this machine."""
    return max(1, (os.cpu_count() or 1) // at_once)


def notebook_environment(n_threads: int) -> dict[str, str]:
    """Environment variables of a process that executes a notebook on so many threads."""
    package_root = str(Path(dmfkit.__path__[0]).parent)
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    return {
        # Threads that wait for each other sleep. Spinning, the default, makes a busy machine many times slower.
        "OMP_WAIT_POLICY": "PASSIVE",
        **os.environ,
        **dict.fromkeys(names, str(n_threads)),
        # The chapters use the very package that builds them, installed or not.
        "PYTHONPATH": os.pathsep.join(filter(None, (package_root, os.environ.get("PYTHONPATH")))),
    }


def stop_processes(processes: Sequence[subprocess.Popen[bytes]]) -> None:
    """Stop what still runs; papermill shuts its kernel down when it is terminated."""
    for process in processes:
        process.terminate()
    for process in processes:
        try:
            process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            process.kill()
