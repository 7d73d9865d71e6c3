"""Execute notebooks by papermill, several at a time, each in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from papermill.exceptions import strip_color
from tqdm import tqdm

import dmfkit

# Not imported: this process starts it.
PAPERMILL_PROCESS = Path(__file__).with_name("papermill_process.py")
# Tags of the cells that papermill inserts.
INSERTED = frozenset({"injected-parameters", "papermill-error-cell-tag"})
LAST_LINES = 12
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

    def finished_cells(self) -> int:
        """Return the number of code cells that papermill has executed so far."""
        return sum(_papermill(cell).get("status") == "completed" for cell in _code_cells(self.job.target))


# Not a `ProcessPoolExecutor`, which is worse here. One worker that is killed, as a machine short of memory does, breaks
# the pool, and every other notebook that runs is lost with it. A new process for each notebook needs
# `max_tasks_per_child=1`, hence a start method that imports `__main__` in each, PyTorch and Sphinx with it: that took
# 4.0 s of a processor where papermill alone took 0.5 s. And before Python 3.14 no pool can be told to stop what runs.
def run_processes(jobs: Sequence[Job], at_once: int) -> Generator[Finished, None, None]:
    """Execute jobs in processes of this machine, whose cores are divided among those that run at the same time.

    A `JobRunner`. Shows a progress bar on a terminal.
    """
    waiting, running, finished_cells = list(jobs), list[_Run](), 0
    cells = {job.source: len(_code_cells(job.source)) for job in jobs}
    # `disable=None`: a bar on a terminal only, and not in the log of a continuous-integration run.
    with tqdm(total=sum(cells[job.source] for job in jobs), unit="cell", desc="notebooks", disable=None) as bar:
        try:
            while waiting or running:
                while waiting and len(running) < at_once:
                    running.append(_start(waiting.pop(0), at_once))
                time.sleep(POLL_SECONDS)
                for run in [run for run in running if run.process.poll() is not None]:
                    running.remove(run)
                    finished_cells += cells[run.job.source]
                    failure = describe_failure(run.job.source, run.job.target, run.job.log, run.process.returncode)
                    tqdm.write(f"{run.job.name}: {'FAILED' if failure else 'executed'}", file=sys.stderr)
                    yield Finished(run.job, failure)
                # The cell of injected parameters is one more than the source has.
                bar.n = min(bar.total, finished_cells + sum(run.finished_cells() for run in running))
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
    call = {
        "input_path": str(job.source),
        "output_path": str(job.target),
        "parameters": dict(job.parameters),
        "cwd": str(job.folder),
    }
    # -P: what lies beside the script is not to be imported instead of a library.
    command = [sys.executable, "-P", str(PAPERMILL_PROCESS), json.dumps(call)]
    with job.log.open("wb") as log:
        return subprocess.Popen(
            command,
            stdin=subprocess.PIPE,  # nothing is written to it: it closes when this process ends
            stdout=log,
            stderr=log,
            env=dict(environment),
            start_new_session=True,  # Ctrl-C reaches this process only, which then stops the others itself
        )


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


def describe_failure(source: Path, executed: Path, log: Path, return_code: int) -> str:
    """Return a text that names the notebook, the failing cell and the error; empty where none failed.

    All of it is read from what papermill left, the executed notebook and the log. A `PapermillExecutionError` knows
    less: neither the cell's id nor its place among the cells that the author wrote, and it is not raised when a kernel
    dies.

    Parameters
    ----------
    source, executed, log : Path
        The notebook, what papermill made of it, if it came so far, and what it printed.
    return_code : int
        Of the process that executed the notebook.
    """
    if return_code == 0:
        return ""
    printed = log.read_text(encoding="utf-8")
    started = [cell for cell in _code_cells(executed) if _papermill(cell).get("start_time")]
    if not started:
        return f"{source.stem} could not be executed:\n{_last_lines(printed)}"
    failed = started[-1]  # papermill stops at the first failure
    # Counted without the cells that papermill inserts, as in the source, where the author looks for it.
    own = [cell for cell in _cells(executed) if INSERTED.isdisjoint(cell["metadata"].get("tags", []))]
    place = f"cell {own.index(failed) + 1}" if failed in own else "the injected parameters' cell"
    first_line = "".join(failed["source"]).strip().partition("\n")[0]
    errors = [output for output in failed["outputs"] if output["output_type"] == "error"]
    # Without an error output the kernel died, or papermill did; the log is then all there is, if anything.
    text = "\n".join(errors[-1]["traceback"]) if errors else printed or f"papermill ended with code {return_code}"
    return f"{source.stem}, {place} (id {failed['id']}: {first_line!r}) failed:\n{_last_lines(text)}"


def _last_lines(text: str) -> str:
    return "\n".join(f"    {line}" for line in strip_color(text).strip().splitlines()[-LAST_LINES:])


def _cells(notebook: Path) -> list[dict[str, Any]]:
    """Return the cells of a notebook; none where there is no file, or papermill is writing it this moment."""
    try:
        cells: list[dict[str, Any]] = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    except (OSError, ValueError):
        return []
    return cells


def _code_cells(notebook: Path) -> list[dict[str, Any]]:
    return [cell for cell in _cells(notebook) if cell["cell_type"] == "code"]


def _papermill(cell: Mapping[str, Any]) -> Mapping[str, Any]:
    """What papermill noted about the execution of a cell."""
    noted: Mapping[str, Any] = cell["metadata"].get("papermill", {})
    return noted
