"""A chapter's main results, labelled, left in machine-readable form for whoever re-runs it with other parameters.

A note, shown in a chapter and collected by the build, on where a figure's results come from.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from html import escape
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from IPython.display import display

from dmfkit.errors import InputError

RESULT_TYPE = "application/vnd.dmfkit.result+json"
# More belongs into a file of its own and not into a notebook's output.
MOST_VALUES = 200_000


@dataclass(frozen=True, eq=False)
class HandedOver:
    """One labelled result; a notebook shows it as one line, a page of the book not at all."""

    values: xr.DataArray

    def __str__(self) -> str:
        sizes = ", ".join(f"{name} {size}" for name, size in self.values.sizes.items())
        return f"Result for re-runs: {self.values.name}" + (f" ({sizes})" if sizes else "")

    def to_json(self) -> dict[str, Any]:
        """Return the result as plain JSON values; those that are not finite are spelt as text."""
        return {
            "name": self.values.name,
            "dims": list(self.values.dims),
            "shape": list(self.values.shape),
            "values": _plain(self.values.values),
            "coordinates": {name: _plain(self.values[name].values) for name in self.values.dims},
        }

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> HandedOver:
        """Make the result that `to_json` took apart."""
        values = np.array([_number(item) for item in content["values"]]).reshape(content["shape"])
        coordinates = {
            name: [item if isinstance(item, str) else _number(item) for item in items]
            for name, items in content["coordinates"].items()
        }
        return cls(xr.DataArray(values, dims=content["dims"], coords=coordinates, name=content["name"]))

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, Any]:  # noqa: ARG002
        return {"text/plain": str(self), RESULT_TYPE: self.to_json()}


def hand_over(name: str, values: Any, *dims: str) -> None:
    """Leave a labelled result in the notebook's output, where `python -m bookbuild rerun` collects it.

    Parameters
    ----------
    name : str
        Of the variable in the dataset of all runs; a Python name.
    values : DataArray, number, or mapping
        A mapping goes from coordinates to numbers: from tuples of them where there are several `dims`.
    *dims : str
        Names of the coordinates of a mapping.

    Raises
    ------
    InputError
        If the name is none, the values are not real numbers, or there are more than 200,000 of them.
    """
    if not isinstance(name, str) or not name.isidentifier():
        raise InputError(f"{name!r} cannot name a result: take letters, digits and underscores, such as final_error.")
    array = _labelled(name, values, dims)
    if array.dtype.kind not in "biuf":
        raise InputError(f"The result {name} holds {array.dtype}: hand over real numbers or truth values.")
    labels = [item for dim in array.dims for item in _plain(array[dim].values)]
    if not all(isinstance(item, str | int | float) for item in labels):
        raise InputError(f"The result {name} has coordinates that are neither numbers nor text: use numbers or text.")
    if array.size > MOST_VALUES:
        raise InputError(f"The result {name} has {array.size:,} values: hand over at most {MOST_VALUES:,}.")
    display(HandedOver(array))


def _labelled(name: str, values: Any, dims: tuple[str, ...]) -> xr.DataArray:
    """Return the values with a coordinate for every dimension and no other."""
    if isinstance(values, Mapping):
        if not values or not dims:
            raise InputError(f"The result {name} is a mapping: it needs values, and the names of its coordinates.")
        series = pd.Series(list(values.values()), index=pd.Index(list(values), tupleize_cols=len(dims) > 1))
        if series.index.nlevels != len(dims):
            raise InputError(
                f"The result {name} has {series.index.nlevels} coordinates, but {len(dims)} names for them."
            )
        values = series.rename_axis(list(dims)).to_xarray()
    elif dims:
        raise InputError(f"The result {name} is no mapping, so it cannot be given names of coordinates.")
    elif not isinstance(values, xr.DataArray):
        values = xr.DataArray(np.asarray(values))
        if values.ndim:
            raise InputError(
                f"The result {name} has no labels: hand over an xarray.DataArray, a mapping or one number."
            )
    numbered = {dim: np.arange(size) for dim, size in values.sizes.items() if dim not in values.coords}
    kept = {dim: values.coords[dim] for dim in values.dims if dim in values.coords}
    return xr.DataArray(values.values, dims=values.dims, coords={**kept, **numbered}, name=name)


def _plain(array: np.ndarray) -> list[Any]:
    """Values in a flat list; JSON has no infinity and nothing that is not a number."""
    flat = [item.item() if isinstance(item, np.generic) else item for item in np.ravel(array)]
    return [str(item) if isinstance(item, float) and not math.isfinite(item) else item for item in flat]


def _number(item: Any) -> Any:
    return float(item) if isinstance(item, str) else item


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
