"""Where the book's sources lie and where the build puts what it makes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

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
