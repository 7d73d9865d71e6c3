"""The committed chapters are sources: nothing left from running them, and cells of a readable length."""

from pathlib import Path

import nbformat
import pytest

from bookbuild.outputs import strip
from bookbuild.project import declared_parameters
from dmfkit.chapters.paper_settings import CHAPTERS as MODELS
from dmfkit.chapters.settings import OWN_PARAMETERS_CELL, PARAMETERS_CELL, literals

ROOT = Path(__file__).parents[2]
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


def test_every_chapter_has_a_model_of_its_parameters():
    assert list(MODELS) == [path.stem for path in CHAPTERS]


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
def test_the_parameters_cell_holds_the_settings_of_the_chapters_model(path):
    cells = nbformat.read(path, as_version=4).cells
    (cell,) = [cell for cell in cells if "parameters" in cell.metadata.get("tags", [])]
    model = MODELS[path.stem]
    # On failure, mend the cell or the model's defaults in dmfkit/chapters/paper_settings.py.
    assert {name: as_tuple(value) for name, value in literals(cell.source).items()} == {
        name: field.default for name, field in model.model_fields.items()
    }
    assert cell.source.startswith(PARAMETERS_CELL if model.has_paper else OWN_PARAMETERS_CELL)
    # The cell as papermill sees it: it does not look for names on a line whose comment has a sign of equality.
    assert set(declared_parameters(path)) == set(model.model_fields)


def as_tuple(value):
    return tuple(map(as_tuple, value)) if isinstance(value, list) else value
