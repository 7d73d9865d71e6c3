"""``python -m benchmarks.memory POINT``: peak memory of one size, in a fresh process; Linux only."""

from __future__ import annotations

import ctypes
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from benchmarks.growth import Point
from dmfkit.training.descent import Descent, gradient_descent
from dmfkit.training.flow import Flow, gradient_flow


def measure(point: Point, rank: int) -> list[int]:
    """Bytes beyond those taken before: making the problem, then the factors, descent from these, and flow."""
    work(Point(d=60, n_observed=600, width=point.width, depth=point.depth), 1)  # loads what is loaded late
    before = _status("VmRSS")
    made: dict[str, Any] = {}

    def make() -> None:
        made["problem"] = point.task(rank).problem()

    def begin() -> None:
        made["factors"] = point.factors(made["problem"])

    def descend() -> None:
        gradient_descent(made["problem"], made["factors"], Descent(lr=1e-12, stop=0.0, max_steps=3))

    def flow() -> None:
        gradient_flow(made["problem"], made["factors"], Flow(max_evaluations=60))

    return [_peak(one) - before for one in (make, begin, descend, flow)]


def work(point: Point, rank: int) -> None:
    """Do once, at a small size, all that is to be measured."""
    problem = point.task(rank).problem()
    gradient_descent(problem, point.factors(problem), Descent(lr=1e-12, stop=0.0, max_steps=1))
    gradient_flow(problem, point.factors(problem), Flow(max_evaluations=60))


def _peak(one: Callable[[], None]) -> int:
    """Largest resident memory while `one` runs; what was freed before is given back first."""
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far
    one()
    return _status("VmHWM")


def largest_so_far() -> int | None:
    """Largest resident memory of this process, in bytes; None where the system does not tell."""
    return _status("VmHWM") if Path("/proc/self/status").is_file() else None


def _status(name: str) -> int:
    """A quantity of memory in the process's own status, in bytes."""
    found = re.search(rf"^{name}:\s+(\d+) kB", Path("/proc/self/status").read_text(), re.MULTILINE)
    if found is None:
        raise OSError(f"/proc/self/status has no {name}")
    return 1024 * int(found[1])


if __name__ == "__main__":
    given = json.loads(sys.argv[1])
    chosen_rank = given.pop("rank")
    torch.set_num_threads(given.pop("threads"))
    print(json.dumps(measure(Point(**given), chosen_rank)))
