"""How well, and how fast, a large matrix is completed: our factorizations, and what one would take instead."""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from scipy.sparse import coo_array

from benchmarks.memory import largest_so_far
from benchmarks.rows import Row, compared
from benchmarks.soft_impute import soft_impute
from dmfkit.factorizations.starts import AnyStart, CompressedStart, OrthogonalStart
from dmfkit.linalg.low_rank import LowRank
from dmfkit.linalg.sampled_products import entries
from dmfkit.problems.completion import Completion
from dmfkit.training.flow import Flow, gradient_flow

DEPTH, LAYER_SCALE, DISCREPANT_RATE = 3, 1e-3, 0.01
# Of the mean square of the entries: where our flows end.
STOP = 1e-10
MAX_EVALUATIONS = 20_000
# Alternating least squares ends after so many rounds, about as long as the flows take on a large matrix; its ridge
# penalties are relative to the mean square of the entries, because the package's default is meant for ratings.
ROUNDS, RIDGES = 300, (1e-7, 1e-3, 1e-1)
SHARES = tuple(float(share) for share in np.geomspace(0.5, 1e-3, 10))


@dataclass(frozen=True)
class Completed:
    """What one method found: the matrix, the seconds it took, and how many of what it did."""

    matrix: LowRank
    seconds: float
    count: int
    unit: str


def rows(problem: Completion, rank: int) -> list[Row]:
    """Seconds, held-out error and iterations of every method, with the true rank and with twice as much."""
    found: list[Row] = [
        Row("rows, and columns", problem.shape[0], ""),
        Row("observed entries", problem.n_observations, ""),
    ]
    first: Row | None = None
    for label, method in methods(problem, rank).items():
        done = method()
        seconds = Row(f"{label}: seconds", done.seconds, "s")
        first = first or seconds
        found += [
            seconds if first is seconds else compared(seconds.name, seconds.value, "s", first),
            Row(f"{label}: held-out error", held_out_error(problem, done.matrix), ""),
            Row(f"{label}: {done.unit}", done.count, ""),
        ]
    # Of the whole process, the other methods included.
    peak = largest_so_far()
    return found if peak is None else [*found, Row("peak memory of the process", peak / 1e9, "GB")]


def methods(problem: Completion, rank: int) -> dict[str, Callable[[], Completed]]:
    """By their names; without `cmfrec`, its rows are missing."""
    found: dict[str, Callable[[], Completed]] = {}
    for bound in (rank, 2 * rank):
        thin = CompressedStart(
            DEPTH, LAYER_SCALE, rank_bound=bound, discrepant_rate=DISCREPANT_RATE, orthogonal="cosine"
        )
        found[f"compressed, bound {bound}"] = lambda start=thin: flowed(problem, start)  # type: ignore[misc]
    narrow = OrthogonalStart(DEPTH, LAYER_SCALE, hidden_width=2 * rank)
    found[f"narrow, width {2 * rank}"] = lambda: flowed(problem, narrow)
    if importlib.util.find_spec("cmfrec"):
        for width in (rank, 2 * rank):
            for ridge in RIDGES:
                label = f"alternating least squares, rank {width}, ridge {ridge:g}"
                found[label] = lambda width=width, ridge=ridge: alternating(problem, width, ridge)  # type: ignore[misc]
    found["soft-impute, best of its path"] = lambda: soft(problem, 2 * rank)
    return found


def held_out_error(problem: Completion, matrix: LowRank) -> float:
    """Squared error over squared norm on the held-out entries."""
    test = problem.held_out
    assert test is not None
    wrong = entries(matrix.left[0], matrix.right[0], test.rows, test.columns) - test.values
    return float(wrong.square().sum() / test.values.square().sum())


def flowed(problem: Completion, start: AnyStart) -> Completed:
    """Gradient flow from a start, frames included."""
    began = time.perf_counter()
    begun = start.begin(problem)
    stop = STOP * float(problem.observed.values.square().mean())
    result = gradient_flow(
        begun.problem,
        begun.factorization,
        Flow(stop=stop, max_evaluations=MAX_EVALUATIONS),
        factor_rates=begun.factor_rates,
    )
    seconds = time.perf_counter() - began
    return Completed(result.factorization.low_rank(), seconds, int(result.n_evaluations[0]), "evaluations")


def alternating(problem: Completion, width: int, ridge: float) -> Completed:
    """Alternating least squares of the package `cmfrec`, on explicit values, without biases."""
    from cmfrec import CMF

    places = problem.observed.rows.numpy(), problem.observed.columns.numpy()
    began = time.perf_counter()
    model = CMF(
        k=width,
        lambda_=ridge * float(problem.observed.values.square().mean()),
        method="als",
        use_cg=False,
        user_bias=False,
        item_bias=False,
        center=False,
        niter=ROUNDS,
        use_float=False,
        precompute_for_predictions=False,
        random_state=1,
        verbose=False,
        handle_interrupt=False,
        nthreads=torch.get_num_threads(),
    )
    model.fit(coo_array((problem.observed.values.numpy(), places), shape=problem.shape))
    seconds = time.perf_counter() - began
    factors = (torch.from_numpy(np.asarray(side))[None] for side in (model.A_, model.B_))
    return Completed(LowRank(*factors), seconds, ROUNDS, "rounds")


def soft(problem: Completion, max_rank: int) -> Completed:
    """Soft-impute; of its path, the estimate that is best on the held-out entries, which flatters it."""
    began = time.perf_counter()
    path = list(soft_impute(problem, max_rank, SHARES, steps=20, tolerance=1e-3))
    seconds = time.perf_counter() - began
    return Completed(min(path, key=lambda one: held_out_error(problem, one)), seconds, len(path), "thresholds")
