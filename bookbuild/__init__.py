"""Building the book: execute the chapters, stage the pages, render the HTML."""

from bookbuild.build import build
from bookbuild.project import Layout

__all__ = ["Layout", "build"]
