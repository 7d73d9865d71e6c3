"""The exceptions that `dmfkit` raises on purpose, and how a value is written in their sentences."""

from __future__ import annotations

import reprlib
from typing import Any


class InputError(ValueError):
    """Something that the caller gave cannot be used.

    The message is one sentence that says what was wrong, which values are allowed and what to do.
    In a notebook, and so in what papermill prints, only that sentence is shown: the reader made the
    mistake in a parameter, and our call stack would not help to mend it.
    """

    def _render_traceback_(self) -> list[str]:
        """Replace IPython's traceback by the sentence."""
        return [f"{type(self).__name__}: {self}"]


class SolverError(InputError):
    """A numerical solver did not reach the accuracy asked of it, so there is no result to rely on.

    The message is one sentence, as for any `InputError`: the remedy is another solver or other options.
    """


def brief(value: Any) -> str:
    """Write a value as Python would, cut short so that it fits into a sentence."""
    shortener = reprlib.Repr()
    shortener.maxstring = shortener.maxother = 100
    shortener.maxlist = 12
    return shortener.repr(value)
