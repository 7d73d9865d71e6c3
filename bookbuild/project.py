"""The project that a command works on: its folders, its chapters, the presets for them, and who may write where."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import papermill
import yaml
from filelock import FileLock, Timeout

from dmfkit.errors import InputError


@dataclass(frozen=True)
class Layout:
    """The folders of one build: `root` holds the sources, `output` gets everything that is made."""

    root: Path
    output: Path

    @property
    def notebooks(self) -> Path:
        """The chapters' folder, which is also the working folder of their kernels."""
        return self.root / "notebooks"

    @property
    def executed(self) -> Path:
        """The executed chapters."""
        return self.output / "executed"

    @property
    def logs(self) -> Path:
        """What papermill and Jupyter Book printed."""
        return self.output / "logs"

    @property
    def stage(self) -> Path:
        """The sources of the pages, generated ones included, as Jupyter Book gets them."""
        return self.output / "stage"

    @property
    def html(self) -> Path:
        """The finished book."""
        return self.output / "html"

    def executed_notebook(self, chapter: str) -> Path:
        """Return the path of a chapter's executed notebook."""
        return self.executed / f"{chapter}.ipynb"


def find_chapters(layout: Layout, only: Sequence[str] = ()) -> list[Path]:
    """Return the chapters' notebooks in the book's order.

    Parameters
    ----------
    layout
        The folders of the build.
    only
        Names, or beginnings of names, of the wanted chapters; empty for all of them.

    Raises
    ------
    InputError
        If the folder holds no chapter or one of `only` matches none.
    """
    chapters = sorted(layout.notebooks.glob("*.ipynb"))
    if not chapters:
        raise InputError(
            f"There is no chapter in {layout.notebooks}: run the command in the project's own folder, "
            "the one with _toc.yml, or name that folder with --root."
        )
    for name in only:
        if not any(chapter.stem.startswith(name) for chapter in chapters):
            raise InputError(f"No chapter is called {name!r}: the chapters are {_names(chapters)}.")
    return [chapter for chapter in chapters if not only or chapter.stem.startswith(tuple(only))]


def _names(chapters: Sequence[Path]) -> str:
    return ", ".join(chapter.stem for chapter in chapters)


class BuildError(RuntimeError):
    """The build was begun and failed, as opposed to one asked for wrongly; the message names what failed and where."""

    heading = "The book was not built."


class RerunError(BuildError):
    """Some parameter sets of a re-run failed; the message names which, where and why."""

    heading = "Not every parameter set could be run."


@contextmanager
def only_one_in(folder: Path, what: str) -> Iterator[None]:
    """Hold a lock on an output folder, which is made; the operating system releases it even after a kill.

    Raises
    ------
    InputError
        If another process has it, or the folder cannot be made or written to; `what` says what that process does.
    """
    lock = FileLock(folder / ".lock", blocking=False)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout:
        raise InputError(
            f"Another {what} writes to {folder}: wait for it, or name another folder by --output."
        ) from None
    except OSError as error:
        raise InputError(
            f"The output folder {folder} cannot be written to ({error.strerror}): name another one by --output."
        ) from error
    try:
        yield
    finally:
        lock.release()


PAPER = "paper"
"""The preset that leaves every chapter's parameters as they are: the papers' own settings."""


def read_preset(layout: Layout, name: str, chapters: Sequence[Path]) -> dict[str, dict[str, Any]]:
    """Return the parameters that a preset passes to each of some chapters.

    A preset other than `paper` is the file `notebooks/presets/NAME.yml`, a mapping from each chapter's name
    to a mapping from parameter to value.

    Raises
    ------
    InputError
        If there is no such preset, if it names a chapter or a parameter that does not exist, or if it leaves
        out one of the chapters (which would then run for as long as the papers' settings take).
    """
    if name == PAPER:
        return {chapter.stem: {} for chapter in chapters}
    folder = layout.notebooks / "presets"
    existing = [PAPER, *sorted(path.stem for path in folder.glob("*.yml"))]
    if name not in existing:
        raise InputError(f"There is no preset {name!r}: the presets are {', '.join(existing)}.")
    file = folder / f"{name}.yml"
    content = yaml.safe_load(file.read_text(encoding="utf-8"))
    if not isinstance(content, dict) or not all(isinstance(value, dict) for value in content.values()):
        raise InputError(f"{file} must map each chapter's name to a mapping from parameter to value.")
    known = {path.stem for path in layout.notebooks.glob("*.ipynb")}
    for chapter in sorted(set(content) - known):
        raise InputError(f"{file} names the chapter {chapter!r}: the chapters are {', '.join(sorted(known))}.")
    for path in chapters:
        if path.stem not in content:
            raise InputError(f"{file} lacks the chapter {path.stem!r}: add it, with {{}} to run it as it is.")
        _check_names(file, path, content[path.stem])
    return {path.stem: content[path.stem] for path in chapters}


def with_recompute(parameters: Mapping[str, Mapping[str, Any]], chapters: Sequence[Path]) -> dict[str, dict[str, Any]]:
    """Return the parameters with `recompute=True` for each chapter that has stored results to ignore."""
    flags = {path.stem: {"recompute": True} if "recompute" in declared_parameters(path) else {} for path in chapters}
    return {name: {**values, **flags[name]} for name, values in parameters.items()}


def declared_parameters(notebook: Path) -> list[str]:
    """Return the names that the cell tagged `parameters` of a notebook assigns."""
    return list(papermill.inspect_notebook(str(notebook)))


def _check_names(file: Path, notebook: Path, values: Mapping[str, Any]) -> None:
    declared = declared_parameters(notebook)
    for parameter in sorted(set(values) - set(declared)):
        raise InputError(
            f"{file} gives {notebook.stem} the parameter {parameter!r}: its parameters are {', '.join(declared)}."
        )
