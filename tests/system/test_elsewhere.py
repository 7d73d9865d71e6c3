"""A chapter opened without a checkout, as on Colab: its first cell installs the package with all that it needs."""

import json
import os
import shutil
import subprocess
import tomllib
import venv
from importlib import metadata
from pathlib import Path

import nbformat
import pytest
from nbformat import v4
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from setuptools import find_packages

from bookbuild import Layout
from bookbuild.repository import CELL, first_cell, write_repository

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.skipif(shutil.which("git") is None, reason="NOT TESTED ELSEWHERE: there is no git"),
]

ROOT = Path(__file__).parents[2]
CHAPTERS = sorted((ROOT / "notebooks").glob("*.ipynb"))
URL = "https://github.com/example/book"
# What a notebook server has.
RUNNING = ("ipykernel", "papermill", "pip", "setuptools")
# A cell that loads a stored result.
LOADING = ("07_matrix_sensing", "dynamics-run")
# Where the package and what it carries were found, for the test to look at.
REPORT = """\
import json, dmfkit
print(json.dumps({"package": dmfkit.__file__, "results": str(dmfkit.open_store().published)}))
"""


@pytest.fixture(scope="module")
def python(tmp_path_factory):
    """Python of a new environment that has what the package asks for and what runs notebooks, but not the package."""
    folder = tmp_path_factory.mktemp("environment")
    libraries = folder / "libraries"
    libraries.mkdir()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    for distribution in with_what_they_need([*project["dependencies"], *RUNNING]):
        for name in {file.parts[0] for file in distribution.files} - {"..", "__pycache__"}:
            link = libraries / name
            if not link.exists():
                link.symlink_to(distribution.locate_file(name))
    venv.create(folder / "bare", symlinks=True, with_pip=False)
    (site_packages(folder / "bare") / "libraries.pth").write_text(f"{libraries}\n")
    return folder / "bare" / "bin" / "python"


def with_what_they_need(requirements):
    """The installed distributions of these requirements, and of theirs."""
    waiting, found = [Requirement(text) for text in requirements], {}
    while waiting:
        requirement = waiting.pop()
        name = canonicalize_name(requirement.name)
        if name not in found and (requirement.marker is None or requirement.marker.evaluate({"extra": ""})):
            found[name] = metadata.distribution(name)
            waiting += [Requirement(text) for text in found[name].requires or ()]
    return found.values()


def site_packages(environment):
    (found,) = environment.glob("lib/python*/site-packages")
    return found


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """A repository with the sources as they are now, which name its address."""
    source = tmp_path_factory.mktemp("published")
    for name in ("dmfkit", "bookbuild", "notebooks"):
        ignored = shutil.ignore_patterns("__pycache__", ".ipynb_checkpoints")
        shutil.copytree(ROOT / name, source / name, ignore=ignored)
    for name in ("pyproject.toml", "README.md", "LICENSE", "_config.yml"):
        shutil.copy(ROOT / name, source)
    write_repository(Layout(source, source / "_build"), URL, "main")
    git = ["git", "-C", str(source), "-c", "user.name=test", "-c", "user.email=test@example.org"]
    for command in (["init", "-q", "-b", "main"], ["add", "-A"], ["commit", "-q", "-m", "sources"]):
        subprocess.run([*git, *command], check=True, env=environment(), capture_output=True)
    return source


def environment(**more):
    """Variables without which nothing of this checkout or its user could be found."""
    kept = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "DMFKIT_CACHE")}
    return {**kept, "GIT_CONFIG_GLOBAL": os.devnull, "OMP_NUM_THREADS": "1", **more}


def redirected(published):
    """Variables that lead git from the repository's address to its files, and pip to no other source at all."""
    return {
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": f"url.file://{published}.insteadOf",
        "GIT_CONFIG_VALUE_0": URL,
        "PIP_NO_INDEX": "1",
        # pip reads it as the value of `build-isolation`: build with the setuptools that is there.
        "PIP_NO_BUILD_ISOLATION": "0",
    }


def beginning(chapter):
    """The code of a chapter until its parameters are checked, or in one chapter until a stored result is loaded."""
    cells = [cell for cell in nbformat.read(chapter, as_version=4).cells if cell.cell_type == "code"]
    place = {cell.id: number for number, cell in enumerate(cells)}
    if chapter.stem == LOADING[0]:
        return cells[: place[LOADING[1]] + 1]
    (parameters,) = [n for n, cell in enumerate(cells) if "parameters" in cell.metadata.get("tags", [])]
    check = v4.new_code_cell(f'dm.read_parameters(globals(), "{chapter.stem}")', id="read")
    return [*cells[: parameters + 1], check]


def test_a_notebook_that_does_not_know_its_repository_says_so_in_one_sentence(python, tmp_path):
    code = (
        "from IPython.core.interactiveshell import InteractiveShell as Shell\n"
        f"shown = Shell.instance().run_cell({first_cell('')!r})\n"
        "raise SystemExit(0 if shown.success else 3)"
    )
    done = subprocess.run(
        [python, "-c", code], cwd=tmp_path, env=environment(), capture_output=True, text=True, check=False
    )
    assert done.returncode == 3, done.stderr
    said = (done.stdout + done.stderr).strip()
    assert said.count("\n") == 0
    assert said.startswith("UsageError: The package dmfkit is missing: run %pip install")


def test_every_chapter_starts_without_a_checkout_and_finds_the_stored_results(python, published, tmp_path):
    cells = []
    for chapter in sorted((published / "notebooks").glob("*.ipynb")):
        # A kernel for each would import everything anew; emptied, it knows no more than a new one.
        cells += [v4.new_code_cell("%reset -f", id=f"reset-{len(cells)}")] if cells else []
        for cell in beginning(chapter):
            cells.append(v4.new_code_cell(cell.source, id=f"{chapter.stem[:2]}-{cell.id}"))
    cells.append(v4.new_code_cell(REPORT, id="report"))
    source, target, elsewhere = tmp_path / "all.ipynb", tmp_path / "done.ipynb", tmp_path / "elsewhere"
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(v4.new_notebook(cells=cells, metadata={"kernelspec": kernel}), source)
    elsewhere.mkdir()
    command = [
        python,
        "-m",
        "papermill",
        source,
        target,
        "--cwd",
        elsewhere,
        "--kernel",
        "python3",
        "--no-progress-bar",
    ]
    variables = environment(**redirected(published), DMFKIT_CACHE=str(tmp_path / "cache"))
    done = subprocess.run(command, cwd=elsewhere, env=variables, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]

    outputs = {cell.id: cell.outputs for cell in nbformat.read(target, as_version=4).cells}
    assert outputs[f"{CHAPTERS[0].stem[:2]}-{CELL}"]  # pip's note; the other chapters find the package
    assert all(not outputs[f"{chapter.stem[:2]}-{CELL}"] for chapter in CHAPTERS[1:])
    loaded = outputs[f"{LOADING[0][:2]}-{LOADING[1]}"][-1].data["text/plain"]
    assert "loaded from stored results" in loaded
    report = json.loads(outputs["report"][0].text)
    installed = site_packages(python.parents[1])
    assert report == {
        "package": str(installed / "dmfkit" / "__init__.py"),
        "results": str(installed / "dmfkit" / "results"),
    }
    names = [path.name for path in (ROOT / "notebooks" / "results").glob("*.nc")]
    assert sorted(path.name for path in (installed / "dmfkit" / "results").glob("*.nc")) == sorted(names)
    assert names
    # Nothing but the package was installed, so nothing that was there has been replaced, and no tool of the build came.
    assert {path.name.partition("-")[0] for path in installed.iterdir()} == {"dmfkit", "libraries.pth"}
    assert list(elsewhere.iterdir()) == []


def test_every_package_of_the_project_is_installed():
    listed = set(tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]["packages"])
    assert listed == {*find_packages(ROOT, include=["dmfkit*"]), "dmfkit.results"}
