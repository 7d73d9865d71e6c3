"""Where the sources are published: one setting, wherever it is written, and what installs elsewhere from them."""

import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import nbformat
import pytest
from nbformat import v4
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from typer.testing import CliRunner

from bookbuild import Layout, build
from bookbuild.__main__ import app
from bookbuild.outputs import strip
from bookbuild.repository import (
    Repository,
    choose_repository,
    configuration,
    first_cell,
    parse_repository,
    write_repository,
)
from dmfkit.errors import InputError

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
URL = "https://github.com/example/book"


@pytest.fixture
def copy(tmp_path):
    """The files that the setting is written to."""
    shutil.copy(ROOT / "_config.yml", tmp_path)
    (tmp_path / "notebooks").mkdir()
    for chapter in (ROOT / "notebooks").glob("*.ipynb"):
        shutil.copy(chapter, tmp_path / "notebooks")
    return Layout(tmp_path, tmp_path / "_build")


def contents(layout):
    return {path: path.read_bytes() for path in layout.root.rglob("*") if path.is_file()}


def first_cells(layout):
    """The first code cell of every chapter."""
    notebooks = [nbformat.read(path, as_version=4) for path in layout.notebooks.glob("*.ipynb")]
    return [next(cell for cell in notebook.cells if cell.cell_type == "code") for notebook in notebooks]


@pytest.mark.parametrize("url", [URL, f"{URL}/", f"{URL}.git", f"{URL}.git/"])
def test_the_address_of_a_repository_is_read_however_it_ends(url):
    assert parse_repository(url, "main") == Repository("example", "book", "main")
    assert parse_repository(url, "v1.0").revision == f"{URL}@v1.0"


@pytest.mark.parametrize(
    "url",
    [
        "example/book",
        "github.com/example/book",
        "http://github.com/example/book",
        "https://gitlab.com/example/book",
        "https://github.com.evil.org/example/book",
        "https://github.com/example",
        "https://github.com/example/..",
        "https://github.com/example/my book",
        "https://github.com/example/book\n",
        "https://github.com/example/book/tree/main",
        'https://github.com/example/book"',
        "git@github.com:example/book.git",
    ],
)
def test_what_is_no_address_of_a_repository_is_refused(url):
    with pytest.raises(InputError, match=r"not the address of a repository: write https://github.com/OWNER/NAME\.$"):
        parse_repository(url, "main")


@pytest.mark.parametrize("branch", ["", "a/b", "a b", "-x", 'main"'])
def test_a_branch_that_cannot_stand_in_an_address_is_refused(branch):
    with pytest.raises(InputError, match="cannot be launched"):
        parse_repository(URL, branch)


def test_no_address_is_no_repository_and_an_argument_replaces_the_setting(copy):
    assert parse_repository("", "main") is None
    write_repository(copy, URL, "drafts")
    assert choose_repository(copy.root) == Repository("example", "book", "drafts")
    assert choose_repository(copy.root, "https://github.com/other/copy") == Repository("other", "copy", "drafts")
    assert choose_repository(copy.root, "") is None


def test_every_place_of_the_project_names_the_same_repository():
    repository = choose_repository(ROOT)
    expected = first_cell(repository.revision if repository else "")
    cells = first_cells(Layout(ROOT, ROOT / "_build"))
    # On failure: python -m bookbuild repository URL.
    assert {cell.source for cell in cells} == {expected}
    assert {cell.id for cell in cells} == {"install"}
    assert all("hide-input" in cell.metadata.tags for cell in cells)


def test_the_command_writes_every_place_and_no_address_takes_it_back(copy):
    write_repository(copy, "")
    before = contents(copy)
    changed = write_repository(copy, URL, "drafts")
    assert sorted(changed) == sorted(before)
    assert all(f"git+{URL}@drafts" in cell.source for cell in first_cells(copy))
    for path in copy.notebooks.glob("*.ipynb"):
        notebook = nbformat.read(path, as_version=4)
        nbformat.validate(notebook)
        assert strip(notebook) == notebook
    assert write_repository(copy, URL) == []  # the branch stays
    write_repository(copy, "")
    assert contents(copy) == before


def test_a_chapter_without_the_cell_gets_it_before_its_first_code(copy):
    new = v4.new_notebook(cells=[v4.new_markdown_cell("# New", id="title"), v4.new_code_cell("x = 1", id="first")])
    nbformat.write(new, copy.notebooks / "12_new.ipynb")
    write_repository(copy, URL)
    cells = nbformat.read(copy.notebooks / "12_new.ipynb", as_version=4).cells
    assert [cell.id for cell in cells] == ["title", "install", "first"]


WRONG = [["not an address"], [URL, "--branch", "a/b"]]


@pytest.mark.parametrize("arguments", WRONG)
def test_wrong_arguments_are_refused_and_change_nothing(copy, arguments):
    before = contents(copy)
    refused = CliRunner().invoke(app, ["repository", *arguments, "--root", str(copy.root)])
    assert isinstance(refused.exception, InputError)
    assert refused.stdout == ""
    assert contents(copy) == before


@pytest.mark.slow
def test_the_command_says_so_in_one_sentence(copy):
    command = [sys.executable, "-m", "bookbuild", "repository", *WRONG[0], "--root", str(copy.root)]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 2
    assert result.stderr.strip().count("\n") == 0
    assert result.stdout == ""


def test_a_build_refuses_a_wrong_address_before_it_runs_anything(copy):
    with pytest.raises(InputError, match="not the address of a repository"):
        build(copy, repository="not an address")
    assert not copy.output.exists()


def test_buttons_are_set_only_where_there_is_a_repository():
    assert "launch_buttons" not in configuration(ROOT, None)
    settings = configuration(ROOT, Repository("example", "book", "drafts"))
    assert settings["repository"] == {"url": URL, "branch": "drafts"}
    assert settings["launch_buttons"]["notebook_interface"] == "jupyterlab"
    assert not settings["launch_buttons"].get("thebe")


def test_what_a_chapter_needs_is_asked_for_without_upper_bounds():
    # An exact or upper bound would make Colab replace packages that it has already loaded.
    operators = {s.operator for text in PROJECT["project"]["dependencies"] for s in Requirement(text).specifier}
    assert operators == {">="}


def test_every_package_and_the_stored_results_are_part_of_an_installed_copy():
    found = {".".join(path.parent.relative_to(ROOT).parts) for path in (ROOT / "dmfkit").rglob("__init__.py")}
    # On failure, mend the list of packages in pyproject.toml.
    assert sorted(PROJECT["tool"]["setuptools"]["packages"]) == sorted(found | {"dmfkit.results"})


def test_binder_installs_the_checkout_and_pins_nothing_but_pythons_minor_version():
    lines = (ROOT / "binder" / "requirements.txt").read_text(encoding="utf-8").splitlines()
    wanted = [line for line in lines if line and not line.startswith(("#", "--extra-index-url "))]
    assert wanted == ["-e ."]
    python = (ROOT / "binder" / "runtime.txt").read_text(encoding="utf-8").strip().removeprefix("python-")
    assert python in SpecifierSet(PROJECT["project"]["requires-python"])
    assert f'python-version: "{python}"' in (ROOT / ".github" / "workflows" / "book.yml").read_text(encoding="utf-8")
