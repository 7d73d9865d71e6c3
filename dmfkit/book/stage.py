"""Stage the sources of the pages: prose, executed chapters, and what is generated from them."""

from __future__ import annotations

import copy
import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import nbformat
import yaml
from nbformat import NotebookNode

from dmfkit.book.explorables import with_pictures, with_steady_models
from dmfkit.book.first_cell import with_first_cell
from dmfkit.book.layout import Layout
from dmfkit.book.partial import labels_of, text_without_absent, title_of, without_absent
from dmfkit.book.repository import Repository, configuration
from dmfkit.chapters.claims import CLAIM_TYPE
from dmfkit.chapters.outputs import ORIGIN_TYPE, RESULT_TYPE
from dmfkit.errors import InputError

# A line of its own in a page; MyST reads it as a comment, the build replaces it.
_PLACEHOLDER = re.compile(r"^% generated: (?P<name>[a-z-]+)$", re.MULTILINE)

_INJECTED_NOTE = (
    "```{note}\nThis build ran the chapter with other parameters than its own, the preset *%s*. "
    "The next cell holds them; it replaces values of the cell above.\n```"
)


def stage(
    layout: Layout,
    chapters: Sequence[str],
    preset: str,
    generated: Mapping[str, str],
    repository: Repository | None = None,
) -> None:
    """Write the folder from which Jupyter Book makes the pages.

    Parameters
    ----------
    layout
        The folders of the build; `layout.stage` is replaced.
    chapters
        Names of the executed chapters that become pages; the table of contents keeps these only.
    preset
        Name of the preset that they were executed with.
    generated
        Text for each `% generated: NAME` line of the pages.
    repository
        Where the sources are published, for the launch buttons; without it there are none.

    Raises
    ------
    InputError
        If a page asks for a generated text that does not exist, or a chapter is not in `_toc.yml`.
    """
    shutil.rmtree(layout.stage, ignore_errors=True)
    shutil.copytree(layout.root / "book", layout.stage / "book")
    shutil.copy(layout.root / "LICENSE", layout.stage)
    _write_yaml(layout.stage / "_config.yml", configuration(layout.root, repository))
    _write_yaml(layout.stage / "_toc.yml", reduce_contents(_contents(layout), chapters))
    (layout.stage / "notebooks").mkdir()
    executed = {chapter: nbformat.read(layout.executed_notebook(chapter), as_version=4) for chapter in chapters}
    absent = {path.stem: title_of(path) for path in layout.notebooks.glob("*.ipynb") if path.stem not in executed}
    labels = set().union(*map(labels_of, executed.values()))
    for page in (layout.stage / "book").glob("*.md"):
        text = fill(page.read_text(encoding="utf-8"), generated, page.name)
        page.write_text(text_without_absent(text, absent, labels) if absent else text, encoding="utf-8")
    for chapter, notebook in executed.items():
        shown = as_page(without_absent(notebook, absent, labels) if absent else notebook, preset)
        if repository is not None:
            # A reader may download the page's notebook too.
            shown = with_first_cell(shown, repository.revision)
        nbformat.write(shown, layout.stage / "notebooks" / f"{chapter}.ipynb")


def fill(text: str, generated: Mapping[str, str], page: str) -> str:
    """Replace each `% generated: NAME` line of a page."""

    def replacement(match: re.Match[str]) -> str:
        name = match["name"]
        if name not in generated:
            raise InputError(f"{page} asks for the generated text {name!r}: there are {', '.join(generated)}.")
        return generated[name]

    return _PLACEHOLDER.sub(replacement, text)


def reduce_contents(contents: Mapping[str, Any], chapters: Sequence[str]) -> dict[str, Any]:
    """Return the table of contents with those chapters only that are in the build."""
    wanted = {f"notebooks/{chapter}" for chapter in chapters}
    parts = []
    listed = set()
    for part in contents["parts"]:
        files = [entry["file"] for entry in part["chapters"]]
        kept = [file for file in files if not file.startswith("notebooks/") or file in wanted]
        listed.update(kept)
        if kept:
            parts.append({**part, "chapters": [{"file": file} for file in kept]})
    for missing in sorted(wanted - listed):
        raise InputError(f"The chapter {missing} is not in _toc.yml: add it to the part that it belongs to.")
    return {**contents, "parts": parts}


def parts_of(layout: Layout, chapters: Sequence[str]) -> dict[str, list[Path]]:
    """Return the executed notebooks of a build under the captions of the parts that they belong to."""
    parts = reduce_contents(_contents(layout), chapters)["parts"]
    names = {part["caption"]: [Path(entry["file"]) for entry in part["chapters"]] for part in parts}
    return {
        caption: [layout.executed_notebook(file.name) for file in files if file.parent.name == "notebooks"]
        for caption, files in names.items()
    }


def as_page(notebook: NotebookNode, preset: str) -> NotebookNode:
    """Return an executed notebook as the page shows it.

    A note stands above the cell of parameters that papermill injected, if there is one; the machine-readable
    outputs, which only the build and re-runs read and Jupyter Book would warn of, are gone. Each explorable stands
    beside its picture.
    """
    page = copy.deepcopy(notebook)
    page.cells = []
    for cell in copy.deepcopy(notebook.cells):
        if "injected-parameters" in cell.metadata.get("tags", []):
            page.cells.append(nbformat.v4.new_markdown_cell(_INJECTED_NOTE % preset, id="injected-note"))
        if "outputs" in cell:
            cell.outputs = [output for output in cell.outputs if RESULT_TYPE not in output.get("data", {})]
        for output in cell.get("outputs", []):
            for mime_type in (CLAIM_TYPE, ORIGIN_TYPE):
                output.get("data", {}).pop(mime_type, None)
        page.cells.append(cell)
    return with_pictures(with_steady_models(page))


def _contents(layout: Layout) -> dict[str, Any]:
    return yaml.safe_load((layout.root / "_toc.yml").read_text(encoding="utf-8"))


def _write_yaml(file: Path, content: Mapping[str, Any]) -> None:
    file.write_text(yaml.safe_dump(dict(content), sort_keys=False, allow_unicode=True), encoding="utf-8")
