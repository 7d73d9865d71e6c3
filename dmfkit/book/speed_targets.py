"""What the engine is meant to reach on two cores, as rows of the stored tables of speeds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Target:
    """What a machine with two cores is meant to reach.

    Attributes
    ----------
    text : str
    group, row : str
        Where the measured value stands.
    over : str
        Row of the same group whose value is divided by it; empty for the value itself.
    least, most : float, optional
        What the value must not fall below or exceed.
    """

    text: str
    group: str
    row: str
    over: str = ""
    least: float | None = None
    most: float | None = None


_STEP = "step, depth 3, float64: "
# The reference, whose time a run and step takes.
AUTOGRAD = f"{_STEP}autograd through nn.Linear, 1 run"
TARGETS = (
    Target("A step, depth 3, against `nn.Linear`, one run", "steps", f"{_STEP}dmfkit, 1 run", AUTOGRAD, 1.8),
    Target("the same, per run of a batch of 24", "steps", f"{_STEP}dmfkit, 24 runs", AUTOGRAD, 5.0),
    Target("A step, depth 3, against JAX, one run", "steps", f"{_STEP}dmfkit, 1 run", f"{_STEP}JAX, 1 run", 1.0),
    Target("the same, both in batches of 24", "steps", f"{_STEP}dmfkit, 24 runs", f"{_STEP}JAX, 24 runs", 1.0),
    *(
        Target(
            f"A step, d = 1000, {what}, against JAX",
            "steps",
            f"step, d = 1000, {what}: dmfkit",
            f"step, d = 1000, {what}: JAX",
            1.0,
        )
        for what in ("masked, full width", "masked, compressed", "fully observed, compressed")
    ),
    Target(
        "Share of the rate of batched products, depth 3, in percent",
        "peak",
        "share of the rate of numpy.matmul on all cores: descent, depth 3, 24 runs",
        least=85.0,
    ),
    Target(
        "Flow to the stop, against `nn.Linear` with GroupRMSprop",
        "stop",
        "to the stop, depth 3: dmfkit flow",
        "to the stop, depth 3: autograd through nn.Linear",
        60.0,
    ),
    Target("Figure 1, flow grid, in seconds", "figure1", "Figure 1, flow grid", most=45.0),
    Target("Figure 1, descent grid, in seconds", "figure1", "Figure 1, descent grid", most=1080.0),
    Target("Time of a sparse step, exponent in entries", "growth", "step, exponent in entries", most=1.1),
    *(
        Target(
            f"Peak memory of {what}, against entries and factors, d = 32,000",
            "growth",
            "entries and factors, d = 32000",
            f"peak memory, {what}, d = 32000",
            most=2.0,
        )
        for what in ("descent", "flow")
    ),
)


def reached(target: Target, groups: Mapping[str, Mapping[str, Any]]) -> float | None:
    """What was measured of a target; ``None`` if it was not."""
    rows = groups.get(target.group, {"rows": ()})["rows"]
    values = {row["name"]: row["value"] for row in rows}
    value, over = values.get(target.row), values.get(target.over) if target.over else 1.0
    if value is None or over is None:
        return None
    return over / value if target.over else value
