"""A small Sphinx extension: a chapter has the number of its file, in a build of some chapters too."""

from __future__ import annotations

import re
from collections.abc import Iterable

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.environment.collectors.toctree import TocTreeCollector

_CHAPTER = re.compile(r"notebooks/(\d\d)_")
# Sphinx numbers what its contents ask for at 500, and figures right after; this comes next and numbers figures again.
_AFTER_SPHINX = 600


def chapter_number(page: str) -> int | None:
    """Return the number of a chapter by its page's name, None for other pages."""
    found = _CHAPTER.match(page)
    return int(found[1]) if found else None


def chapters_by_number(pages: Iterable[str]) -> dict[int, str]:
    """Return the chapters among some pages: number -> page."""
    return {number: page for page in sorted(pages) if (number := chapter_number(page)) is not None}


def number_chapters(app: Sphinx, env: BuildEnvironment) -> list[str]:  # noqa: ARG001
    """Number the titles of chapters and what is numbered in them; returns the pages that this concerns."""
    chapters = chapters_by_number(env.found_docs)
    for number, page in chapters.items():
        title, *others = env.tocs[page].findall(nodes.reference)
        # Of the headings, only the title has a number; what is not named here would have the title's.
        env.toc_secnumbers[page] = {"": (number,), **{one["anchorname"]: () for one in others}}
        title["secnumber"] = env.titles[page]["secnumber"] = (number,)
    TocTreeCollector().assign_figure_numbers(env)
    return list(chapters.values())


def setup(app: Sphinx) -> dict[str, bool]:
    """Connect the extension to Sphinx."""
    app.connect("env-get-updated", number_chapters, priority=_AFTER_SPHINX)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
