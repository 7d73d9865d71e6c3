"""Reads a file of parameter sets: a list of them, or a grid."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from dmfkit.errors import InputError, brief

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
