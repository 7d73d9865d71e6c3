"""Stage the sources of the pages: prose, executed chapters, and what is generated from them.

The pictures that chapters lend to the first page, and the first page's text around them.

How a page gets an explorable: its picture, with caption and alternative text, and after it the live one.

A build of some chapters only: what points to the others becomes plain text.
"""

from __future__ import annotations

import base64
import copy
import io
import json
import re
import shutil
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import nbformat
import yaml
from nbformat import NotebookNode
from PIL import Image

from bookbuild.project import Layout
from bookbuild.repository import Repository, configuration, with_first_cell
from dmfkit.chapters.outputs import RESULT_TYPE
from dmfkit.errors import InputError

STATE = "application/vnd.jupyter.widget-state+json"
VIEW = "application/vnd.jupyter.widget-view+json"
_TAGS = ("explorable-view", "remove-input")


def with_pictures(notebook: NotebookNode) -> NotebookNode:
    """Return the notebook with each explorable's cell split in two.

    The first, tagged ``explorable``, keeps source, caption and the picture. The second, tagged ``explorable-view``,
    shows the live explorable and no source. The style sheet hides the picture where the explorable runs.
    """
    split = copy.deepcopy(notebook)
    split.cells = []
    for cell in copy.deepcopy(notebook.cells):
        split.cells.append(cell)
        if cell.cell_type != "code":
            continue
        views = [output.data.pop(VIEW) for output in cell.outputs if VIEW in output.get("data", {})]
        if views:
            cell.metadata["tags"] = [*cell.metadata.get("tags", []), "explorable"]
        for number, view in enumerate(views):
            # A cell without source would be left out of the page.
            live = nbformat.v4.new_code_cell("...", id=f"{cell.id}-live-{number}", metadata={"tags": [*_TAGS]})
            live.outputs = [nbformat.v4.new_output("display_data", {VIEW: view})]
            split.cells.append(live)
    return split


def with_steady_models(notebook: NotebookNode) -> NotebookNode:
    """Return the notebook with those widget models only that a view shows, numbered instead of named at random.

    So the same chapter gives the same page, byte by byte.
    """
    shown = [
        output.data[VIEW]["model_id"]
        for cell in notebook.cells
        for output in cell.get("outputs", [])
        if VIEW in output.get("data", {})
    ]
    steady = copy.deepcopy(notebook)
    states: dict[str, Any] = steady.metadata.get("widgets", {}).get(STATE, {}).get("state", {})
    kept = {name: states[name] for name in shown if name in states}
    if STATE in steady.metadata.get("widgets", {}):
        steady.metadata["widgets"][STATE]["state"] = kept
    text = json.dumps(steady)
    for number, name in enumerate(kept):
        text = text.replace(name, f"{number:032x}")
    result: NotebookNode = nbformat.from_dict(json.loads(text))
    return result


_LABEL = re.compile(r"^:label: *(\S+)|^\((\S+)\)=|\$\$ \((\S+)\)$", re.MULTILINE)
_ROLE = re.compile(r"\{(?:prf:ref|numref|eq|ref)\}`(?:[^`<]*<)?([^`<>]+)>?`")
_LINK = re.compile(r"\[([^\]]*)\]\((?:\.\./notebooks/)?(\d\d_\w+)(?:\.ipynb|\.md)?(?:#[^)]*)?\)")


def title_of(notebook: Path) -> str:
    """Return the first heading of a notebook."""
    for cell in nbformat.read(notebook, as_version=4).cells:
        if cell.cell_type == "markdown" and (found := re.search(r"^# +(.+)$", cell.source, re.MULTILINE)):
            return found[1].strip()
    return notebook.stem


def labels_of(notebook: NotebookNode) -> set[str]:
    """Return what other chapters can refer to: labels of equations, statements and exercises, names of figures."""
    found: set[str] = set()
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            found |= {label for match in _LABEL.findall(cell.source) for label in match if label}
        name = cell.metadata.get("mystnb", {}).get("figure", {}).get("name")
        found |= {name} if name else set()
    return found


def without_absent(notebook: NotebookNode, absent: Mapping[str, str], labels: Set[str]) -> NotebookNode:
    """Return the notebook with links to absent chapters replaced by their titles.

    Parameters
    ----------
    notebook
    absent
        Name and title of each chapter that the build leaves out.
    labels
        Everything that the build's chapters define; a reference to anything else is replaced by a note.
    """
    shown = copy.deepcopy(notebook)
    for cell in shown.cells:
        if cell.cell_type == "markdown":
            cell.source = text_without_absent(cell.source, absent, labels)
    return shown


def text_without_absent(text: str, absent: Mapping[str, str], labels: Set[str]) -> str:
    """Return the text of a page with links to absent chapters replaced by their titles; see `without_absent`."""
    text = _LINK.sub(lambda m: f"*{m[1] or absent[m[2]]}*" if m[2] in absent else m[0], text)
    return _ROLE.sub(lambda m: m[0] if m[1] in labels else "*(in another chapter)*", text)


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
    listed: set[str] = set()
    for part in contents["parts"]:
        chapter = "notebooks/"
        kept = [one for one in part["chapters"] if not one["file"].startswith(chapter) or one["file"] in wanted]
        listed.update(one["file"] for one in kept)
        if kept:
            parts.append({**part, "chapters": kept})
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

    A note stands above the cell of parameters that papermill injected, if there is one; what the chapter hands over,
    which only re-runs read, is gone. Each explorable stands beside its picture.
    """
    page = copy.deepcopy(notebook)
    page.cells = []
    for cell in copy.deepcopy(notebook.cells):
        if "injected-parameters" in cell.metadata.get("tags", []):
            page.cells.append(nbformat.v4.new_markdown_cell(_INJECTED_NOTE % preset, id="injected-note"))
        if "outputs" in cell:
            cell.outputs = [output for output in cell.outputs if RESULT_TYPE not in output.get("data", {})]
        page.cells.append(cell)
    return with_pictures(with_steady_models(page))


def _contents(layout: Layout) -> dict[str, Any]:
    result: dict[str, Any] = yaml.safe_load((layout.root / "_toc.yml").read_text(encoding="utf-8"))
    return result


def _write_yaml(file: Path, content: Mapping[str, Any]) -> None:
    file.write_text(yaml.safe_dump(dict(content), sort_keys=False, allow_unicode=True), encoding="utf-8")


# A card is at most 20 rem wide; twice its pixels are enough for a sharp screen.
CARD_SIZE = (640, 480)


@dataclass(frozen=True)
class Cover:
    """The picture of a cell, the text that stands for it, and one sentence about the chapter (empty if it has none)."""

    png: bytes
    alt: str
    sentence: str


def find_cover(notebook: Path, tag: str) -> Cover | None:
    """Return the picture that the cell with a tag shows in an executed chapter, or None if no cell has the tag.

    Parameters
    ----------
    notebook
        An executed chapter.
    tag
        "cover" for the picture of the chapter's card, "frontispiece" for the large picture of the first page.

    Raises
    ------
    InputError
        If the cell shows no picture, lacks its alt text, or is not the only one with the tag.
    """
    tagged = [cell for cell in nbformat.read(notebook, as_version=4).cells if tag in cell.metadata.get("tags", [])]
    if not tagged:
        return None
    alt = tagged[0].metadata.get("mystnb", {}).get("image", {}).get("alt", "")
    pictures = [output.data["image/png"] for output in tagged[0].outputs if "image/png" in output.get("data", {})]
    if not alt or not pictures or len(tagged) > 1:
        raise InputError(
            f"The cell {tagged[0].id} of {notebook.stem} is tagged {tag}: it must be the only one, show a PNG picture, "
            "and its metadata must hold mystnb.image.alt."
        )
    return Cover(base64.b64decode(pictures[0]), " ".join(alt.split()), tagged[0].metadata.get("card", ""))


def thumbnail(png: bytes) -> tuple[bytes, tuple[int, int]]:
    """Return a picture shrunk to a card, as WebP, and its width and height."""
    picture = Image.open(io.BytesIO(png)).convert("RGB")
    picture.thumbnail(CARD_SIZE, Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    picture.save(buffer, format="WEBP", quality=80, method=6)
    return buffer.getvalue(), picture.size


def write_frontispiece(notebooks: Sequence[Path], pictures: Path) -> str:
    """Write the first page's large picture into a folder and return its markup; nothing where no chapter has one."""
    for path in notebooks:
        cover = find_cover(path, "frontispiece")
        if cover is not None:
            (pictures / "frontispiece.png").write_bytes(cover.png)
            image = _image("frontispiece.png", cover.alt, Image.open(io.BytesIO(cover.png)).size)
            number, link = _number(path), _link(path)
            caption = f"<figcaption>{escape(cover.sentence)} Chapter {number}: {link}.</figcaption>"
            return f'<figure class="dmfkit-frontispiece">{image}{caption}</figure>'
    return ""


def write_cards(parts: Mapping[str, Sequence[Path]], pictures: Path) -> str:
    """Write the small pictures of the chapters into a folder and return a grid of cards for each part of the book."""
    texts = []
    for caption, notebooks in parts.items():
        cards = []
        for path in notebooks:
            cover, image, sentence = find_cover(path, "cover"), "", ""
            if cover is not None:
                data, size = thumbnail(cover.png)
                (pictures / f"{path.stem}.webp").write_bytes(data)
                image = _image(f"{path.stem}.webp", cover.alt, size, 'loading="lazy" decoding="async"')
                sentence = f"<p>{escape(cover.sentence)}</p>"
            cards.append(f'<li>{image}<p class="dmfkit-card-title">{_number(path)}. {_link(path)}</p>{sentence}</li>')
        if cards:
            texts.append(f"### {caption}\n\n" + '<ul class="dmfkit-cards">\n' + "\n".join(cards) + "\n</ul>")
    return "\n\n".join(texts)


def _number(notebook: Path) -> str:
    return notebook.stem.split("_")[0].lstrip("0")


def _link(notebook: Path) -> str:
    return f'<a href="../notebooks/{notebook.stem}.html">{escape(title_of(notebook))}</a>'


def _image(name: str, alt: str, size: tuple[int, int], more: str = "") -> str:
    width, height = size
    return f'<img src="../_static/pictures/{name}" alt="{escape(alt)}" width="{width}" height="{height}" {more}>'
