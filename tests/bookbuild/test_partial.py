"""A build of one chapter alone: nothing in it points to a chapter that is not there."""

from pathlib import Path

import nbformat
import pytest
from nbformat import v4

from bookbuild.pages import _ROLE, labels_of, title_of, without_absent

CHAPTERS = sorted((Path(__file__).parents[2] / "notebooks").glob("*.ipynb"))


def read(path):
    return nbformat.read(path, as_version=4)


def text_of(notebook):
    return "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")


def test_links_become_titles_and_unknown_references_a_note():
    cells = [
        v4.new_markdown_cell("See [](01_first), [the other](02_other.ipynb) and {eq}`eq-a`, {prf:ref}`thm-b`."),
        v4.new_markdown_cell("```{math}\n:label: eq-a\nx\n```"),
    ]
    notebook = v4.new_notebook(cells=cells)
    shown = without_absent(notebook, {"01_first": "The first"}, labels_of(notebook))
    assert shown.cells[0].source == (
        "See *The first*, [the other](02_other.ipynb) and {eq}`eq-a`, *(in another chapter)*."
    )


def test_every_reference_of_the_book_is_to_a_label_that_is_seen():
    labels = set().union(*(labels_of(read(path)) for path in CHAPTERS))
    used = {label for path in CHAPTERS for label in _ROLE.findall(text_of(read(path)))}
    assert used
    assert used - labels == set()


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
def test_a_chapter_alone_keeps_its_own_references_and_loses_the_others(path):
    notebook = read(path)
    absent = {other.stem: title_of(other) for other in CHAPTERS if other != path}
    shown = text_of(without_absent(notebook, absent, labels_of(notebook)))
    own = [label for label in _ROLE.findall(text_of(notebook)) if label in labels_of(notebook)]
    assert _ROLE.findall(shown) == own
    assert [name for name in absent if f"]({name}" in shown] == []
