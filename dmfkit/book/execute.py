"""Execute the chapters by papermill, several at a time, each in a process of its own."""

from __future__ import annotations

import base64
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from tqdm import tqdm

import dmfkit
from dmfkit.book.layout import Layout
from dmfkit.book.outcome import count_code_cells, count_finished_cells, describe_failure

POLL_SECONDS = 0.5


@dataclass
class _Run:
    """One chapter being executed."""

    source: Path
    target: Path
    log: Path
    progress: Path
    process: subprocess.Popen[bytes]

    def position(self) -> str:
        """Return what the chapter last said about its progress, with the chapter's name."""
        text = self.progress.read_text(encoding="utf-8").strip() if self.progress.exists() else ""
        return f"{self.source.stem.partition('_')[0]}: {text.splitlines()[-1]}" if text else ""


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
    waiting, running, failures = list(chapters), list[_Run](), list[str]()
    finished_cells = 0
    total = sum(count_code_cells(chapter) for chapter in chapters)
    # `disable=None`: a bar on a terminal only, and not in the log of a continuous-integration run.
    with tqdm(total=total, unit="cell", desc="chapters", disable=None) as bar:
        try:
            while waiting or running:
                while waiting and len(running) < jobs:
                    chapter = waiting.pop(0)
                    running.append(_start(layout, chapter, parameters[chapter.stem], jobs))
                time.sleep(POLL_SECONDS)
                for run in [run for run in running if run.process.poll() is not None]:
                    running.remove(run)
                    finished_cells += count_code_cells(run.source)
                    failure = describe_failure(run.source, run.target, run.log, run.process.returncode)
                    failures += [failure] if failure else []
                    tqdm.write(f"{run.source.stem}: {'FAILED' if failure else 'executed'}", file=sys.stderr)
                bar.n = min(total, finished_cells + sum(count_finished_cells(run.target) for run in running))
                bar.set_postfix_str(" | ".join(filter(None, (run.position() for run in running))))
        finally:
            _stop(running)
    return failures


def _start(layout: Layout, chapter: Path, parameters: Mapping[str, Any], jobs: int) -> _Run:
    target = layout.executed_notebook(chapter.stem)
    log = layout.logs / f"{chapter.stem}.log"
    progress = layout.logs / f"{chapter.stem}.progress"
    progress.unlink(missing_ok=True)
    command = [sys.executable, "-m", "papermill", str(chapter), str(target), "--cwd", str(layout.notebooks)]
    command += ["--kernel", "python3", "--no-progress-bar"]
    if parameters:
        encoded = base64.b64encode(yaml.safe_dump(dict(parameters)).encode())
        command += ["--parameters_base64", encoded.decode()]
    with log.open("wb") as stream:
        # A session of its own: Ctrl-C reaches this process only, which then stops the workers itself.
        process = subprocess.Popen(
            command, stdout=stream, stderr=stream, env=_environment(progress, jobs), start_new_session=True
        )
    return _Run(chapter, target, log, progress, process)


def _environment(progress: Path, jobs: int) -> dict[str, str]:
    threads = str(max(1, (os.cpu_count() or 1) // jobs))
    package_root = str(Path(dmfkit.__path__[0]).parent)
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    return {
        # Threads that wait for each other sleep. Spinning, the default, makes a busy machine many times slower.
        "OMP_WAIT_POLICY": "PASSIVE",
        **os.environ,
        **dict.fromkeys(names, threads),
        "DMFKIT_PROGRESS": str(progress),
        # The chapters use the very package that builds them, installed or not.
        "PYTHONPATH": os.pathsep.join(filter(None, (package_root, os.environ.get("PYTHONPATH")))),
    }


def _stop(runs: Sequence[_Run]) -> None:
    """Stop what still runs; papermill shuts its kernel down when it is terminated."""
    for run in runs:
        run.process.terminate()
    for run in runs:
        try:
            run.process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            run.process.kill()
