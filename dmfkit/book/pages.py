"""The record of the execution, as a generated text."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from html import escape
from importlib import metadata
from pathlib import Path

import nbformat

from dmfkit.book.collect import collect_origins

# The packages whose version can change a number or a figure.
PACKAGES = (
    "torch",
    "numpy",
    "scipy",
    "xarray",
    "cvxpy",
    "clarabel",
    "scs",
    "matplotlib",
    "papermill",
    "jupyter-book",
)


def execution_record(notebooks: Sequence[Path], preset: str) -> str:
    """Return the tables of wall times, results and package versions."""
    times = ["| chapter | preset | wall time (s) | finished (UTC) |", "|:--|:--|--:|:--|"]
    results = [
        "| chapter | result | device | computed or stored | computation took (s) |",
        "|:--|:--|:--|:--|--:|",
    ]
    for path in notebooks:
        run = nbformat.read(path, as_version=4).metadata.papermill
        link = f"[](../notebooks/{path.stem})"
        end = run.end_time[:16].replace("T", " ")
        times.append(f"| {link} | {preset} | {run.duration:.1f} | {end} |")
        for origin in collect_origins(path):
            how = "stored" if origin["stored"] else "computed in this build"
            what, device = _cell(origin["what"]), _cell(origin["device"])
            results.append(f"| {link} | {what} | {device} | {how} | {origin['wall_seconds']:.1f} |")
    versions = ["| package | version |", "|:--|:--|"]
    versions += [f"| {name} | {metadata.version(name)} |" for name in PACKAGES]
    machine = f"The chapters ran on {platform.system()} ({platform.machine()}), Python {platform.python_version()}."
    parts = ["## Chapters", machine, "\n".join(times), "## Results", "\n".join(results)]
    return "\n\n".join([*parts, "## Packages", "\n".join(versions)])


def _cell(text: str) -> str:
    """Return a chapter's text as plain text in a cell of a table."""
    return escape(text).replace("|", "\\|")
