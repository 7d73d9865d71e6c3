"""Rows of the benchmark table: printed, or written as JSON with a description of the machine."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from dmfkit.errors import InputError
from dmfkit.experiments.provenance import hardware, run_provenance


@dataclass(frozen=True)
class Row:
    """One measurement.

    Attributes
    ----------
    name : str
    value : float
    unit : str
    against : str
        Name of the row that it is compared with; empty for none.
    ratio : float, optional
        Value of that row divided by this one: above 1, this one needs less.
    """

    name: str
    value: float
    unit: str
    against: str = ""
    ratio: float | None = None


def medians(measured: Mapping[str, NDArray[np.float64]]) -> dict[str, float]:
    """The median of every way's repetitions."""
    return {name: float(np.median(values)) for name, values in measured.items()}


def compared(name: str, value: float, unit: str, against: Row) -> Row:
    """Row with its ratio to another row of the same run."""
    return Row(name, value, unit, against.name, against.value / value)


def table(rows: Sequence[Row]) -> str:
    """Lay the rows out for a terminal."""
    width = max(len(row.name) for row in rows)
    lines = []
    for row in rows:
        ratio = f"{row.ratio:9.2f} x less than {row.against}" if row.ratio is not None else ""
        lines.append(f"{row.name:<{width}}  {row.value:11.4g} {row.unit:<8}{ratio}".rstrip())
    return "\n".join(lines)


def machine(device: torch.device) -> dict[str, object]:
    """What the rows were measured on."""
    return {
        **run_provenance(hardware(device)),
        "cores": _cores(),
        "threads": torch.get_num_threads(),
        "jax": metadata.version("jax") if find_spec("jax") else None,
        "date": datetime.now(UTC).date().isoformat(),
    }


def _cores() -> int:
    """Cores that this process may use; a process can be bound to fewer than there are."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def write_json(path: Path, rows: Sequence[Row], device: torch.device, group: str = "") -> None:
    """Write rows and machine, whole or not at all.

    Parameters
    ----------
    path : Path
    rows : sequence of Row
    device : torch.device
    group : str
        Name of the group that was measured; the book's page has a table for each.

    Raises
    ------
    InputError
        If the file cannot be written.
    """
    # What was not reached is nan here and null there: JSON has no nan.
    plain = [
        {name: None if isinstance(item, float) and math.isnan(item) else item for name, item in asdict(row).items()}
        for row in rows
    ]
    text = json.dumps({"group": group, "machine": machine(device), "rows": plain}, indent=1, allow_nan=False)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_text(text + "\n", encoding="utf-8")
        temporary.replace(path)
    except OSError as error:
        raise InputError(f"{path} cannot be written ({error.strerror}): name a file in a folder that exists.") from None
