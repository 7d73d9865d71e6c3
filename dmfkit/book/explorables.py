"""How a page gets an explorable: its picture, with caption and alternative text, and after it the live one."""

from __future__ import annotations

import copy
import json
from typing import Any

import nbformat
from nbformat import NotebookNode

STATE = "application/vnd.jupyter.widget-state+json"
VIEW = "application/vnd.jupyter.widget-view+json"
_TAGS = ("explorable-view", "remove-input")


def with_pictures(notebook: NotebookNode) -> NotebookNode:
    """Return the notebook with each explorable's cell split in two.

    The first, tagged ``explorable``, keeps source, caption and the picture. The second, tagged ``explorable-view``,
    shows the live explorable and no source. The style sheet hides the picture where the explorable runs.
    """
    split = copy.deepcopy(notebook)
    split.cells = []
    for cell in copy.deepcopy(notebook.cells):
        split.cells.append(cell)
        if cell.cell_type != "code":
            continue
        views = [output.data.pop(VIEW) for output in cell.outputs if VIEW in output.get("data", {})]
        if views:
            cell.metadata["tags"] = [*cell.metadata.get("tags", []), "explorable"]
        for number, view in enumerate(views):
            # A cell without source would be left out of the page.
            live = nbformat.v4.new_code_cell("...", id=f"{cell.id}-live-{number}", metadata={"tags": [*_TAGS]})
            live.outputs = [nbformat.v4.new_output("display_data", {VIEW: view})]
            split.cells.append(live)
    return split


def with_steady_models(notebook: NotebookNode) -> NotebookNode:
    """Return the notebook with those widget models only that a view shows, numbered instead of named at random.

    So the same chapter gives the same page, byte by byte.
    """
    shown = [
        output.data[VIEW]["model_id"]
        for cell in notebook.cells
        for output in cell.get("outputs", [])
        if VIEW in output.get("data", {})
    ]
    steady = copy.deepcopy(notebook)
    states: dict[str, Any] = steady.metadata.get("widgets", {}).get(STATE, {}).get("state", {})
    kept = {name: states[name] for name in shown if name in states}
    if STATE in steady.metadata.get("widgets", {}):
        steady.metadata["widgets"][STATE]["state"] = kept
    text = json.dumps(steady)
    for number, name in enumerate(kept):
        text = text.replace(name, f"{number:032x}")
    return nbformat.from_dict(json.loads(text))
