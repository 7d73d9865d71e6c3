"""The committed chapters are sources: nothing left from running them, and cells of a readable length."""

from pathlib import Path

import nbformat
import pytest

from bookbuild.outputs import strip
from dmfkit.chapters.settings import literals, paper_settings

ROOT = Path(__file__).parents[1]
CHAPTERS = sorted((ROOT / "notebooks").glob("*.ipynb"))
LONGEST_CELL = 25


def test_there_are_chapters():
    assert CHAPTERS


@pytest.fixture(params=CHAPTERS, ids=lambda path: path.stem)
def notebook(request):
    return nbformat.read(request.param, as_version=4)


def test_nothing_is_left_from_running(notebook):
    nbformat.validate(notebook)
    assert strip(notebook) == notebook, "run: python -m bookbuild strip notebooks/*.ipynb"


def test_one_cell_holds_the_parameters(notebook):
    tagged = [cell.id for cell in notebook.cells if "parameters" in cell.metadata.get("tags", [])]
    assert len(tagged) == 1


def test_cell_ids_are_unique_and_chosen(notebook):
    ids = [cell.id for cell in notebook.cells]
    assert len(set(ids)) == len(ids)


def test_code_cells_are_short(notebook):
    lengths = {cell.id: len(cell.source.splitlines()) for cell in notebook.cells if cell.cell_type == "code"}
    assert {name: length for name, length in lengths.items() if length > LONGEST_CELL} == {}


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
def test_the_parameters_cell_holds_what_the_package_knows_as_the_papers_settings(path):
    cells = nbformat.read(path, as_version=4).cells
    (cell,) = [cell for cell in cells if "parameters" in cell.metadata.get("tags", [])]
    # On failure, copy the cell's values into dmfkit/chapters/paper_settings.json, or mend the cell.
    assert literals(cell.source) == paper_settings(path.stem)
