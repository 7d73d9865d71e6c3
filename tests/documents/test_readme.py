"""The commands of the README work as they stand."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from documented_code import recipes

from bookbuild.generated import FIGURE, draw_readme_figure
from bookbuild.project import Layout

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


BLOCKS = recipes(ROOT / "README.md")


def block(name):
    return BLOCKS[name][1]


@pytest.mark.kernel
@pytest.mark.parametrize("line", [line for line in block("rerun").splitlines() if line.startswith("papermill")])
def test_rerunning_with_other_parameters(line, tmp_path):
    words = shlex.split(line)
    target = tmp_path / Path(words[2]).name
    command = [
        sys.executable,
        "-m",
        *words[:2],
        str(target),
        *words[3:],
        "--no-progress-bar",
        "-p",
        "results",
        str(tmp_path),
    ]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT / "notebooks", env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    outputs = [output for cell in nbformat.read(target, 4).cells for output in cell.get("outputs", [])]
    assert any("image/png" in output.get("data", {}) for output in outputs)
    assert not [output for output in outputs if output.get("name") == "stderr"]
    if "[2, 5]" in line:
        text = "".join(output["data"].get("text/markdown", "") for output in outputs if "data" in output)
        assert "| 600 | 5 |" in text  # the table has the depth and the number of entries that were asked for
        assert "| 600 | 3 |" not in text


@pytest.mark.slow
def test_using_the_package(tmp_path):
    code = block("package").replace("d=50, rank=3, n_observed=900", "d=12, rank=1, n_observed=90")
    assert "d=12" in code
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    )
    assert "final_relative_error" in done.stdout


def test_the_figure_is_the_one_that_the_stored_results_give():
    # Same results, same versions: the same bytes. On failure, draw it anew by python -m bookbuild publish-results.
    layout = Layout(ROOT, ROOT / "_build")
    assert (ROOT / FIGURE).read_bytes() == draw_readme_figure(layout)
    assert str(FIGURE) in README


def test_make_targets_exist():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in re.findall(r"make (\w+)", README):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
