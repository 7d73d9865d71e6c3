"""Where the book's sources are published: one setting, which pages and chapters repeat.

The pages' launch buttons open running copies of the chapters from there, and the first code cell of every chapter
installs the package from there where a notebook is opened without it, as on Colab. Once the package is on PyPI, that
cell can be ``%pip install dmfkit``, and most of this file can go.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat
import yaml
from nbformat import NotebookNode

from bookbuild.project import Layout, find_chapters
from dmfkit.errors import InputError

CELL = "install"
_INSTALL = """\
import importlib.util

if importlib.util.find_spec("dmfkit") is None:
    %%pip install -q "dmfkit @ git+%s"
"""
# IPython shows the sentence of a UsageError and no stack trace, and runs none of the cells that follow.
_ASK = """\
import importlib.util

from IPython.core.error import UsageError

if importlib.util.find_spec("dmfkit") is None:
    raise UsageError(
        'The package dmfkit is missing: run %pip install "dmfkit @ git+https://github.com/OWNER/NAME" with the address '
        "of the repository that this notebook comes from, and then the cells again."
    )
"""
_PROMPT = "%s the cell that installs the package where it is missing"
_METADATA = {
    "mystnb": {"code_prompt_hide": _PROMPT % "Hide", "code_prompt_show": _PROMPT % "Show"},
    "tags": ["hide-input"],
}
_ADDRESS = re.compile(r"https://github\.com/(?P<owner>[A-Za-z0-9-]+)/(?P<name>[A-Za-z0-9._-]+?)(?:\.git)?/?")
DEFAULT_BRANCH = "main"
# No slash: in the addresses of Colab and Binder it would look like the beginning of a path.
_BRANCH = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*")
_SETTING = re.compile(r"^repository:\n  url: .*\n  branch: .*$", re.MULTILINE)


def first_cell(revision: str) -> str:
    """Return the source of the cell.

    Parameters
    ----------
    revision
        What pip installs, as it stands after ``git+``; empty where the book does not know its repository.
    """
    return (_INSTALL % revision if revision else _ASK).rstrip()


def with_first_cell(notebook: NotebookNode, revision: str) -> NotebookNode:
    """Return the notebook with the cell for `revision`, put before the first code cell where there is none yet."""
    changed = copy.deepcopy(notebook)
    code = [cell for cell in changed.cells if cell.cell_type == "code"]
    cell = next((cell for cell in code if cell.id == CELL), None)
    if cell is None:
        cell = nbformat.v4.new_code_cell(id=CELL)
        changed.cells.insert(changed.cells.index(code[0]) if code else len(changed.cells), cell)
    cell.source = first_cell(revision)
    cell.metadata = nbformat.from_dict(_METADATA)
    return changed


def installs(notebook: NotebookNode, revision: str) -> bool:
    """Whether the notebook's first code cell is the one for `revision`."""
    first = next((cell for cell in notebook.cells if cell.cell_type == "code"), None)
    return first is not None and first.get("id") == CELL and first.source == first_cell(revision)


@dataclass(frozen=True)
class Repository:
    """A public repository on GitHub, and the branch of it that readers get."""

    owner: str
    name: str
    branch: str

    @property
    def url(self) -> str:
        """Address of the repository's page."""
        return f"https://github.com/{self.owner}/{self.name}"

    @property
    def revision(self) -> str:
        """Repository and branch, as pip writes them after ``git+``."""
        return f"{self.url}@{self.branch}"


def parse_repository(url: str, branch: str) -> Repository | None:
    """Read an address and a branch; an empty address is no repository.

    Raises
    ------
    InputError
        If the address is not that of a repository on GitHub, which is what Colab can open, or the branch cannot be
        part of such an address.
    """
    if not url:
        return None
    found = _ADDRESS.fullmatch(url)
    if found is None or not found["name"].strip("."):
        raise InputError(f"{url!r} is not the address of a repository: write https://github.com/OWNER/NAME.")
    if not _BRANCH.fullmatch(branch):
        raise InputError(
            f"A branch called {branch!r} cannot be launched: name one made of letters, digits, dots, hyphens and "
            "underscores, such as main."
        )
    return Repository(found["owner"], found["name"], branch)


def choose_repository(root: Path, url: str | None = None, branch: str | None = None) -> Repository | None:
    """Return the repository of `_config.yml`, or what `url` and `branch` say instead.

    Parameters
    ----------
    root
        The folder with `_config.yml`.
    url, branch
        Replace the setting for once; ``None`` leaves it, and an empty `url` is no repository.

    Raises
    ------
    InputError
        If one of them cannot be used, or there is no `_config.yml`.
    """
    setting = _settings(root).get("repository") or {}
    kept = {"url": "", "branch": DEFAULT_BRANCH, **setting}
    return parse_repository(kept["url"] if url is None else url, kept["branch"] if branch is None else branch)


def write_repository(layout: Layout, url: str, branch: str | None = None) -> list[Path]:
    """Write the setting into `_config.yml` and into the first code cell of every chapter.

    Parameters
    ----------
    layout
        The folders; only `layout.root` is used.
    url
        Address of the repository; empty for none.
    branch
        What Colab and Binder open; ``None`` keeps the one that is set.

    Returns
    -------
    list of Path
        The files that changed.
    """
    repository = choose_repository(layout.root, url, branch)
    file = layout.root / "_config.yml"
    text = file.read_text(encoding="utf-8")
    if not _SETTING.search(text):
        raise InputError(f'{file} lacks the setting: add the lines "repository:", "  url:" and "  branch:" to it.')
    written = (repository.url, repository.branch) if repository else ("", DEFAULT_BRANCH)
    after = {file: _SETTING.sub('repository:\n  url: "{}"\n  branch: {}'.format(*written), text)}
    for chapter in find_chapters(layout):
        notebook = with_first_cell(nbformat.read(chapter, as_version=4), repository.revision if repository else "")
        after[chapter] = nbformat.writes(notebook) + "\n"
    changed = {path: new for path, new in after.items() if new != path.read_text(encoding="utf-8")}
    for path, new in changed.items():
        temporary = path.with_name(path.name + ".new")
        temporary.write_text(new, encoding="utf-8")
        temporary.replace(path)
    return list(changed)


def installing_otherwise(chapters: Sequence[Path], repository: Repository) -> list[Path]:
    """Return the chapters whose first cell does not install the package from `repository`."""
    return [path for path in chapters if not installs(nbformat.read(path, as_version=4), repository.revision)]


def configuration(root: Path, repository: Repository | None) -> dict[str, Any]:
    """Return `_config.yml` for a build: with the launch buttons where there is a repository, without them elsewhere."""
    settings = _settings(root)
    if repository is None:
        settings.pop("launch_buttons", None)
        return settings
    return settings | {"repository": {"url": repository.url, "branch": repository.branch}}


def _settings(root: Path) -> dict[str, Any]:
    file = root / "_config.yml"
    if not file.is_file():
        raise InputError(f"There is no {file}: run the command in the project's own folder, or name it with --root.")
    settings: dict[str, Any] = yaml.safe_load(file.read_text(encoding="utf-8"))
    return settings
