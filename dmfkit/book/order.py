"""Which chapter to start first when everything is computed anew."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from dmfkit.book.layout import Layout
from dmfkit.experiments.store import read


def longest_first(layout: Layout, chapters: Sequence[Path]) -> list[Path]:
    """Return the chapters, those first whose stored results took longest to compute.

    A long chapter that starts last leaves all processor cores but one without work. The names of results stand in a
    chapter's source, and the results that come with the book say what they cost.
    """
    seconds: dict[str, float] = {}
    for path in (layout.notebooks / "results").glob("*.nc"):
        name = path.stem.rpartition("-")[0]
        seconds[name] = seconds.get(name, 0.0) + float(read(path).attrs.get("total_wall_seconds", 0.0))

    def cost(chapter: Path) -> float:
        # In the notebook's JSON a quoted name stands between escaped quotation marks.
        source = chapter.read_text(encoding="utf-8")
        return sum(value for name, value in seconds.items() if f'\\"{name}\\"' in source)

    return sorted(chapters, key=cost, reverse=True)
