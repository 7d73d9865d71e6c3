"""Execute the chapters of the book."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from dmfkit.book.jobs import Job, run_processes
from dmfkit.book.layout import Layout


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
