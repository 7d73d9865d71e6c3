"""Checks a chapter's parameters before anything is trained.

Papermill injects whatever it is given: about a name that the notebook does not have it only warns, and
about the values it says nothing. `read_parameters` compares what the notebook holds with its own
parameters cell and with `dmfkit.chapters.allowed_values`.

Reads the two cells of a notebook that set its parameters: its own and the one that papermill injects.

Parameters of a chapter that are allowed one by one, but not together.
"""

from __future__ import annotations

import ast
import difflib
import html
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib import resources
from types import MappingProxyType
from typing import Any

from pydantic import ValidationError

from dmfkit.chapters.allowed_values import TECHNICAL, VOCABULARY
from dmfkit.errors import InputError, brief

PARAMETERS_CELL = "# The paper's own settings"
# The same in a chapter behind which there is no paper.
OWN_PARAMETERS_CELL = "# The chapter's own settings"
INJECTED_CELL = "# Parameters"
# What people type on a command line for values that Python writes with a capital letter.
_WORDS = {"true": True, "false": False, "none": None, "null": None}


def find_cells(namespace: Mapping[str, Any]) -> tuple[str, str]:
    """Find the sources of the parameters cell and of the injected cell.

    Parameters
    ----------
    namespace : mapping
        A notebook's `globals()`, with IPython's list `In` of the sources of the cells run so far.

    Returns
    -------
    own, injected : str
        The last cell that starts with `PARAMETERS_CELL` or `OWN_PARAMETERS_CELL`, and the last after it whose first
        line is `INJECTED_CELL`, empty where there is none.

    Raises
    ------
    InputError
        If this is no notebook's namespace, or no parameters cell has been run.
    """
    history = namespace.get("In")
    if not isinstance(history, list):
        raise InputError(
            "Parameters can only be read in a running notebook: call read_parameters(globals()) in a cell."
        )
    first_lines = [source.strip().partition("\n")[0].strip() for source in history]
    own = [i for i, line in enumerate(first_lines) if line.startswith((PARAMETERS_CELL, OWN_PARAMETERS_CELL))]
    if not own:
        raise InputError(f'No cell that starts with "{PARAMETERS_CELL}" has been run: run the parameters cell first.')
    injected = [i for i, line in enumerate(first_lines) if line == INJECTED_CELL and i > own[-1]]
    return history[own[-1]], history[injected[-1]] if injected else ""


def assignments(source: str) -> dict[str, ast.expr]:
    """Read a cell as assignments to single names.

    Raises
    ------
    InputError
        If the cell holds anything else.
    """
    try:
        body = ast.parse(source).body
    except SyntaxError as error:
        raise InputError(f"Line {error.lineno} of the parameters cell is not Python: correct it.") from error
    found = {}
    for node in body:
        target = node.targets[0] if isinstance(node, ast.Assign) and len(node.targets) == 1 else None
        if not isinstance(node, ast.Assign) or not isinstance(target, ast.Name):
            raise InputError(
                f"The parameters cell has the line {brief(ast.unparse(node))}, but only assignments "
                "such as d = 100 may stand there: move it to another cell."
            )
        found[target.id] = node.value
    return found


def literals(source: str) -> dict[str, Any]:
    """Read a cell as assignments of literal values.

    Raises
    ------
    InputError
        If the cell holds anything else.
    """
    found = {}
    for name, expression in assignments(source).items():
        try:
            found[name] = ast.literal_eval(expression)
        except (ValueError, TypeError) as error:
            raise InputError(
                f"The parameters cell sets {name} to {brief(ast.unparse(expression))}, which would have to "
                "be computed: write the value itself, such as [0, 1, 2] for list(range(3))."
            ) from error
    return found


def read_text(value: Any) -> Any:
    """Read text as the Python value that it spells; what spells none stays as it is.

    Papermill's command line delivers ``[2, 5]`` as text, and its YAML files ``1e-3``, which YAML 1.1 takes
    for text because it has no point.
    """
    if not isinstance(value, str):
        return value
    text = value.strip()
    if text.lower() in _WORDS:
        return _WORDS[text.lower()]
    try:
        return ast.literal_eval(text)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return value


def check_together(values: Mapping[str, Any]) -> None:
    """Raise `InputError` if two of a chapter's parameters contradict each other; names that it lacks do not matter."""
    d = values.get("d")
    if d is None:
        return
    for name in ("rank", "n_singular_values"):
        if values.get(name, 0) > d:
            raise InputError(
                f"{name} = {values[name]} is not allowed with d = {d}: {name} must be at most d, "
                "so lower it or raise d."
            )
    kept, rank = values.get("n_singular_values"), values.get("rank")
    if kept is not None and rank is not None and kept <= rank:
        raise InputError(
            f"n_singular_values = {kept} is not allowed with rank = {rank}: it must exceed the rank, because the "
            "chapter looks at the first value beyond it, so raise it or lower the rank."
        )
    if len(values.get("transition_times", (0, 1))) != 2:
        raise InputError("transition_times must have two times, the first and the last, such as [86.0, 106.0].")
    if "strength_ratio" in values and d < 2:
        raise InputError(f"d = {d} is not allowed: the chapter compares two singular values, so d must be at least 2.")
    start, reach = values.get("start_value"), values.get("reach")
    if start is not None and reach is not None and reach <= start:
        raise InputError(
            f"reach = {reach} is not allowed with start_value = {start}: the singular value is followed as it grows, "
            "so raise reach or lower start_value."
        )
    if values.get("n_measurements", 0) >= d:
        raise InputError(
            f"n_measurements = {values['n_measurements']} is not allowed with d = {d}: it must be less than d, "
            "so lower it or raise d."
        )
    if "alphas" in values and min(values["depths"]) < 2:
        raise InputError("depths has 1, but one factor is no factorization: in this chapter depths must be at least 2.")
    if "smaller_layer_scales" in values:
        _check_blocks(d, values)
    for name in ("n_observed", "path_n_observed", "fewer_n_observed"):
        _check_counts(name, values.get(name, ()), f"a {d} by {d} matrix (d = {d}) has only {d * d} entries", d * d, "d")
    _check_compression(values)
    if "hidden_widths" in values and "rank_bounds" in values:
        _check_widths(values)
    size = values.get("symmetric_d", 1)
    pairs = size * (size + 1) // 2
    there = f"a symmetric matrix of size {size} (symmetric_d = {size}) has only {pairs} pairs of entries"
    _check_counts("symmetric_n_observed", values.get("symmetric_n_observed", ()), there, pairs, "symmetric_d")
    if values.get("symmetric_rank", 0) > size:
        raise InputError(
            f"symmetric_rank = {values['symmetric_rank']} is not allowed with symmetric_d = {size}: it must "
            "be at most symmetric_d, so lower it or raise symmetric_d."
        )


def _check_compression(values: Mapping[str, Any]) -> None:
    """A bound of the rank is not below the rank, and compressed weights are smaller than the matrix."""
    small = "small_d" in values
    for bounds, rank, sizes in (
        ("rank_bound", "rank", ("d", "smaller_d")),
        ("rank_bounds", "small_rank" if small else "rank", ("small_d" if small else "d",)),
    ):
        for bound in _several(values.get(bounds, ())):
            if bound < values.get(rank, 1):
                raise InputError(
                    f"{bounds} = {bound} is not allowed with {rank} = {values[rank]}: it must be at least the rank, so "
                    f"raise it or lower {rank}."
                )
            for name in sizes:
                for size in _several(values.get(name, ())):
                    if 2 * bound >= size:
                        raise InputError(
                            f"{bounds} = {bound} is not allowed with {name} = {size}: compressed weights have "
                            f"2 * {bound} rows, which must be fewer, so lower it or raise {name}."
                        )


def _several(value: Any) -> tuple[Any, ...]:
    return value if isinstance(value, tuple) else (value,)


def _check_blocks(d: int, values: Mapping[str, Any]) -> None:
    """Theorem 1 of Yaras et al. (2023) needs 2 rank < d, and its chapter two layers and one more rank to compare."""
    rank = values["rank"]
    if 2 * (rank + 1) >= d:
        raise InputError(
            f"rank = {rank} is not allowed with d = {d}: the chapter also looks at rank + 1, and 2 * (rank + 1) must "
            "be less than d, so lower it or raise d."
        )
    if values["weight_decay"] == 0:
        raise InputError("weight_decay = 0.0 is not allowed: the chapter compares runs without and with weight decay.")
    for name, layers in (("depth", values["depth"]), ("layer_scales", len(values["layer_scales"]))):
        if layers < 2:
            raise InputError(f"{name} gives {layers} factor, but this chapter compares layers: give at least 2.")


def _check_counts(name: str, counts: Iterable[int], there: str, most: int, size: str) -> None:
    for n in counts:
        if n > most:
            raise InputError(
                f"{name} has {n}, but {there}: {name} must be at most {most}, so lower it or raise {size}."
            )


def _check_widths(values: Mapping[str, Any]) -> None:
    """Raise `InputError` if sizes of the chapter on width contradict each other."""
    small, d = values["smaller_d"], values["d"]
    for r in values["ranks"]:
        if not (r < small and sum(r <= width <= small for width in values["hidden_widths"]) >= 2):
            raise InputError(
                f"ranks has {r}, but hidden_widths = {list(values['hidden_widths'])} has fewer than two widths from "
                f"{r} to smaller_d = {small}: add widths or lower the rank."
            )
    if max(values["hidden_widths"]) > small:
        raise InputError(
            f"hidden_widths has {max(values['hidden_widths'])}, more than smaller_d = {small}: lower it or raise "
            "smaller_d."
        )
    if len(values["lrs"]) != len(values["depths"]):
        raise InputError(
            f"{len(values['lrs'])} lrs were given for {len(values['depths'])} depths: give one for each, in turn."
        )
    if len(values["depths"]) < 2 or min(values["depths"]) < 2:
        raise InputError("depths must have two values of at least 2: this chapter compares a shallow and a deep one.")
    bounds = values["rank_bounds"]
    for bound in values["larger_rank_bounds"]:
        if 2 * bound >= d:
            raise InputError(
                f"larger_rank_bounds has {bound}, which is not allowed with d = {d}: compressed weights have "
                f"2 * {bound} rows, which must be fewer than d, so lower it or raise d."
            )
    if list(bounds) != sorted(bounds) or min(values["larger_rank_bounds"]) <= bounds[-1]:
        raise InputError("rank_bounds must rise, and larger_rank_bounds must be larger than all of them.")


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
    text = resources.files("dmfkit.chapters").joinpath("paper_settings.json").read_text(encoding="utf-8")
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
                f"The parameters cell sets {name}, which the book's vocabulary "
                f"(dmfkit/chapters/allowed_values.py) lacks: {_allowed(name, VOCABULARY)}."
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
        A name in `dmfkit.chapters.allowed_values.VOCABULARY`.
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
