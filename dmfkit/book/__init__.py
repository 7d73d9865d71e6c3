"""Building the book: execute the chapters, stage the pages, render the HTML."""

from dmfkit.book.build import build
from dmfkit.book.layout import Layout

__all__ = ["Layout", "build"]
