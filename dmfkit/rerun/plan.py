"""Which runs a re-run consists of: everything is checked here, before anything is executed."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat

from dmfkit.chapters.allowed_values import VOCABULARY
from dmfkit.chapters.settings import check_names, check_together, check_value, is_chapter, literals, read_text
from dmfkit.errors import InputError
from dmfkit.experiments.store import NUMERICS
from dmfkit.problems.matrix_files import read_bytes
from dmfkit.rerun.sets import ParameterSets, label


@dataclass(frozen=True)
class PlannedRun:
    """One execution of the notebook.

    Attributes
    ----------
    given : mapping
        The values of its parameter set.
    injected : mapping
        The same and those of the preset: what papermill injects.
    name : str
        Of its executed notebook; it changes with everything that determines what comes out.
    """

    given: Mapping[str, Any]
    injected: Mapping[str, Any]
    name: str


@dataclass(frozen=True)
class Plan:
    """A notebook, its own settings, and the runs in the order of their sets.

    Attributes
    ----------
    notebook : Path
    own : mapping
        Values of the notebook's own parameters cell.
    preset : mapping
        Values that hold for all runs unless a set has others.
    axes : mapping
        As in `ParameterSets`, with checked values.
    runs : tuple of PlannedRun
    """

    notebook: Path
    own: Mapping[str, Any]
    preset: Mapping[str, Any]
    axes: Mapping[str, tuple[Any, ...]]
    runs: tuple[PlannedRun, ...]


def make_plan(notebook: Path, chosen: ParameterSets, preset: Mapping[str, Any]) -> Plan:
    """Check every set and name its run.

    Raises
    ------
    InputError
        If the notebook cannot be read or has no parameters cell, a set has a name that it does not have or a value that
        is not allowed, or two sets are the same.
    """
    cells = _read_cells(notebook)
    own = _own_settings(notebook, cells)
    base, runs = _checked(preset, own, notebook), list[PlannedRun]()
    sources = [cell.source for cell in cells]
    for number, given in enumerate(chosen.sets, start=1):
        try:
            values = _checked(given, own, notebook)
            files = _check_all({**own, **base, **values}, notebook)
        except InputError as error:
            raise InputError(f"Parameter set {number} ({label(given)}): {error}") from error
        injected = {**base, **values}
        content = {"numerics": NUMERICS, "sources": sources, "values": injected, "files": files}
        key = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
        words = re.sub(r"[^\w.+-]+", "-", label(dict(sorted(values.items())))).strip("-")[:60]
        runs.append(PlannedRun(values, injected, f"{words}-{key[:12]}"))
    names = [run.name for run in runs]
    for number, name in enumerate(names, start=1):
        if names.index(name) + 1 != number:
            raise InputError(
                f"Parameter sets {names.index(name) + 1} and {number} are the same ({label(runs[number - 1].given)}): "
                "give every set once."
            )
    axes = {name: tuple(_value(name, one, own[name]) for one in values) for name, values in chosen.axes.items()}
    return Plan(notebook, own, base, axes, tuple(runs))


def _read_cells(notebook: Path) -> list[Any]:
    if not notebook.is_file():
        raise InputError(
            f"There is no notebook {notebook}: name an .ipynb file, such as notebooks/06_one_measurement.ipynb."
        )
    try:
        return list(nbformat.read(notebook, as_version=4).cells)
    except Exception as error:  # what is no notebook can fail anywhere inside the reader
        raise InputError(
            f"{notebook} is no notebook that can be read ({type(error).__name__}): name another."
        ) from error


def _own_settings(notebook: Path, cells: list[Any]) -> dict[str, Any]:
    tagged = [cell for cell in cells if "parameters" in cell.metadata.get("tags", [])]
    if not tagged:
        raise InputError(f"{notebook} has no cell tagged parameters, so there is nothing to change: tag one.")
    return literals(tagged[0].source)


def _checked(given: Mapping[str, Any], own: Mapping[str, Any], notebook: Path) -> dict[str, Any]:
    """Return values as papermill can inject them: numbers are numbers, lists are lists."""
    check_names(given, own, notebook.stem)
    return {name: _value(name, value, own[name]) for name, value in given.items()}


def _value(name: str, value: Any, own: Any) -> Any:
    if name not in VOCABULARY:
        return value if isinstance(own, str) else _lists(read_text(value))
    return _lists(check_value(name, value))


def _lists(value: Any) -> Any:
    return [_lists(item) for item in value] if isinstance(value, tuple | list) else value


def _check_all(values: Mapping[str, Any], notebook: Path) -> dict[str, str]:
    """Check the values that a run will have against each other, and return the hashes of the files that they name."""
    if is_chapter(notebook.stem):
        check_together({name: check_value(name, value) for name, value in values.items()})
    files = {name: value for name, value in values.items() if value and name in VOCABULARY and VOCABULARY[name].is_file}
    # A kernel's paths begin at the notebook's folder.
    return {
        name: hashlib.sha256(read_bytes(notebook.parent / Path(value).expanduser())).hexdigest()
        for name, value in files.items()
    }
