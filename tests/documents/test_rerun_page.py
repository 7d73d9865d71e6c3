"""The recipes of the page on re-running work as they stand."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import numpy as np
import pytest
import xarray as xr
from documented_code import recipes

pytestmark = pytest.mark.kernel

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "book" / "rerun.md"
RECIPES = recipes(PAGE)


@pytest.fixture
def project(tmp_path):
    """A copy of the project without stored results, so that everything is computed and nothing lands in this one."""
    for name in ("bookbuild", "dmfkit", "notebooks"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("results", "__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def follow(group, project):
    """Follow the recipes of a group in the page's order; return what they printed."""
    tools = str(Path(sys.executable).parent)
    path = os.pathsep.join([tools, os.environ["PATH"]])
    environment = {**os.environ, "PATH": path, "PYTHONPATH": str(project), "OMP_NUM_THREADS": "1"}
    printed = []
    for name, (language, text) in RECIPES.items():
        if not name.startswith(f"{group}/"):
            continue
        if language == "yaml":
            (project / name.partition("/")[2]).write_text(text, encoding="utf-8")
            continue
        command = ["bash", "-euc", text] if language == "sh" else [sys.executable, "-c", text]
        done = subprocess.run(command, cwd=project, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{name}: {done.stderr[-2000:]}"
        printed.append(done.stdout)
    return "\n".join(printed)


def markdown(notebook):
    outputs = [output for cell in nbformat.read(notebook, 4).cells for output in cell.get("outputs", [])]
    assert [output for output in outputs if output.get("name") == "stderr"] == []
    return "\n".join(output["data"].get("text/markdown", "") for output in outputs if "data" in output)


def test_the_page_has_these_groups_of_recipes():
    assert list(dict.fromkeys(name.partition("/")[0] for name in RECIPES)) == ["chapter", "matrix", "grid", "list"]


def test_a_chapter_with_other_parameters(project):
    follow("chapter", project)
    text = markdown(project / "out.ipynb")
    assert "at depth 3" in text
    assert "at depth 4" not in text


def test_a_matrix_of_ones_own(project):
    printed = follow("matrix", project)
    assert "matrix.csv: a 30 x 20 matrix" in printed
    shown = markdown(project / "mine.ipynb")
    assert "| depth 3 |" in shown
    assert "On 30 x 20 entries" in shown
    # The same numbers by both ways: depth 2, two draws.
    cells = next(line.split("|") for line in shown.splitlines() if line.startswith("| depth 2"))
    row = next(line for line in printed.splitlines() if line.startswith("array(["))
    assert float(cells[2]) == pytest.approx(np.fromstring(row[7:-2], sep=",")[1], rel=6e-3)


def test_a_grid_of_parameters(project):
    printed = follow("grid", project)
    assert "The results are in" in printed
    with xr.open_dataset(project / "runs" / "results.nc") as opened:
        results = opened.load()
    assert dict(results["share_of_second"].sizes) == {"d": 2, "depths": 2, "depth": 4}
    shares = results["share_of_second"]
    assert shares.sel(depth=2).notnull().all()
    assert shares.sel(depths="[2, 3]", depth=[4, 6]).isnull().all()
    assert shares.sel(depths="[2, 4, 6]", depth=[4, 6]).notnull().all()
    assert "reproduced" in results["verdict"]
    assert len(list((project / "runs" / "executed").glob("*.ipynb"))) == 4


def test_a_list_of_parameter_sets(project):
    follow("list", project)
    with xr.open_dataset(project / "scales" / "results.nc") as opened:
        results = opened.load()
    assert results["init_scale"].values.tolist() == [1e-3, 1.0]
    assert results["depths"].values.tolist() == ["[2]", "[2]"]
    errors = results["held_out_rmse"].mean(("depth", "data_seed", "seed"))
    # From larger factors the entries that nothing is known of keep what they began with.
    assert errors.sel(set=0) < errors.sel(set=1)
