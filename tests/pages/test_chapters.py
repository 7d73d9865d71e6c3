"""The chapters as the build executed them under the quick preset."""

import nbformat
import pytest

from bookbuild.outputs import collect_results
from dmfkit.chapters.settings import PARAMETERS_CELL

pytestmark = [pytest.mark.book, pytest.mark.kernel]


@pytest.fixture(scope="module")
def executed(layout):
    notebooks = {path.stem: nbformat.read(path, as_version=4) for path in layout.executed.glob("*.ipynb")}
    assert set(notebooks) == {path.stem for path in layout.notebooks.glob("*.ipynb")}
    return notebooks


def outputs(notebook):
    return [(cell.id, output) for cell in notebook.cells for output in cell.get("outputs", [])]


def test_every_code_cell_ran_without_error(executed):
    for name, notebook in executed.items():
        cells = [cell for cell in notebook.cells if cell.cell_type == "code" and cell.source.strip()]
        assert [cell.id for cell in cells if cell.execution_count is None] == [], name
        assert [cell for cell, output in outputs(notebook) if output.output_type == "error"] == [], name


def test_no_chapter_prints_warnings_or_progress_bars(executed):
    for name, notebook in executed.items():
        printed = [output.text for _, output in outputs(notebook) if output.get("name") == "stderr"]
        assert printed == [], name


def test_every_chapter_shows_a_figure_with_a_caption_and_settles_claims_if_it_has_a_paper(executed):
    for name, notebook in executed.items():
        with_picture = {cell for cell, output in outputs(notebook) if "image/png" in output.get("data", {})}
        assert with_picture, name
        cells = {cell.id: cell for cell in notebook.cells}
        options = {cell: cells[cell].metadata.get("mystnb", {}) for cell in with_picture}
        assert [cell for cell, option in options.items() if not option.get("figure", {}).get("caption")] == [], name
        kinds = {kind for _, output in outputs(notebook) for kind in output.get("data", {})}
        (own,) = [cell.source for cell in notebook.cells if "parameters" in cell.metadata.get("tags", [])]
        assert ("application/vnd.dmfkit.claim+json" in kinds) == own.startswith(PARAMETERS_CELL), name


def test_every_chapter_hands_over_its_main_results(layout, executed):
    for name in executed:
        results = collect_results(layout.executed_notebook(name))
        assert results, name
        for variable, array in results.items():
            assert array.notnull().any(), (name, variable)
