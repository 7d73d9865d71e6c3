"""Compressed, full-width and narrow factorizations of one completion problem."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise

import numpy as np
import torch
from threadpoolctl import threadpool_limits
from torch import Tensor

from benchmarks.rows import Row, compared
from dmfkit import (
    CompletionTask,
    CompressedStart,
    Flow,
    FullObservationTask,
    OrthogonalStart,
    full_observation,
    gradient_flow,
)
from dmfkit.experiments.progress import Progress
from dmfkit.experiments.step_timings import step_timings
from dmfkit.factorizations.starts import AnyStart
from dmfkit.gradients.blocks import BlockwiseEvaluator
from dmfkit.gradients.choice import Kernel, kernel_for
from dmfkit.gradients.compiled import CompiledEvaluator
from dmfkit.gradients.entries import EntrywiseEvaluator
from dmfkit.gradients.evaluator import BaseEvaluator
from dmfkit.linalg import spectra
from dmfkit.training.snapshot import Snapshot

DEPTH, LAYER_SCALE, DISCREPANT_RATE = 3, 1e-3, 0.01
TARGET_ERROR = 1e-9
# Mean squared residual at which the error is safely below the target; runs end there.
STOP = 1e-14
# At looser tolerances the small modes of a long plateau are not resolved beside those that have grown.
RTOL = 1e-4


@dataclass(frozen=True)
class ErrorClock:
    """Records the relative error, and the seconds since the recorder was made."""

    began: float = field(default_factory=time.perf_counter)

    @property
    def dims(self) -> Mapping[str, tuple[str, ...]]:
        return {"relative_error": (), "seconds": ()}

    def __call__(self, snapshot: Snapshot) -> dict[str, Tensor]:
        truth = snapshot.problem.ground_truth
        assert truth is not None
        error = spectra.relative_error(snapshot.end_to_end, truth)
        return {"relative_error": error, "seconds": torch.full_like(error, time.perf_counter() - self.began)}


def rows(d: int, rank: int, observed_share: float, device: str, repeats: int) -> list[Row]:
    """Measure everything at size `d`."""
    task = CompletionTask(d=d, rank=rank, n_observed=int(observed_share * d * d), target="truncated")
    thin = CompressedStart(DEPTH, LAYER_SCALE, rank_bound=rank)
    starts: dict[str, AnyStart] = {
        "full": OrthogonalStart(DEPTH, LAYER_SCALE),
        "compressed": replace(thin, discrepant_rate=DISCREPANT_RATE),
        "narrow": OrthogonalStart(DEPTH, LAYER_SCALE, hidden_width=2 * rank),
    }
    return [
        *_steps(task, starts, "masked step", device, repeats),
        *_steps(
            FullObservationTask(d=d, rank=rank, target="truncated"),
            {"full": starts["full"], "compressed": thin},
            "fully observed step",
            device,
            repeats,
        ),
        *_residuals(task, repeats),
        *_to_error(task, starts, device),
    ]


def _steps(
    task: CompletionTask | FullObservationTask, starts: dict[str, AnyStart], what: str, device: str, repeats: int
) -> list[Row]:
    """Seconds per descent step, and those that it takes to begin."""
    timing = step_timings(task, starts, name=what, device=device, repeats=repeats)
    seconds = {label: float(timing["step_seconds"].sel(start=label).median()) for label in starts}
    full = Row(f"{what}, full", seconds["full"], "s")
    found = [full, *(compared(f"{what}, {label}", seconds[label], "s", full) for label in starts if label != "full")]
    begin = float(timing["begin_seconds"].sel(start="compressed"))
    return [*found, Row(f"{what}: start and frames of compressed", begin, "s")]


def _residuals(task: CompletionTask, repeats: int) -> list[Row]:
    """Evaluation entry by entry and otherwise, by share of observed entries: where `gradients.choice` changes over.

    On one core, where neither way waits for threads of the other.
    """
    widths, found = (task.d, *[2 * task.rank] * (DEPTH + 1), task.d), []
    size = sum(rows * columns for columns, rows in pairwise(widths))
    state = 0.1 * torch.randn(1, size, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with threadpool_limits(1, user_api="blas"):
            for share in (0.3, 0.2, 0.1, 0.05, 0.02):
                problem = replace(task, n_observed=max(1, int(share * task.d**2))).problem()
                blocks = kernel_for(full_observation(problem.values), widths) is Kernel.BLOCKS
                other: BaseEvaluator = (
                    BlockwiseEvaluator(problem, widths, 1) if blocks else CompiledEvaluator(problem, widths)
                )
                where = f"evaluation on one core, {share:.0%} observed"
                reference = Row(f"{where}, every entry", _median(other, state, repeats), "s")
                sparse = _median(EntrywiseEvaluator(problem, widths, 1), state, repeats)
                found += [reference, compared(f"{where}, observed entries", sparse, "s", reference)]
    finally:
        torch.set_num_threads(threads)
    return found


def _median(evaluator: BaseEvaluator, state: Tensor, repeats: int) -> float:
    out, seconds = torch.empty_like(state), []
    for _ in range(repeats + 1):
        began = time.perf_counter()
        evaluator.squares_and_gradient(state, out)
        seconds.append(time.perf_counter() - began)
    return float(np.median(seconds[1:]))  # the first one warms up


def _to_error(task: CompletionTask, starts: dict[str, AnyStart], device: str) -> list[Row]:
    """Seconds and evaluations of the gradient flow to a relative recovery error of 1e-9, starts and frames included."""
    found: dict[str, Row] = {}
    with Progress(len(starts), "to the error") as progress:
        for label, start in starts.items():
            problem = task.problem().to("cuda" if device != "cpu" and torch.cuda.is_available() else "cpu")
            # A thin run is cheap and says how long to look; full width follows the compressed one.
            # Looking costs the thin ones more, relative to what they cost: the ratios are not flattered by it.
            scout = starts["compressed"] if label == "full" else start
            horizon = _flow(scout, problem, None, ())[1]
            moments = np.linspace(0.0, 1.3 * horizon, 130)
            clock = ErrorClock()
            evaluations, _, records = _flow(start, problem, clock, moments)
            found[label] = Row(f"to error {TARGET_ERROR:g}, {label}", _crossing(records), "s")
            found[f"{label} n"] = Row(f"evaluations to the stop, {label}", evaluations, "")
            progress.advance(1)
    full = found["full"]
    rows = [full, *(compared(found[label].name, found[label].value, "s", full) for label in ("compressed", "narrow"))]
    return [*rows, *(found[f"{label} n"] for label in starts)]


def _flow(
    start: AnyStart, problem: object, clock: ErrorClock | None, moments: Sequence[float] | np.ndarray
) -> tuple[int, float, dict[str, Tensor]]:
    """Evaluations, flow time and records of one run."""
    begun = start.begin(problem)  # type: ignore[arg-type]
    result = gradient_flow(
        begun.problem,
        begun.factorization,
        Flow(rtol=RTOL, stop=STOP),
        record=() if clock is None else (clock,),
        record_at=[float(moment) for moment in moments],
        factor_rates=begun.factor_rates,
    )
    return int(result.n_evaluations[0]), float(result.time[0]), result.records


def _crossing(records: dict[str, Tensor]) -> float:
    """Seconds at which the error fell to the target, between two moments log-linearly; ``nan`` if it never did."""
    error, seconds = (records[name][0].cpu().numpy() for name in ("relative_error", "seconds"))
    known = np.isfinite(error)
    error, seconds = error[known], seconds[known]
    below = np.flatnonzero(error <= TARGET_ERROR)
    if not len(below):
        return float("nan")
    after = int(below[0])
    if after == 0:
        return float(seconds[0])
    share = np.log(error[after - 1] / TARGET_ERROR) / np.log(error[after - 1] / error[after])
    return float(seconds[after - 1] + share * (seconds[after] - seconds[after - 1]))
