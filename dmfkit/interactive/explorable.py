"""What all explorables share: a widget whose JavaScript needs no kernel, its data, its size limit and its picture."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from functools import cache
from importlib import resources
from typing import Any, ClassVar

import anywidget
import matplotlib.pyplot as plt
import numpy as np
import traitlets
from matplotlib.figure import Figure

from dmfkit.errors import InputError

BUDGET = 400_000
"""Largest size in bytes of an explorable in a page: script, style and data, as they are stored there."""

# Parts that every explorable's script may use, in the order of their dependence.
_LIBRARY = ("dom.js", "controls.js", "chart.js", "explorable.js")
_TYPES = ("uint8", "uint16", "int32", "float32", "float64")


class Explorable(anywidget.AnyWidget):
    """An interactive figure that works in a page without a kernel, in JupyterLab and in Colab alike.

    Its controls are part of its own DOM, and its script computes from what it was given: nothing calls back to
    Python. Where no script runs (in print, without JavaScript, on a page that only shows outputs) a picture stands
    in its place.

    Parameters
    ----------
    settings : mapping
        Plain values for the script.
    arrays : mapping
        Arrays for the script, of type uint8, uint16, int32, float32 or float64; stored as they are, so the type
        decides about size and accuracy. The script sees typed arrays with a shape.
    picture : Figure
        What stands in the place of the explorable where it cannot run. It is closed.

    Raises
    ------
    InputError
        If an array has another type, or the whole is larger than `BUDGET`.

    Notes
    -----
    A subclass names its scripts, files of `dmfkit/interactive/js`, in `scripts`. The last one defines
    ``start(root, content)``, which builds the explorable inside the element `root`.
    """

    scripts: ClassVar[tuple[str, ...]] = ()

    content = traitlets.Dict().tag(sync=True)

    def __init__(
        self, settings: Mapping[str, Any], arrays: Mapping[str, np.ndarray], picture: Figure, **options: Any
    ) -> None:
        packed = {name: _packed(name, values) for name, values in arrays.items()}
        self._esm = script(self.scripts)
        self._css = _source("explorable.css")
        self._picture = _png(picture)
        super().__init__(content={"settings": dict(settings), "arrays": packed}, **options)
        size = self.stored_size()
        if size > BUDGET:
            raise InputError(
                f"{type(self).__name__} would take {size / 1000:.0f} kB of its page, more than the "
                f"{BUDGET / 1000:.0f} kB that an explorable may: give it fewer or coarser data."
            )

    def stored_size(self) -> int:
        """Return the size in bytes of script, style and data as a page stores them (arrays in base 64)."""
        arrays = sum(4 * -(-len(item["data"]) // 3) for item in self.content["arrays"].values())
        return arrays + len(self._esm.encode()) + len(self._css.encode()) + len(repr(self.content["settings"]))

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: interactive, see the page or run the chapter>"

    def _repr_mimebundle_(self, **options: Any) -> Any:
        bundle = super()._repr_mimebundle_(**options)
        if bundle is None:
            return None
        # A front end takes the first kind that it can show; only one that cannot run widgets comes to the picture.
        return {**bundle[0], "image/png": self._picture}, bundle[1]


@cache
def _source(name: str) -> str:
    return (resources.files("dmfkit.interactive") / "js" / name).read_text(encoding="utf-8")


def script(names: tuple[str, ...]) -> str:
    """Return the library and the named scripts as one module; it is run from a Blob and so cannot import."""
    return "\n".join(_source(name) for name in (*_LIBRARY, *names)) + "\nexport default { render };\n"


def _packed(name: str, values: np.ndarray) -> dict[str, Any]:
    if values.dtype.name not in _TYPES:
        raise InputError(f"array {name!r} is of type {values.dtype}: convert it to one of {', '.join(_TYPES)}.")
    little_endian = np.ascontiguousarray(values, dtype=values.dtype.newbyteorder("<"))
    return {"type": values.dtype.name, "shape": list(values.shape), "data": little_endian.tobytes()}


def _png(figure: Figure) -> str:
    with io.BytesIO() as buffer:
        # The default metadata name the version of matplotlib only; bytes are the same for the same figure.
        figure.savefig(buffer, format="png", bbox_inches="tight")
        plt.close(figure)
        return base64.b64encode(buffer.getvalue()).decode()
