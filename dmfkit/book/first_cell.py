"""The first code cell of every chapter: it installs the package where a notebook is opened without it, as on Colab."""

from __future__ import annotations

import copy

import nbformat
from nbformat import NotebookNode

CELL = "install"
_INSTALL = """\
import importlib.util

if importlib.util.find_spec("dmfkit") is None:
    %%pip install -q "dmfkit @ git+%s"
"""
# IPython shows the sentence of a UsageError and no stack trace, and runs none of the cells that follow.
_ASK = """\
import importlib.util

from IPython.core.error import UsageError

if importlib.util.find_spec("dmfkit") is None:
    raise UsageError(
        'The package dmfkit is missing: run %pip install "dmfkit @ git+https://github.com/OWNER/NAME" with the address '
        "of the repository that this notebook comes from, and then the cells again."
    )
"""
_PROMPT = "%s the cell that installs the package where it is missing"
_METADATA = {
    "mystnb": {"code_prompt_hide": _PROMPT % "Hide", "code_prompt_show": _PROMPT % "Show"},
    "tags": ["hide-input"],
}


def first_cell(revision: str) -> str:
    """Return the source of the cell.

    Parameters
    ----------
    revision
        What pip installs, as it stands after ``git+``; empty where the book does not know its repository.
    """
    return (_INSTALL % revision if revision else _ASK).rstrip()


def with_first_cell(notebook: NotebookNode, revision: str) -> NotebookNode:
    """Return the notebook with the cell for `revision`, put before the first code cell where there is none yet."""
    changed = copy.deepcopy(notebook)
    code = [cell for cell in changed.cells if cell.cell_type == "code"]
    cell = next((cell for cell in code if cell.id == CELL), None)
    if cell is None:
        cell = nbformat.v4.new_code_cell(id=CELL)
        changed.cells.insert(changed.cells.index(code[0]) if code else len(changed.cells), cell)
    cell.source = first_cell(revision)
    cell.metadata = nbformat.from_dict(_METADATA)
    return changed


def installs(notebook: NotebookNode, revision: str) -> bool:
    """Whether the notebook's first code cell is the one for `revision`."""
    first = next((cell for cell in notebook.cells if cell.cell_type == "code"), None)
    return first is not None and first.get("id") == CELL and first.source == first_cell(revision)
