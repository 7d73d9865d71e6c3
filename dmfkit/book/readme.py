"""The README's figure, drawn from the stored results of chapter 1."""

from __future__ import annotations

import io
from pathlib import Path

import matplotlib as mpl

from dmfkit.book.layout import Layout
from dmfkit.chapters import plotting
from dmfkit.errors import InputError
from dmfkit.experiments.store import read

FIGURE = Path("book", "_static", "figure-1.png")


def draw_readme_figure(layout: Layout) -> bytes:
    """Return Figure 1 as PNG bytes, the same bytes for the same stored results.

    Raises
    ------
    InputError
        If there is not exactly one stored result for each half of the figure.
    """
    runs = []
    for name in ("fig1-descent", "fig1-flow"):
        found = list((layout.notebooks / "results").glob(f"{name}-*.nc"))
        if len(found) != 1:
            raise InputError(f"There are {len(found)} stored results {name}, but one is needed: publish results first.")
        runs.append(read(found[0]))
    with mpl.rc_context():
        plotting.use_style()
        figure = plotting.error_panels(*runs)
        buffer = io.BytesIO()
        # Without the version of matplotlib, which would change the bytes and nothing else.
        figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()
