"""One training run that can be watched and stopped: the same steps as in one go, a slice of wall time at a time."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from dmfkit.errors import InputError
from dmfkit.factorizations.factorization import Factorization
from dmfkit.gradients.choice import BLOCK_STEPS, execution_for
from dmfkit.gradients.threads import Workers
from dmfkit.problems.losses import Problem
from dmfkit.training.loop import ActiveRuns, Method, Training, check
from dmfkit.training.result import Status


@dataclass(frozen=True)
class TrainingState:
    """Where a run is.

    Attributes
    ----------
    factorization : Factorization
        One run.
    n_steps, n_evaluations : int
        Steps taken and gradients evaluated so far.
    time : float
        Flow time: the integral of the learning rate.
    mean_square : float
        Mean squared residual.
    status : Status, optional
        How the run ended, ``None`` while it goes on.
    """

    factorization: Factorization
    n_steps: int
    n_evaluations: int
    time: float
    mean_square: float
    status: Status | None


def watch(
    problem: Problem,
    start: Factorization,
    method: Method,
    *,
    factor_rates: Sequence[float] = (),
    seconds: float = 0.1,
) -> Iterator[TrainingState]:
    """Train one run and yield where it is, first at the start and then about every `seconds` of wall time.

    Taking the next state trains on; not taking it stops. The steps are those of `dmfkit.training.loop.train`, whatever
    the slices.

    Parameters
    ----------
    problem : Problem
    start : Factorization
        One run.
    method : Descent or Flow
    factor_rates : sequence of float
        Multipliers of the learning rate for ``W_1 .. W_N``; empty means those of the method, or all one.
    seconds : float

    Raises
    ------
    InputError
        If `start` has more than one run, or the three do not fit together.
    """
    if start.n_runs != 1:
        raise InputError(f"{start.n_runs} runs were given: one run at a time can be watched.")
    check(problem, start, method, factor_rates)
    return _watched(problem, start, method, factor_rates, seconds)


def _watched(
    problem: Problem, start: Factorization, method: Method, factor_rates: Sequence[float], seconds: float
) -> Iterator[TrainingState]:
    with Workers(execution_for(problem, start.widths, 1)) as workers:
        # Only while it trains: who watches may need the threads in between.
        with workers.library_threads():
            training = method.start(ActiveRuns(problem, start), workers, factor_rates=factor_rates)
        while training.running:
            yield _now(training)
            began = time.perf_counter()
            with workers.library_threads():
                training.advance(BLOCK_STEPS)
                while training.running and time.perf_counter() - began < seconds:
                    training.advance(BLOCK_STEPS)
        result = training.result()
        yield TrainingState(
            result.factorization,
            int(result.n_steps[0]),
            int(result.n_evaluations[0]),
            float(result.time[0]),
            float(result.mean_square[0]),
            Status(int(result.status[0])),
        )


def _now(training: Training) -> TrainingState:
    """Where the one run is that goes on."""
    columns, scale = training.columns(), training.runs.problem.loss_scale("mean")
    return TrainingState(
        Factorization(training.state.clone(), training.runs.start.widths),
        int(columns["n_steps"][0]),
        int(columns["n_evaluations"][0]),
        float(columns["time"][0]),
        float(training.squares()[0]) * scale,
        None,
    )
