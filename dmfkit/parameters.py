"""Checks a chapter's parameters before anything is trained.

Papermill injects whatever it is given: about a name that the notebook does not have it only warns, and
about the values it says nothing. `read_parameters` compares what the notebook holds with its own
parameters cell and with `dmfkit.vocabulary`.
"""

from __future__ import annotations

import difflib
import html
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib import resources
from types import MappingProxyType
from typing import Any

from pydantic import ValidationError

from dmfkit.errors import InputError, brief
from dmfkit.parameter_cells import PARAMETERS_CELL, assignments, find_cells, literals, read_text
from dmfkit.parameter_pairs import check_together
from dmfkit.vocabulary import TECHNICAL, VOCABULARY

# `papermill --inject-paths` adds these two when it is asked to; they set nothing in a chapter.
PAPERMILL_NAMES = ("PAPERMILL_INPUT_PATH", "PAPERMILL_OUTPUT_PATH")


@dataclass(frozen=True)
class Parameters:
    """The checked parameters of a chapter, each also an attribute (lists as tuples).

    Attributes
    ----------
    values : mapping of str to value
        What the chapter runs with.
    paper : mapping of str to value
        What its parameters cell says: the paper's own settings.
    has_paper : bool
        Whether there is a paper, or all settings are the chapter's own.
    """

    values: Mapping[str, Any]
    paper: Mapping[str, Any]
    has_paper: bool = True

    @property
    def changed(self) -> Mapping[str, Any]:
        """The values that differ from the paper's own, by name; those that say only where to compute do not count."""
        return MappingProxyType({n: v for n, v in self.values.items() if v != self.paper[n] and n not in TECHNICAL})

    def __getattr__(self, name: str) -> Any:
        # `copy` asks for attributes before the fields exist.
        values = self.__dict__.get("values", {})
        if name in values:
            return values[name]
        raise AttributeError(f"this chapter has no parameter {name}; it has {', '.join(values)}")

    def __dir__(self) -> Iterable[str]:
        return [*super().__dir__(), *self.values]

    def _repr_html_(self) -> str:
        """Show, folded, a table: parameter, value, the chapter's value where it differs, meaning."""
        head = "".join(f'<th scope="col">{t}</th>' for t in ("parameter", "value", "the chapter's", "meaning"))
        rows = []
        for name, value in self.values.items():
            paper = "same" if value == self.paper[name] else f"<code>{html.escape(_show(self.paper[name]))}</code>"
            rows.append(
                f'<tr><th scope="row"><code>{html.escape(name)}</code></th>'
                f"<td><code>{html.escape(_show(value))}</code></td><td>{paper}</td>"
                f"<td>{html.escape(VOCABULARY[name].meaning)}</td></tr>"
            )
        differing = [name for name, value in self.values.items() if value != self.paper[name]]
        said = (
            f"{len(differing)} of {len(rows)} parameters differ from"
            if differing
            else f"All {len(rows)} parameters have"
        )
        whose = ": the paper's, and ours where it gives none." if self.has_paper else "."
        # Focusable, because on a phone the table can be wider than the page and has to be scrolled.
        return (
            f"<details><summary>{said} the chapter's own values{whose}</summary>"
            '<div role="region" aria-label="Parameters of this chapter" tabindex="0"'
            f' style="overflow-x: auto"><table><thead><tr>{head}</tr></thead>'
            f"<tbody>{''.join(rows)}</tbody></table></div></details>"
        )


def paper_settings(chapter: str) -> dict[str, Any]:
    """Return a chapter's own settings as the package keeps them: an edited notebook cannot change these.

    Raises
    ------
    InputError
        If there is no such chapter.
    """
    settings = _all_settings()
    if chapter not in settings:
        raise InputError(f"{chapter!r} is no chapter of the book: the chapters are {', '.join(settings)}.")
    return settings[chapter]


def is_chapter(name: str) -> bool:
    """Whether the book has a chapter of this name."""
    return name in _all_settings()


def _all_settings() -> dict[str, dict[str, Any]]:
    text = resources.files("dmfkit").joinpath("paper_settings.json").read_text(encoding="utf-8")
    settings: dict[str, dict[str, Any]] = json.loads(text)
    return settings


def read_parameters(namespace: Mapping[str, Any], chapter: str = "") -> Parameters:
    """Check the parameters of the running notebook.

    Parameters
    ----------
    namespace : mapping
        The notebook's `globals()`. IPython's list `In` in it has the source of every cell run so far:
        the parameters cell, which starts with the comment ``# The paper's own settings`` (``# The chapter's own
        settings`` where there is no paper), and the cell that papermill injects after it.
    chapter : str
        Name of the chapter, whose own settings the package knows. Without it the parameters cell is taken at its word.

    Returns
    -------
    checked : Parameters
        The values, the paper's own values and where they differ.

    Raises
    ------
    InputError
        If there is no parameters cell, papermill was given a name that the cell lacks, a value is not
        allowed, or two values contradict each other.
    """
    own, injected = find_cells(namespace)
    paper = literals(own)
    check_names((name for name in assignments(injected) if name not in PAPERMILL_NAMES), paper)
    for name in paper:
        if name not in VOCABULARY:
            raise InputError(
                f"The parameters cell sets {name}, which the book's vocabulary (dmfkit/vocabulary.py) lacks: "
                f"{_allowed(name, VOCABULARY)}."
            )
    if chapter:
        known = paper_settings(chapter)
        for name in known:
            if name not in paper:
                raise InputError(f"The parameters cell lacks {name}: put back the line {name} = {brief(known[name])}.")
        paper = known
    values = {name: check_value(name, namespace[name]) for name in paper}
    check_together(values)
    own_values = {name: check_value(name, value) for name, value in paper.items()}
    has_paper = own.strip().startswith(PARAMETERS_CELL)
    return Parameters(MappingProxyType(values), MappingProxyType(own_values), has_paper)


def check_names(given: Iterable[str], own: Iterable[str], chapter: str = "this chapter") -> None:
    """Raise `InputError` for the first of the `given` names that is not one of a chapter's `own`."""
    known = list(own)
    for name in given:
        if name not in known:
            raise InputError(f"{name} is not a parameter of {chapter}: {_allowed(name, known)}.")


def check_value(name: str, value: Any) -> Any:
    """Check one parameter's value against the vocabulary.

    Parameters
    ----------
    name : str
        A name in `dmfkit.vocabulary.VOCABULARY`.
    value : object
        The value; text is read as the value that it spells, unless the parameter itself is text.

    Returns
    -------
    checked : object
        The value in its own type; a list as a tuple.

    Raises
    ------
    InputError
        If the value is not allowed.
    """
    parameter = VOCABULARY[name]
    given = value if parameter.is_text else read_text(value)
    read = given
    if parameter.is_list:
        read = tuple(read_text(v) for v in given) if isinstance(given, list | tuple) else (given,)
    try:
        return parameter.adapter.validate_python(read)
    except (ValidationError, OverflowError) as error:
        raise InputError(f"{name} = {brief(given)} is not allowed: {name} must be {parameter.allowed}.") from error


def _allowed(name: str, names: Iterable[str]) -> str:
    """Name the nearest allowed name, if one is near, and all of them."""
    lower = {n.lower(): n for n in names}
    near = difflib.get_close_matches(name.lower(), list(lower), n=1)
    guess = f"did you mean {lower[near[0]]}? " if near else ""
    return f"{guess}allowed are {', '.join(lower.values())}"


def _show(value: Any) -> str:
    return repr(list(value) if isinstance(value, tuple) else value)
