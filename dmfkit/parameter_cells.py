"""Reads the two cells of a notebook that set its parameters: its own and the one that papermill injects."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from typing import Any

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
