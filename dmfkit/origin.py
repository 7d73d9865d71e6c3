"""A note, shown in a chapter and collected by the build, on where a figure's results come from."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from html import escape
from typing import Any

import xarray as xr

ORIGIN_TYPE = "application/vnd.dmfkit.origin+json"


@dataclass(frozen=True)
class Origin:
    """Where one set of results comes from; a notebook shows it as one line.

    Attributes
    ----------
    what
        What was computed, for example "Figure 1".
    device
        The processor that computed it, for example "cpu".
    stored
        Whether the results were loaded from `notebooks/results` rather than computed in this run.
    wall_seconds
        The time that the computation took, in seconds; for stored results, the time that it took back then.
    """

    what: str
    device: str
    stored: bool
    wall_seconds: float

    @classmethod
    def of(cls, what: str, dataset: xr.Dataset) -> Origin:
        """Read the origin of a sweep's dataset off its attributes."""
        attributes = dataset.attrs
        return cls(what, attributes["device"], bool(attributes["loaded_from_store"]), attributes["total_wall_seconds"])

    def __str__(self) -> str:
        how = "loaded from stored results, once computed" if self.stored else "computed in this run"
        return f"{self.what}: {how} in {self.wall_seconds:.1f} s on {self.device}."

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, Any]:  # noqa: ARG002
        html = f'<p class="dmfkit-origin">{escape(str(self))}</p>'
        return {"text/plain": str(self), "text/html": html, ORIGIN_TYPE: asdict(self)}
