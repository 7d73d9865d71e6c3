"""The contract about imports, in pyproject.toml: it holds, and it catches what breaks it."""

import shutil
import subprocess
import sysconfig
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("dmfkit", "bookbuild", "benchmarks")
LINT = Path(sysconfig.get_path("scripts"), "lint-imports")
IGNORED = shutil.ignore_patterns("__pycache__", "stored")


def lint(folder):
    command = [LINT, "--no-logo", "--no-cache"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


@pytest.fixture
def copied(tmp_path):
    for package in PACKAGES:
        shutil.copytree(ROOT / package, tmp_path / package, ignore=IGNORED)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def test_the_code_keeps_the_contract():
    result = lint(ROOT)
    assert result.returncode == 0, result.stdout
    assert "0 broken" in result.stdout


@pytest.mark.parametrize(
    ("module", "line", "said"),
    [
        ("dmfkit/linalg/stray.py", "from dmfkit.training.flow import Flow", "dmfkit.linalg is not allowed to import"),
        ("dmfkit/theory/stray.py", "from dmfkit.chapters import claims", "dmfkit.theory is not allowed to import"),
        ("dmfkit/linalg/stray.py", "import bookbuild", "dmfkit is not allowed to import bookbuild"),
        ("benchmarks/stray.py", "import bookbuild", "benchmarks is not allowed to import bookbuild"),
        ("dmfkit/linalg/stray.py", "import dmfkit as dm", "dmfkit.linalg.stray is not allowed to import dmfkit"),
        ("dmfkit/stray/__init__.py", "", "dmfkit.stray"),
    ],
)
def test_an_import_against_the_contract_is_caught(copied, module, line, said):
    file = copied / module
    file.parent.mkdir(exist_ok=True)
    file.write_text(line + "\n", encoding="utf-8")
    result = lint(copied)
    assert result.returncode == 1
    assert said in " ".join(result.stdout.split())


def test_a_circle_is_caught(copied):
    (copied / "dmfkit/linalg/first.py").write_text("from dmfkit.linalg import second\n", encoding="utf-8")
    (copied / "dmfkit/linalg/second.py").write_text("from dmfkit.linalg import first\n", encoding="utf-8")
    result = lint(copied)
    assert result.returncode == 1
    assert ".second -> .first" in result.stdout
