"""Every chapter runs with other parameters too: two sets each, on top of the quick preset."""

import base64
import os
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
import yaml

from dmfkit.book.presets import declared_parameters

pytestmark = pytest.mark.notebook

ROOT = Path(__file__).parents[1]
CHAPTERS = sorted(path.stem for path in (ROOT / "notebooks").glob("*.ipynb"))
VARIATIONS = yaml.safe_load((Path(__file__).parent / "variations.yml").read_text(encoding="utf-8"))
QUICK = yaml.safe_load((ROOT / "notebooks" / "presets" / "quick.yml").read_text(encoding="utf-8"))


def test_every_chapter_has_two_variations():
    assert {name: len(sets) for name, sets in VARIATIONS.items()} == dict.fromkeys(CHAPTERS, 2)


@pytest.mark.parametrize(
    ("chapter", "which"), [(name, which) for name in sorted(VARIATIONS) for which in range(len(VARIATIONS[name]))]
)
def test_a_chapter_runs_with_other_parameters(chapter, which, tmp_path):
    values = {**QUICK[chapter], **VARIATIONS[chapter][which], "results": str(tmp_path / "results")}
    source, target = ROOT / "notebooks" / f"{chapter}.ipynb", tmp_path / "out.ipynb"
    if "results" not in declared_parameters(source):
        del values["results"]
    encoded = base64.b64encode(yaml.safe_dump(values).encode()).decode()
    command = [sys.executable, "-m", "papermill", str(source), str(target), "--parameters_base64", encoded]
    command += ["--cwd", str(ROOT / "notebooks"), "--kernel", "python3", "--no-progress-bar"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    finished = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=600)
    assert finished.returncode == 0, finished.stderr[-3000:]
    outputs = [(cell.id, output) for cell in nbformat.read(target, 4).cells for output in cell.get("outputs", [])]
    assert [(cell, output.text) for cell, output in outputs if output.get("name") == "stderr"] == []
