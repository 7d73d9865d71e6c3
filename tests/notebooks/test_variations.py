"""Every chapter runs with other parameters too: two sets each, on top of the quick preset."""

import os
from pathlib import Path

import pytest
import yaml
from nbclient import NotebookClient
from nbformat import v4
from papermill.iorw import load_notebook_node
from papermill.parameterize import parameterize_notebook

from bookbuild.project import declared_parameters

ROOT = Path(__file__).parents[2]
CHAPTERS = sorted(path.stem for path in (ROOT / "notebooks").glob("*.ipynb"))
VARIATIONS = yaml.safe_load((Path(__file__).parent / "variations.yml").read_text(encoding="utf-8"))
QUICK = yaml.safe_load((ROOT / "notebooks" / "presets" / "quick.yml").read_text(encoding="utf-8"))


def test_every_chapter_has_small_parameters_and_two_variations():
    # On failure, give the chapter its small parameters in notebooks/presets/quick.yml, {} to run it as it is, or two
    # further sets in tests/notebooks/variations.yml.
    assert set(CHAPTERS) <= set(QUICK)
    assert {name: len(sets) for name, sets in VARIATIONS.items()} == dict.fromkeys(CHAPTERS, 2)


@pytest.fixture(scope="module")
def kernel():
    """A kernel for all chapters; a new one for each would import everything anew."""
    client = NotebookClient(v4.new_notebook(), kernel_name="python3", timeout=600)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    with client.setup_kernel(cwd=str(ROOT / "notebooks"), env=environment):
        yield client


def execute(client, notebook):
    """Execute all cells in an emptied kernel; return what they gave, with their ids."""
    # Emptied, it knows no more than a new one; that chapters run in new ones is what building the book shows.
    notebook.cells.insert(0, v4.new_code_cell("%reset -f", id="reset"))
    client.nb = notebook
    client.reset_execution_trackers()
    for number, cell in enumerate(notebook.cells):
        client.execute_cell(cell, number)
    return [(cell.id, output) for cell in notebook.cells for output in cell.get("outputs", [])]


@pytest.mark.kernel
@pytest.mark.parametrize(
    ("chapter", "which"), [(name, which) for name in sorted(VARIATIONS) for which in range(len(VARIATIONS[name]))]
)
def test_a_chapter_runs_with_other_parameters(kernel, chapter, which, tmp_path):
    source = ROOT / "notebooks" / f"{chapter}.ipynb"
    values = {**QUICK[chapter], **VARIATIONS[chapter][which], "results": str(tmp_path / "results")}
    if "results" not in declared_parameters(source):
        del values["results"]
    outputs = execute(kernel, parameterize_notebook(load_notebook_node(str(source)), values))
    assert len(outputs) > 10
    assert [(cell, output.text) for cell, output in outputs if output.get("name") == "stderr"] == []
