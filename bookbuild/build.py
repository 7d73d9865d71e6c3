"""The whole build, from the sources to the HTML, and that of the results which are stored beside the sources."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import nbformat
from papermill.exceptions import strip_color

from bookbuild import outputs as collect
from bookbuild import pages as covers
from bookbuild.architecture import architecture
from bookbuild.generated import concordance_tables, differences, errata, execution_record, scoreboard
from bookbuild.notebooks import Job, run_processes
from bookbuild.pages import labels_of, parts_of, stage
from bookbuild.project import (
    PAPER,
    BuildError,
    Layout,
    declared_parameters,
    find_chapters,
    only_one_in,
    read_preset,
    with_recompute,
)
from bookbuild.repository import Repository, choose_repository, installing_otherwise
from bookbuild.speed_page import read_groups, read_targets, speeds
from dmfkit.errors import InputError
from dmfkit.experiments.store import read


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
    if published is not None and installing_otherwise(chapters, published):
        print(
            f"The first cells of the chapters do not install the package from {published.revision}, so on Colab they "
            f"will not start with it: run `python -m bookbuild repository {published.url}`, commit and push.",
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
    measured = layout.root / "benchmarks"
    pictures = layout.output / "pictures"
    shutil.rmtree(pictures, ignore_errors=True)
    pictures.mkdir()
    generated = {
        "frontispiece": covers.write_frontispiece(executed, pictures),
        "cards": covers.write_cards(parts_of(layout, chapters), pictures),
        "architecture": architecture(layout.root),
        "concordance": concordance_tables(places),
        "scoreboard": scoreboard(claims),
        "errata": errata(claims),
        "differences": differences(claims),
        "execution": execution_record(executed, preset),
        "speeds": speeds(measured / "stored", read_groups(measured), read_targets(measured)),
    }
    # Rendering has no steps to count; a line says what the wait is for.
    print("rendering the pages", file=sys.stderr)
    stage(layout, chapters, preset, generated, repository)
    shutil.copytree(pictures, layout.stage / "book" / "_static" / "pictures")
    render(layout)
    collect.write_claims(layout.output / "claims.json", claims)


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


def render(layout: Layout) -> None:
    """Turn `layout.stage` into `layout.html`; what was there stays until the new book is complete.

    Raises
    ------
    BuildError
        If Jupyter Book fails or warns; the message ends with its warnings and errors.
    """
    work = layout.output / "sphinx"
    shutil.rmtree(work, ignore_errors=True)
    log = layout.logs / "jupyter-book.log"
    main = "from jupyter_book.cli.main import main; main()"
    # Quiet, so that the log holds warnings and errors only. With --keep-going Sphinx finds all of them before it fails.
    options = ["--path-output", str(work), "--all", "--quiet", "-W", "-n", "--keep-going"]
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as stream:
        command = [sys.executable, "-c", main, "build", str(layout.stage), *options]
        result = subprocess.run(command, stdout=stream, stderr=subprocess.STDOUT, check=False)
    if result.returncode != 0:
        raise BuildError(f"Jupyter Book failed; its log is {log}:\n{strip_color(log.read_text(encoding='utf-8'))}")
    _name_icon(work / "_build" / "html" / "index.html")
    _swap(work / "_build" / "html", layout)
    shutil.rmtree(work)


def _name_icon(index: Path) -> None:
    """Say in the page that only leads to the first one which icon the book has.

    A browser that is told of none asks for one at the top of the site, where there is none, and reports an error.
    """
    head = '<!doctype html>\n<html lang="en">\n<title>Contents</title>\n<link rel="icon" href="_static/favicon.svg">\n'
    index.write_text(head + index.read_text(encoding="utf-8"), encoding="utf-8")


def _swap(new: Path, layout: Layout) -> None:
    """Replace the old book by the new one with two renames."""
    old = layout.output / "html.old"
    shutil.rmtree(old, ignore_errors=True)
    if layout.html.exists():
        layout.html.rename(old)
    new.rename(layout.html)
    shutil.rmtree(old, ignore_errors=True)


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
