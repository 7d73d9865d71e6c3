"""Compute all stored results anew and put them where the book looks for them."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from dmfkit.book.errors import BuildError
from dmfkit.book.execute import execute
from dmfkit.book.layout import Layout, find_chapters
from dmfkit.book.presets import declared_parameters
from dmfkit.experiments.store import read


def publish_results(layout: Layout, jobs: int | None = None) -> list[Path]:
    """Execute every chapter with the papers' settings and replace `notebooks/results` by what that computed.

    Results are gathered in ``fresh-results`` below the output folder first, so that an interrupted call goes on where
    it was, and files that no chapter asks for any more disappear only after all chapters have ended.

    Returns
    -------
    list of Path
        The published files.

    Raises
    ------
    BuildError
        If a cell fails; nothing is published then.
    """
    fresh = layout.output / "fresh-results"
    chapters = find_chapters(layout, ())
    # Some chapters compute everything anew each time, and store nothing.
    parameters = {
        chapter.stem: {"results": str(fresh)} if "results" in declared_parameters(chapter) else {}
        for chapter in chapters
    }
    failures = execute(layout, chapters, parameters, min(jobs or os.cpu_count() or 1, len(chapters)))
    if failures:
        raise BuildError("\n\n".join(failures))
    found = sorted(fresh.glob("*.nc"))
    for path in found:
        read(path)  # raises unless the file is whole
    target = layout.notebooks / "results"
    target.mkdir(exist_ok=True)
    for path in found:
        temporary = target / f".{path.name}.tmp"
        shutil.copyfile(path, temporary)
        temporary.replace(target / path.name)
    names = {path.name for path in found}
    for path in target.glob("*.nc"):
        if path.name not in names:
            path.unlink()
    shutil.rmtree(fresh)
    return [target / path.name for path in found]
