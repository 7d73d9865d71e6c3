"""One training run that can be watched and stopped: the same steps as in one go, a slice of wall time at a time."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace

from dmfkit.errors import InputError
from dmfkit.factorizations.factorization import Factorization
from dmfkit.problems.losses import Problem
from dmfkit.training.descent import Descent, gradient_descent
from dmfkit.training.descent_batch import BLOCK, BLOW_UP
from dmfkit.training.flow import Flow, Integration
from dmfkit.training.result import Result, Status


@dataclass(frozen=True)
class Moment:
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


def moments(
    problem: Problem,
    start: Factorization,
    method: Descent | Flow,
    *,
    factor_rates: tuple[float, ...] = (),
    seconds: float = 0.1,
) -> Iterator[Moment]:
    """Train one run and yield where it is, first at the start and then about every `seconds` of wall time.

    Taking the next moment trains on; not taking it stops. The steps are those of `gradient_descent` and
    `gradient_flow`, whatever the slices.

    Parameters
    ----------
    problem : Problem
    start : Factorization
        One run.
    method : Descent or Flow
        Descent at a fixed rate; the adaptive rule remembers its gradients and cannot be cut in slices.
    factor_rates : tuple of float
        Multipliers of the learning rate for ``W_1 .. W_N``; empty means all one.
    seconds : float

    Raises
    ------
    InputError
        If `start` has more than one run, or descent uses another rule.
    """
    if start.n_runs != 1:
        raise InputError(f"{start.n_runs} runs were given: one run at a time can be watched.")
    if isinstance(method, Flow):
        return _flow_moments(problem, start, method, factor_rates, seconds)
    if method.rule != "fixed":
        raise InputError(f"rule = {method.rule!r} cannot be watched in slices: use 'fixed'.")
    return _descent_moments(problem, start, replace(method, factor_rates=factor_rates), seconds)


def _flow_moments(
    problem: Problem, start: Factorization, settings: Flow, factor_rates: tuple[float, ...], seconds: float
) -> Iterator[Moment]:
    integration = Integration(problem, start, settings, (), (), factor_rates, None)
    scale = problem.loss_scale("mean")
    shown = -float("inf")
    while integration.running:
        if time.perf_counter() - shown > seconds:
            yield Moment(
                Factorization(integration.y.clone(), start.widths),
                int(integration.steps[0]),
                int(integration.evaluations[0]),
                float(integration.t[0]),
                float(integration.squares[0]) * scale,
                None,
            )
            shown = time.perf_counter()
        integration.advance()
    yield _moment(integration.result(), 0, 0, 0.0, ended=True)


def _descent_moments(problem: Problem, start: Factorization, settings: Descent, seconds: float) -> Iterator[Moment]:
    steps, length, now = 0, BLOCK, start
    first = float(problem.loss(start.end_to_end(), "mean")[0])
    yield Moment(start, 0, 1, 0.0, first, None)
    while True:
        began = time.perf_counter()
        length = min(length, settings.max_steps - steps)
        result = gradient_descent(problem, now, replace(settings, max_steps=length))
        status = Status(int(result.status[0]))
        # A slice measures growth from its own start, a run from its first step.
        if not float(result.mean_square[0]) <= BLOW_UP * first:
            status = Status.DIVERGED
        ended = status is not Status.LIMIT or steps + length >= settings.max_steps
        yield _moment(result, steps, steps, steps * settings.lr, ended=ended, status=status)
        if ended:
            return
        steps, now = steps + length, result.factorization
        if time.perf_counter() - began < seconds / 2:
            length *= 2


def _moment(
    result: Result, steps: int, evaluations: int, flow_time: float, *, ended: bool, status: Status | None = None
) -> Moment:
    """Return the end of a result as a moment, counted on from what came before it."""
    return Moment(
        result.factorization,
        steps + int(result.n_steps[0]),
        evaluations + int(result.n_evaluations[0]),
        flow_time + float(result.time[0]),
        float(result.mean_square[0]),
        (Status(int(result.status[0])) if status is None else status) if ended else None,
    )
