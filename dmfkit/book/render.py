"""Render the staged pages by Jupyter Book and put the finished HTML in place."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from dmfkit.book.errors import BuildError
from dmfkit.book.layout import Layout

LAST_LINES = 30


def render(layout: Layout) -> None:
    """Turn `layout.stage` into `layout.html`; what was there stays until the new book is complete.

    Raises
    ------
    BuildError
        If Jupyter Book fails or warns; the message ends with the last lines of its log.
    """
    work = layout.output / "sphinx"
    shutil.rmtree(work, ignore_errors=True)
    log = layout.logs / "jupyter-book.log"
    main = "from jupyter_book.cli.main import main; main()"
    options = ["--path-output", str(work), "--all", "-W", "-n", "--keep-going"]
    with log.open("wb") as stream:
        command = [sys.executable, "-c", main, "build", str(layout.stage), *options]
        result = subprocess.run(command, stdout=stream, stderr=subprocess.STDOUT, check=False)
    text = log.read_text(encoding="utf-8")
    # A warning fails the build even where Jupyter Book's own exit code is 0.
    warnings = [line for line in text.splitlines() if "WARNING" in line or "ERROR" in line]
    if result.returncode != 0 or warnings:
        tail = warnings or text.splitlines()[-LAST_LINES:]
        raise BuildError("\n".join([f"Jupyter Book failed; its log is {log}:", *tail]))
    _name_icon(work / "_build" / "html" / "index.html")
    _swap(work / "_build" / "html", layout)
    shutil.rmtree(work)


def _name_icon(index: Path) -> None:
    """Say in the page that only leads to the first one which icon the book has.

    A browser that is told of none asks for one at the top of the site, where there is none, and reports an error.
    """
    head = '<!doctype html>\n<html lang="en">\n<title>Contents</title>\n<link rel="icon" href="_static/favicon.svg">\n'
    index.write_text(head + index.read_text(encoding="utf-8"), encoding="utf-8")


def _swap(new: Path, layout: Layout) -> None:
    """Replace the old book by the new one with two renames."""
    old = layout.output / "html.old"
    shutil.rmtree(old, ignore_errors=True)
    if layout.html.exists():
        layout.html.rename(old)
    new.rename(layout.html)
    shutil.rmtree(old, ignore_errors=True)
