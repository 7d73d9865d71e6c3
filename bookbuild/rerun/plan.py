"""Which runs a re-run consists of: its parameter sets are read from a file and checked before anything is executed."""

from __future__ import annotations

import hashlib
import itertools
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat
import yaml

from dmfkit.chapters.paper_settings import CHAPTERS
from dmfkit.chapters.settings import literals, model_of_cell
from dmfkit.errors import InputError, brief
from dmfkit.experiments.store import NUMERICS
from dmfkit.problems.matrix_files import read_bytes

FORMS = (
    "write a list of sets, such as - {d: 20, rank: 2}, or a mapping from each parameter to the values that it takes, "
    "such as d: [20, 30]"
)


@dataclass(frozen=True)
class ParameterSets:
    """Parameter sets, and how their results are to be arranged.

    Attributes
    ----------
    sets : tuple of mapping
        For every run the given parameters by name.
    axes : mapping
        For a grid, the names that take more than one value, each with its values; the last one varies fastest. Empty
        for a list.
    """

    sets: tuple[Mapping[str, Any], ...]
    axes: Mapping[str, tuple[Any, ...]]


class _Loader(yaml.SafeLoader):
    """Refuses a key that is written twice, of which YAML's own loader would silently take the last."""


def _mapping(loader: _Loader, node: yaml.MappingNode) -> dict[Any, Any]:
    keys = [key.value for key, _ in node.value]
    for key in keys:
        if keys.count(key) > 1:
            raise InputError(
                f"line {node.start_mark.line + 1} begins a mapping that has {key!r} twice: keep one of them"
            )
    return dict(loader.construct_pairs(node, deep=True))


_Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)


def read_sets(path: Path) -> ParameterSets:
    """Read parameter sets from a YAML file.

    A list holds one mapping for each set. A mapping is a grid: every combination of its values is one set. A value that
    is no list is the same in all sets; so a parameter that is itself a list, such as ``depths``, takes a list of lists.

    Raises
    ------
    InputError
        If there is no such file, it is no YAML, or it has neither form, or no set, or the same set twice.
    """
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)
    except OSError as error:
        raise InputError(
            f"The file of parameter sets {path} cannot be read ({error.strerror}): name a YAML file."
        ) from error
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f" (line {mark.line + 1}: {getattr(error, 'problem', '')})" if mark else ""
        raise InputError(f"{path} is no YAML{where}: {FORMS}.") from error
    except InputError as error:
        raise InputError(f"In {path}, {error}.") from None
    axes: dict[str, tuple[Any, ...]] = {}
    if isinstance(content, list):
        sets = _from_list(content, path)
    elif isinstance(content, dict):
        sets, axes = _from_grid(content, path)
    else:
        raise InputError(f"{path} holds no parameter sets: {FORMS}.")
    for one in sets:
        for name in one:
            if not isinstance(name, str):
                raise InputError(f"{path} names a parameter {brief(name)}, which is no text: {FORMS}.")
    return ParameterSets(sets, axes)


def _from_list(content: list[Any], path: Path) -> tuple[dict[Any, Any], ...]:
    for number, one in enumerate(content, start=1):
        if not isinstance(one, dict):
            raise InputError(f"Set {number} of {path} is {brief(one)}, which is no mapping: {FORMS}.")
    if not content:
        raise InputError(f"{path} is an empty list: {FORMS}.")
    return tuple(content)


def _from_grid(content: dict[Any, Any], path: Path) -> tuple[tuple[dict[Any, Any], ...], dict[Any, tuple[Any, ...]]]:
    if not content:
        raise InputError(f"{path} is an empty mapping: {FORMS}.")
    values = {name: tuple(given) if isinstance(given, list) else (given,) for name, given in content.items()}
    for name, given in values.items():
        if not given:
            raise InputError(f"{path} gives {name} no value: write at least one.")
    sets = tuple(dict(zip(values, point, strict=True)) for point in itertools.product(*values.values()))
    return sets, {name: given for name, given in values.items() if len(given) > 1}


def label(values: Mapping[str, Any]) -> str:
    """Write a set as ``d = 20, depths = [2, 3]``."""
    return ", ".join(f"{name} = {text(value)}" for name, value in values.items()) or "the chapter's own values"


def text(value: Any) -> str:
    """Write a value on one line, lists in brackets; text stands as it is, empty text between quotation marks."""
    return value if isinstance(value, str) and value else json.dumps(value)


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
    is_chapter = notebook.stem in CHAPTERS
    model = CHAPTERS[notebook.stem] if is_chapter else model_of_cell(own)
    runs, sources = list[PlannedRun](), [cell.source for cell in cells]
    for number, given in enumerate(chosen.sets, start=1):
        try:
            # Of a chapter the whole set is checked together; what a reader's own notebook holds is the reader's affair.
            checked = model.read({**(own if is_chapter else {}), **preset, **given}, notebook.stem)
            files = _hashes(checked.files, notebook)
        except InputError as error:
            raise InputError(f"Parameter set {number} ({label(given)}): {error}") from error
        injected = {name: _lists(checked.values[name]) for name in {**preset, **given}}
        values = {name: injected[name] for name in given}
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
    axes = {
        name: tuple({json.dumps(run.given[name]): run.given[name] for run in runs}.values()) for name in chosen.axes
    }
    base = {name: next((run.injected[name] for run in runs if name not in run.given), preset[name]) for name in preset}
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


def _lists(value: Any) -> Any:
    return [_lists(item) for item in value] if isinstance(value, tuple | list) else value


def _hashes(files: Mapping[str, str], notebook: Path) -> dict[str, str]:
    # A kernel's paths begin at the notebook's folder.
    return {
        name: hashlib.sha256(read_bytes(notebook.parent / Path(value).expanduser())).hexdigest()
        for name, value in files.items()
    }
