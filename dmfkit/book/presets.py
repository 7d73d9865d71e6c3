"""Presets: named sets of parameters with which all chapters can be run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import papermill
import yaml

from dmfkit.book.layout import Layout
from dmfkit.errors import InputError

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
