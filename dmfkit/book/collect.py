"""Collect from the executed chapters what they found: verdicts, results, their origins, the cover picture."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat
import xarray as xr

from dmfkit.errors import InputError
from dmfkit.handed_over import MIME_TYPE as RESULT
from dmfkit.handed_over import HandedOver
from dmfkit.origin import MIME_TYPE as ORIGIN
from dmfkit.verdict import MIME_TYPE as CLAIM


@dataclass(frozen=True)
class Cover:
    """The picture for the first page and the text that stands for it."""

    png: bytes
    alt: str


def collect_claims(notebooks: Sequence[Path], preset: str) -> dict[str, dict[str, Any]]:
    """Return the verdicts in executed notebooks: id of the claim -> verdict and where it was reached.

    Raises
    ------
    InputError
        If two outputs settle the same claim.
    """
    collected: dict[str, dict[str, Any]] = {}
    for notebook in notebooks:
        for cell, verdict in _outputs(notebook, CLAIM):
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
    for cell, content in _outputs(notebook, RESULT):
        array = HandedOver.from_json(content).values
        if str(array.name) in results:
            raise InputError(
                f"{notebook.stem} hands over {array.name!r} twice, again in cell {cell}: rename one of them."
            )
        results[str(array.name)] = array
    return results


def collect_origins(notebook: Path) -> list[dict[str, Any]]:
    """Return the notes of an executed notebook on where its results come from."""
    return [origin for _, origin in _outputs(notebook, ORIGIN)]


def find_cover(notebooks: Sequence[Path]) -> Cover | None:
    """Return the first picture that a cell tagged `cover` shows; its alt text is in the cell's metadata."""
    for notebook in notebooks:
        for cell in nbformat.read(notebook, as_version=4).cells:
            if "cover" not in cell.metadata.get("tags", []):
                continue
            alt = cell.metadata.get("mystnb", {}).get("image", {}).get("alt", "")
            pictures = [output.data["image/png"] for output in cell.outputs if "image/png" in output.get("data", {})]
            if not alt or not pictures:
                raise InputError(
                    f"The cell {cell.id} of {notebook.stem} is tagged cover: it must show a PNG picture, "
                    "and its metadata must hold mystnb.image.alt."
                )
            return Cover(base64.b64decode(pictures[0]), alt)
    return None


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
