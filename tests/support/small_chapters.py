"""Chapters of a few lines, for tests of the build."""

from __future__ import annotations

import nbformat
from nbformat import v4


def write_chapter(root, name, *sources, parameters="d = 100"):
    cells = [
        v4.new_markdown_cell(f"# {name}", id="title"),
        v4.new_code_cell(parameters, id="parameters", metadata={"tags": ["parameters"]}),
        *(v4.new_code_cell(source, id=f"code-{number}") for number, source in enumerate(sources)),
    ]
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    (root / "_config.yml").write_text("title: x\n")
    (root / "notebooks" / "presets").mkdir(parents=True, exist_ok=True)
    notebook = v4.new_notebook(cells=cells, metadata={"kernelspec": kernel})
    nbformat.write(notebook, root / "notebooks" / f"{name}.ipynb")
