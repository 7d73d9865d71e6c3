"""Whether somebody sits in front of this notebook."""

from __future__ import annotations

from IPython.core.getipython import get_ipython


def has_live_front_end() -> bool:
    """Return whether a front end runs this cell that could ask its user something.

    JupyterLab, Colab and Visual Studio Code say so with every cell they send. Papermill and other programs that
    execute a notebook say that they cannot; there, and outside a notebook, the answer is no.
    """
    kernel = getattr(get_ipython(), "kernel", None)
    return bool(getattr(kernel, "_allow_stdin", False))
