"""Execute notebooks by papermill, several at a time, each in a process of its own.

Execute the chapters of the book.

Which chapter to start first when everything is computed anew.

What a notebook that papermill has written, or is writing, says about its cells.

Clear from a notebook everything that running it leaves behind.
"""

from __future__ import annotations

import base64
import copy
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import nbformat
import yaml
from nbformat import NotebookNode
from tqdm import tqdm

import dmfkit
from bookbuild import attended
from bookbuild.project import Layout
from dmfkit.experiments.store import read

LAST_LINES = 12
_ANSI_COLOUR = re.compile(r"\x1b\[[0-9;]*m")


def count_code_cells(notebook: Path) -> int:
    """Return the number of code cells of a notebook."""
    return sum(cell.cell_type == "code" for cell in nbformat.read(notebook, as_version=4).cells)


def count_finished_cells(notebook: Path) -> int:
    """Return the number of code cells that papermill has executed so far, 0 while it is writing the file."""
    try:
        cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    except (OSError, ValueError):
        return 0
    return sum(cell["cell_type"] == "code" and _status(cell) == "completed" for cell in cells)


def describe_failure(source: Path, executed: Path, log: Path, return_code: int) -> str:
    """Return a text that names the chapter, the failing cell and the error, or "" where none failed."""
    if return_code == 0:
        return ""
    cell = _failed_cell(executed)
    printed = log.read_text(encoding="utf-8")
    if cell is None:
        return f"{source.stem} could not be executed:\n{_last_lines(printed)}"
    # papermill inserts cells, so the position is taken from the source, where the author looks for it.
    positions = {cell.id: n for n, cell in enumerate(nbformat.read(source, as_version=4).cells, start=1)}
    place = f"cell {positions[cell.id]}" if cell.id in positions else "the injected parameters' cell"
    first_line = cell.source.strip().partition("\n")[0]
    errors = _errors(cell)
    # Without an error output the kernel died; papermill's log is then all there is.
    text = "\n".join(errors[0].traceback) if errors else printed
    return f"{source.stem}, {place} (id {cell.id}: {first_line!r}) failed:\n{_last_lines(text)}"


def _failed_cell(executed: Path) -> Any:
    """Return the cell with an error; where there is none, the one that ran last; where none ran, nothing."""
    try:
        cells = nbformat.read(executed, as_version=4).cells
    except (OSError, ValueError):
        return None
    started = [c for c in cells if c.cell_type == "code" and c.metadata.get("papermill", {}).get("start_time")]
    return next((cell for cell in started if _errors(cell)), started[-1] if started else None)


def _errors(cell: Any) -> list[Any]:
    return [output for output in cell.get("outputs", []) if output.output_type == "error"]


def _status(cell: Any) -> str | None:
    return cell["metadata"].get("papermill", {}).get("status")


def _last_lines(text: str) -> str:
    lines = _ANSI_COLOUR.sub("", text).strip().splitlines()
    return "\n".join(f"    {line}" for line in lines[-LAST_LINES:])


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


def execute(
    layout: Layout, chapters: Sequence[Path], parameters: Mapping[str, Mapping[str, Any]], jobs: int
) -> list[str]:
    """Execute chapters into `layout.executed` and return a description of each failure.

    Parameters
    ----------
    layout
        The folders of the build; the kernels' working folder is `layout.notebooks`.
    chapters
        The notebooks.
    parameters
        For each chapter's name the values that papermill injects.
    jobs
        How many chapters run at the same time; the processor's cores are divided among them.
    """
    for folder in (layout.executed, layout.logs):
        folder.mkdir(parents=True, exist_ok=True)
    for chapter in chapters:
        layout.executed_notebook(chapter.stem).unlink(missing_ok=True)
    queue = [
        Job(
            name=chapter.stem,
            short=chapter.stem.partition("_")[0],
            source=chapter,
            target=layout.executed_notebook(chapter.stem),
            log=layout.logs / f"{chapter.stem}.log",
            folder=layout.notebooks,
            parameters=parameters[chapter.stem],
        )
        for chapter in chapters
    ]
    with closing(run_processes(queue, jobs)) as finished:
        return [one.failure for one in finished if one.failure]


def longest_first(layout: Layout, chapters: Sequence[Path]) -> list[Path]:
    """Return the chapters, those first whose stored results took longest to compute.

    A long chapter that starts last leaves all processor cores but one without work. The names of results stand in a
    chapter's source, and the results that come with the book say what they cost.
    """
    seconds: dict[str, float] = {}
    for path in (layout.notebooks / "results").glob("*.nc"):
        name = path.stem.rpartition("-")[0]
        seconds[name] = seconds.get(name, 0.0) + float(read(path).attrs.get("total_wall_seconds", 0.0))

    def cost(chapter: Path) -> float:
        # In the notebook's JSON a quoted name stands between escaped quotation marks.
        source = chapter.read_text(encoding="utf-8")
        return sum(value for name, value in seconds.items() if f'\\"{name}\\"' in source)

    return sorted(chapters, key=cost, reverse=True)


_LEFT_BY_RUNNING = ("papermill", "execution", "ExecuteTime", "collapsed", "scrolled")


def strip(notebook: NotebookNode) -> NotebookNode:
    """Return the notebook without outputs, counts, injected parameters and widget state; ids stay."""
    clean = copy.deepcopy(notebook)
    clean.cells = [cell for cell in clean.cells if "injected-parameters" not in cell.metadata.get("tags", [])]
    for cell in clean.cells:
        if cell.cell_type == "code":
            cell.outputs = []
            cell.execution_count = None
        for key in _LEFT_BY_RUNNING:
            cell.metadata.pop(key, None)
    for key in ("widgets", *_LEFT_BY_RUNNING):
        clean.metadata.pop(key, None)
    # The exact Python of whoever ran it last would make every commit differ.
    clean.metadata.get("language_info", {}).pop("version", None)
    return clean


def strip_file(path: Path) -> bool:
    """Strip one notebook file in place and return whether that changed it."""
    notebook = nbformat.read(path, as_version=4)
    clean = strip(notebook)
    if clean == notebook:
        return False
    temporary = path.with_name(path.name + ".new")
    nbformat.write(clean, temporary)
    temporary.replace(path)
    return True
