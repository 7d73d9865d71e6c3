"""What a notebook that papermill has written, or is writing, says about its cells."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import nbformat

LAST_LINES = 12
_ANSI_COLOUR = re.compile(r"\x1b\[[0-9;]*m")


def count_code_cells(notebook: Path) -> int:
    """Return the number of code cells of a notebook."""
    return sum(cell.cell_type == "code" for cell in nbformat.read(notebook, as_version=4).cells)


def count_finished_cells(notebook: Path) -> int:
    """Return the number of code cells that papermill has executed so far, 0 while it is writing the file."""
    try:
        cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    except (OSError, ValueError):
        return 0
    return sum(cell["cell_type"] == "code" and _status(cell) == "completed" for cell in cells)


def describe_failure(source: Path, executed: Path, log: Path, return_code: int) -> str:
    """Return a text that names the chapter, the failing cell and the error, or "" where none failed."""
    if return_code == 0:
        return ""
    cell = _failed_cell(executed)
    printed = log.read_text(encoding="utf-8")
    if cell is None:
        return f"{source.stem} could not be executed:\n{_last_lines(printed)}"
    # papermill inserts cells, so the position is taken from the source, where the author looks for it.
    positions = {cell.id: n for n, cell in enumerate(nbformat.read(source, as_version=4).cells, start=1)}
    place = f"cell {positions[cell.id]}" if cell.id in positions else "the injected parameters' cell"
    first_line = cell.source.strip().partition("\n")[0]
    errors = _errors(cell)
    # Without an error output the kernel died; papermill's log is then all there is.
    text = "\n".join(errors[0].traceback) if errors else printed
    return f"{source.stem}, {place} (id {cell.id}: {first_line!r}) failed:\n{_last_lines(text)}"


def _failed_cell(executed: Path) -> Any:
    """Return the cell with an error; where there is none, the one that ran last; where none ran, nothing."""
    try:
        cells = nbformat.read(executed, as_version=4).cells
    except (OSError, ValueError):
        return None
    started = [c for c in cells if c.cell_type == "code" and c.metadata.get("papermill", {}).get("start_time")]
    return next((cell for cell in started if _errors(cell)), started[-1] if started else None)


def _errors(cell: Any) -> list[Any]:
    return [output for output in cell.get("outputs", []) if output.output_type == "error"]


def _status(cell: Any) -> str | None:
    return cell["metadata"].get("papermill", {}).get("status")


def _last_lines(text: str) -> str:
    lines = _ANSI_COLOUR.sub("", text).strip().splitlines()
    return "\n".join(f"    {line}" for line in lines[-LAST_LINES:])
