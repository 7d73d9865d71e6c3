"""Clear from a notebook everything that running it leaves behind."""

from __future__ import annotations

import copy
from pathlib import Path

import nbformat
from nbformat import NotebookNode

_LEFT_BY_RUNNING = ("papermill", "execution", "ExecuteTime", "collapsed", "scrolled")


def strip(notebook: NotebookNode) -> NotebookNode:
    """Return the notebook without outputs, counts, injected parameters and widget state; ids stay."""
    clean = copy.deepcopy(notebook)
    clean.cells = [cell for cell in clean.cells if "injected-parameters" not in cell.metadata.get("tags", [])]
    for cell in clean.cells:
        if cell.cell_type == "code":
            cell.outputs = []
            cell.execution_count = None
        for key in _LEFT_BY_RUNNING:
            cell.metadata.pop(key, None)
    for key in ("widgets", *_LEFT_BY_RUNNING):
        clean.metadata.pop(key, None)
    # The exact Python of whoever ran it last would make every commit differ.
    clean.metadata.get("language_info", {}).pop("version", None)
    return clean


def strip_file(path: Path) -> bool:
    """Strip one notebook file in place and return whether that changed it."""
    notebook = nbformat.read(path, as_version=4)
    clean = strip(notebook)
    if clean == notebook:
        return False
    temporary = path.with_name(path.name + ".new")
    nbformat.write(clean, temporary)
    temporary.replace(path)
    return True
