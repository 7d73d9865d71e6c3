"""A build of some chapters only: what points to the others becomes plain text."""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping, Set
from pathlib import Path

import nbformat
from nbformat import NotebookNode

_LABEL = re.compile(r"^:label: *(\S+)|^\((\S+)\)=|\$\$ \((\S+)\)$", re.MULTILINE)
_ROLE = re.compile(r"\{(?:prf:ref|numref|eq|ref)\}`(?:[^`<]*<)?([^`<>]+)>?`")
_LINK = re.compile(r"\[([^\]]*)\]\((?:\.\./notebooks/)?(\d\d_\w+)(?:\.ipynb|\.md)?(?:#[^)]*)?\)")


def title_of(notebook: Path) -> str:
    """Return the first heading of a notebook."""
    for cell in nbformat.read(notebook, as_version=4).cells:
        if cell.cell_type == "markdown" and (found := re.search(r"^# +(.+)$", cell.source, re.MULTILINE)):
            return found[1].strip()
    return notebook.stem


def labels_of(notebook: NotebookNode) -> set[str]:
    """Return what other chapters can refer to: labels of equations, statements and exercises, names of figures."""
    found: set[str] = set()
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            found |= {label for match in _LABEL.findall(cell.source) for label in match if label}
        name = cell.metadata.get("mystnb", {}).get("figure", {}).get("name")
        found |= {name} if name else set()
    return found


def without_absent(notebook: NotebookNode, absent: Mapping[str, str], labels: Set[str]) -> NotebookNode:
    """Return the notebook with links to absent chapters replaced by their titles.

    Parameters
    ----------
    notebook
    absent
        Name and title of each chapter that the build leaves out.
    labels
        Everything that the build's chapters define; a reference to anything else is replaced by a note.
    """
    shown = copy.deepcopy(notebook)
    for cell in shown.cells:
        if cell.cell_type == "markdown":
            cell.source = text_without_absent(cell.source, absent, labels)
    return shown


def text_without_absent(text: str, absent: Mapping[str, str], labels: Set[str]) -> str:
    """Return the text of a page with links to absent chapters replaced by their titles; see `without_absent`."""
    text = _LINK.sub(lambda m: f"*{m[1] or absent[m[2]]}*" if m[2] in absent else m[0], text)
    return _ROLE.sub(lambda m: m[0] if m[1] in labels else "*(in another chapter)*", text)
