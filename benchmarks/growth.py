"""How time per step and memory of sparse completion grow, one quantity at a time, with fitted exponents."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch

from benchmarks.rows import Row
from dmfkit.errors import InputError
from dmfkit.experiments.progress import Progress
from dmfkit.factorizations.factorization import Factorization
from dmfkit.factorizations.starts import OrthogonalStart
from dmfkit.problems.losses import Problem
from dmfkit.problems.tasks import SparseCompletionTask
from dmfkit.training.descent import Descent, gradient_descent

# A timed piece takes at least so long, so that neither the clock nor the first calls count.
LEAST_SECONDS = 0.2


@dataclass(frozen=True)
class Point:
    """One size at which a step is measured; `width` is that of all hidden layers, `depth` the number of factors."""

    d: int
    n_observed: int
    width: int
    depth: int = 5
    runs: int = 1

    def task(self, rank: int) -> SparseCompletionTask:
        """The problem to be solved there."""
        return SparseCompletionTask(d=self.d, rank=rank, n_observed=self.n_observed)

    def factors(self, problem: Problem) -> Factorization:
        """Thin factors of the widths of a compressed factorization; a step costs the same whatever they hold."""
        one = OrthogonalStart(self.depth, 0.1, hidden_width=self.width).begin(problem).factorization
        return one if self.runs == 1 else Factorization(one.state.repeat(self.runs, 1), one.widths)

    def entries_and_factors(self) -> int:
        """Bytes of what cannot be done without: entries (two indices, one value), and factors once."""
        inner = (self.depth - 2) * self.width**2
        return 16 * self.n_observed + 8 * self.runs * (2 * self.d * self.width + inner)


def series(base: Point) -> dict[str, list[tuple[float, Point]]]:
    """By the name of what grows: its values and the points there."""
    doubled = (1, 2, 4, 8)
    return {
        f"d, {base.n_observed / base.d:g} entries a row": [
            (k * base.d, replace(base, d=k * base.d, n_observed=k * base.n_observed)) for k in doubled
        ],
        f"d, {base.n_observed} entries": [(k * base.d, replace(base, d=k * base.d)) for k in doubled],
        "entries": [(k * base.n_observed, replace(base, n_observed=k * base.n_observed)) for k in doubled],
        "width": [(k * base.width, replace(base, width=k * base.width)) for k in doubled[:3]],
        "depth": [(k * base.depth, replace(base, depth=k * base.depth)) for k in doubled[:3]],
        "runs": [(k, replace(base, runs=k)) for k in doubled[:3]],
    }


def rows(base: Point, rank: int, repeats: int) -> list[Row]:
    """Seconds per step and memory at every point, and their exponents.

    Raises
    ------
    InputError
        If the matrix of the greatest number of entries does not have so many.
    """
    if 8 * base.n_observed > base.d**2:
        raise InputError(
            f"{base.n_observed} entries of a {base.d} x {base.d} matrix are too many here: their number grows "
            "eightfold, so give a larger d or fewer entries per row."
        )
    found = [
        Row("rows, and columns, where nothing else is said", base.d, ""),
        Row("observed entries, where nothing else is said", base.n_observed, ""),
        Row("width of the hidden layers, where nothing else is said", base.width, ""),
        Row("depth, where nothing else is said", base.depth, ""),
    ]
    for what, points in series(base).items():
        seconds = _step_seconds([point for _, point in points], rank, repeats, what)
        found += [Row(f"step, {what} = {value:g}", one, "s") for (value, _), one in zip(points, seconds, strict=True)]
        found.append(Row(f"step, exponent in {what}", exponent([value for value, _ in points], seconds), ""))
    return [*found, *_memory_rows(base, rank)]


def exponent(sizes: Sequence[float], values: Sequence[float]) -> float:
    """Slope of the logarithm of `values` in that of `sizes`, by least squares."""
    return float(np.polyfit(np.log(sizes), np.log(values), 1)[0])


def _step_seconds(points: Sequence[Point], rank: int, repeats: int, label: str) -> list[float]:
    """Median seconds per descent step of each point; repeats of all points are interleaved."""
    begun = [(problem := point.task(rank).problem(), point.factors(problem)) for point in points]
    rough = [_seconds(*pair, steps=2) for pair in begun]
    steps = [max(2, int(np.ceil(LEAST_SECONDS / one))) for one in rough]
    measured = np.empty((repeats, len(points)))
    with Progress(repeats, label) as progress:
        for repeat in range(repeats):
            measured[repeat] = [_seconds(*pair, steps=count) for pair, count in zip(begun, steps, strict=True)]
            progress.advance(1)
    return [float(one) for one in np.median(measured, axis=0)]


def _seconds(problem: Problem, start: Factorization, steps: int) -> float:
    """Seconds per step of one short run; the learning rate is small enough to change nothing."""
    began = time.perf_counter()
    gradient_descent(problem, start, Descent(lr=1e-12, stop=0.0, max_steps=steps))
    return (time.perf_counter() - began) / (steps + 1)  # the last loss is evaluated, too


def _memory_rows(base: Point, rank: int) -> list[Row]:
    """Peak memory where entries per row are kept, beyond what Python and the libraries take."""
    found: list[Row] = []
    points = next(iter(series(base).values()))
    names = ("making the problem", "making the factors", "descent", "flow")
    peaks: dict[str, list[float]] = {name: [] for name in names}
    with Progress(len(points), "memory") as progress:
        for value, point in points:
            least = Row(f"entries and factors, d = {value:g}", point.entries_and_factors() / 1e6, "MB")
            found.append(least)
            for name, peak in zip(names, peak_bytes(point, rank), strict=True):
                peaks[name].append(peak / 1e6)
                against, ratio = least.name, point.entries_and_factors() / peak if peak else float("nan")
                found.append(Row(f"peak memory, {name}, d = {value:g}", peak / 1e6, "MB", against, ratio))
            progress.advance(1)
    sizes = [value for value, _ in points]
    return [*found, *(Row(f"peak memory, {name}, exponent in d", exponent(sizes, peaks[name]), "") for name in names)]


def peak_bytes(point: Point, rank: int) -> list[float]:
    """Peak memory of making the problem and the factors, of descent and of the flow, in a process of its own.

    In one process memory that an earlier size gave back would be used again, and not be counted.
    """
    text = json.dumps({**asdict(point), "rank": rank, "threads": torch.get_num_threads()})
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.memory", text],
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise InputError(f"memory cannot be measured here: {done.stderr.strip().splitlines()[-1]}")
    return [float(one) for one in json.loads(done.stdout)]
