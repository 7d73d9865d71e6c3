"""The whole build, from the sources to the HTML."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Sequence

import nbformat

from dmfkit.book import collect, covers
from dmfkit.book.concordance import concordance_tables
from dmfkit.book.corrections import differences, errata
from dmfkit.book.errors import BuildError
from dmfkit.book.execute import execute
from dmfkit.book.layout import Layout, find_chapters
from dmfkit.book.lock import only_one_in
from dmfkit.book.order import longest_first
from dmfkit.book.pages import execution_record
from dmfkit.book.partial import labels_of
from dmfkit.book.presets import PAPER, read_preset, with_recompute
from dmfkit.book.render import render
from dmfkit.book.repository import Repository, choose_repository, strangers
from dmfkit.book.scoreboard import scoreboard
from dmfkit.book.speed import speeds
from dmfkit.book.stage import parts_of, stage
from dmfkit.errors import InputError


def build(
    layout: Layout,
    *,
    preset: str = PAPER,
    only: Sequence[str] = (),
    recompute: bool = False,
    jobs: int | None = None,
    repository: str | None = None,
) -> None:
    """Execute the chapters and make the book.

    Parameters
    ----------
    layout
        The folders: sources and output.
    preset
        Name of the parameters: "paper", or a file of `notebooks/presets`.
    only
        Names, or beginnings of names, of the chapters to build; empty for all.
    recompute
        Pass `recompute=True` to the chapters that have this parameter, so that they ignore stored results.
    jobs
        How many chapters are executed at the same time; one for each processor core by default.
    repository
        Address at which the sources are published, for the launch buttons; by default what `_config.yml` says.

    Raises
    ------
    InputError
        If an argument names something that does not exist, or another build uses the same output folder.
    BuildError
        If a cell fails or the pages do not render without a warning.
    """
    chapters = find_chapters(layout, only)
    parameters = read_preset(layout, preset, chapters)
    if recompute:
        parameters = with_recompute(parameters, chapters)
    if jobs is not None and jobs < 1:
        raise InputError(f"jobs = {jobs} is too small: give the number of chapters to run at a time, at least 1.")
    published = choose_repository(layout.root, repository)
    if published is not None and strangers(chapters, published):
        print(
            f"The first cells of the chapters do not install the package from {published.revision}, so on Colab they "
            f"will not start with it: run `python -m dmfkit repository {published.url}`, commit and push.",
            file=sys.stderr,
        )
    with only_one_in(layout.output, "build"):
        queue = longest_first(layout, chapters) if recompute else chapters
        failures = execute(layout, queue, parameters, min(jobs or os.cpu_count() or 1, len(chapters)))
        if failures:
            raise BuildError("\n\n".join(failures))
        _make_pages(layout, [chapter.stem for chapter in chapters], preset, published)


def _make_pages(layout: Layout, chapters: Sequence[str], preset: str, repository: Repository | None) -> None:
    executed = [layout.executed_notebook(chapter) for chapter in chapters]
    claims = collect.collect_claims(executed, preset)
    places = {label: path.stem for path in executed for label in labels_of(nbformat.read(path, as_version=4))}
    pictures = layout.output / "pictures"
    shutil.rmtree(pictures, ignore_errors=True)
    pictures.mkdir()
    generated = {
        "frontispiece": covers.write_frontispiece(executed, pictures),
        "cards": covers.write_cards(parts_of(layout, chapters), pictures),
        "concordance": concordance_tables(places),
        "scoreboard": scoreboard(claims),
        "errata": errata(claims),
        "differences": differences(claims),
        "execution": execution_record(executed, preset),
        "speeds": speeds(layout.root / "benchmarks" / "stored"),
    }
    # Rendering has no steps to count; a line says what the wait is for.
    print("rendering the pages", file=sys.stderr)
    stage(layout, chapters, preset, generated, repository)
    shutil.copytree(pictures, layout.stage / "book" / "_static" / "pictures")
    render(layout)
    collect.write_claims(layout.output / "claims.json", claims)
