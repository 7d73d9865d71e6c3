"""What running leaves in notebooks: the build and re-runs collect it from copies, and the sources are cleared of it."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import nbformat
import xarray as xr
from nbformat import NotebookNode
from nbstripout import strip_output

from dmfkit.chapters.claims import CLAIM_TYPE
from dmfkit.chapters.outputs import ORIGIN_TYPE, RESULT_TYPE, HandedOver
from dmfkit.errors import InputError


def collect_claims(notebooks: Sequence[Path], preset: str) -> dict[str, dict[str, Any]]:
    """Return the verdicts in executed notebooks: id of the claim -> verdict and where it was reached.

    Raises
    ------
    InputError
        If two outputs settle the same claim.
    """
    collected: dict[str, dict[str, Any]] = {}
    for notebook in notebooks:
        for cell, verdict in _outputs(notebook, CLAIM_TYPE):
            identifier = verdict["id"]
            if identifier in collected:
                first = collected[identifier]
                raise InputError(
                    f"The claim {identifier!r} is settled in {first['notebook']} (cell {first['cell']}) "
                    f"and again in {notebook.stem} (cell {cell}): keep one of them."
                )
            place = {"notebook": notebook.stem, "cell": cell, "preset": preset}
            collected[identifier] = {key: value for key, value in verdict.items() if key != "id"} | place
    return collected


def collect_results(notebook: Path) -> dict[str, xr.DataArray]:
    """Return what an executed notebook handed over, by name.

    Raises
    ------
    InputError
        If a name is handed over twice.
    """
    results: dict[str, xr.DataArray] = {}
    for cell, content in _outputs(notebook, RESULT_TYPE):
        array = HandedOver.from_json(content).values
        if str(array.name) in results:
            raise InputError(
                f"{notebook.stem} hands over {array.name!r} twice, again in cell {cell}: rename one of them."
            )
        results[str(array.name)] = array
    return results


def collect_origins(notebook: Path) -> list[dict[str, Any]]:
    """Return the notes of an executed notebook on where its results come from."""
    return [origin for _, origin in _outputs(notebook, ORIGIN_TYPE)]


def write_claims(file: Path, claims: Mapping[str, Any]) -> None:
    """Write the collected verdicts as JSON, whole or not at all."""
    temporary = file.with_name(file.name + ".new")
    temporary.write_text(json.dumps(claims, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    temporary.replace(file)


def _outputs(notebook: Path, mime_type: str) -> Iterator[tuple[str, dict[str, Any]]]:
    for cell in nbformat.read(notebook, as_version=4).cells:
        for output in cell.get("outputs", []):
            if mime_type in output.get("data", {}):
                yield cell.id, output.data[mime_type]


# Beside outputs and counts, in the words of `nbstripout --extra-keys`.
_LEFT_BY_RUNNING = (
    *(f"{where}.{key}" for where in ("metadata", "cell.metadata") for key in ("papermill", "execution", "ExecuteTime")),
    *("cell.metadata.collapsed", "cell.metadata.scrolled", "metadata.widgets", "metadata.signature"),
    # The exact Python of whoever ran it last would make every commit differ.
    "metadata.language_info.version",
)


def strip(notebook: NotebookNode) -> NotebookNode:
    """Return the notebook without outputs, counts, injected parameters and widget state; ids stay."""
    result: NotebookNode = strip_output(
        copy.deepcopy(notebook),
        keep_output=False,
        keep_count=False,
        keep_id=True,
        extra_keys=list(_LEFT_BY_RUNNING),
        drop_tagged_cells=["injected-parameters"],
    )
    return result


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
