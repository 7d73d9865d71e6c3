"""Fixed-step gradient descent, the literal method of the papers, and the released code's GroupRMSprop rule."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

import torch
from torch import Tensor

from dmfkit.errors import InputError
from dmfkit.factorizations.factorization import Factorization
from dmfkit.gradients.threads import cores
from dmfkit.problems.losses import Normalisation, Problem, check_stop
from dmfkit.training.descent_batch import Batch, Rule, StepRule
from dmfkit.training.flow import check_factor_rates, largest_stable_lr
from dmfkit.training.recorders import Log, Recorder
from dmfkit.training.result import Result, Status, allocate
from dmfkit.values import plain_value

# Where a run diverged, the largest stable learning rate is measured from a state this many steps back, or fewer.
BACK = 50


@plain_value
@dataclass(frozen=True)
class Descent:
    """Settings of gradient descent.

    Attributes
    ----------
    lr : float
        Learning rate, for the loss in the problem's own normalisation.
    stop : float
        A run ends when its training loss, in `stop_normalisation`, is below this; tested before every step.
    stop_normalisation : {"mean", "half_sum"}
    max_steps : int
    weight_decay : float
        ``lambda``: every step also subtracts ``lr * lambda * W_j``.
    factor_rates : tuple of float
        Multipliers of `lr` for ``W_1 .. W_N``; empty means all one.
    rule : {"fixed", "group_rmsprop"}
        ``group_rmsprop`` divides `lr` by the bias-corrected running root mean square (decay 0.99) of the norm of the
        whole gradient, plus 1e-4, as the code released with Arora et al. (2019) does.
    dtype : {"float64", "float32"}
        Precision of the run; the paper's code used float32.
    """

    lr: float = 1e-3
    stop: float = 1e-6
    stop_normalisation: Normalisation = "mean"
    max_steps: int = 1_000_000
    weight_decay: float = 0.0
    factor_rates: tuple[float, ...] = ()
    rule: StepRule = "fixed"
    dtype: Literal["float64", "float32"] = "float64"

    def __post_init__(self) -> None:
        _check_lr(self.lr)
        check_stop(self.stop)
        if self.max_steps < 0:
            raise InputError(f"max_steps = {self.max_steps} is not allowed: it must be at least 0.")
        if not (math.isfinite(self.weight_decay) and self.weight_decay >= 0):
            raise InputError(
                f"weight_decay = {self.weight_decay} is not allowed: it must be a finite number of at least 0."
            )
        if self.rule not in get_args(StepRule):
            raise InputError(f"rule = {self.rule!r} is not allowed: choose one of {', '.join(get_args(StepRule))}.")


def gradient_descent(
    problem: Problem,
    start: Factorization,
    settings: Descent,
    *,
    lr: Sequence[float] | None = None,
    record: tuple[Recorder, ...] = (),
    record_at: Sequence[int] = (),
    on_end: Callable[[int], None] | None = None,
) -> Result:
    """Train a batch of factorizations by gradient descent at a fixed step.

    Parameters
    ----------
    problem : Problem
    start : Factorization
        Initial factors, left unchanged.
    settings : Descent
    lr : sequence of float, optional
        One learning rate a run, in place of ``settings.lr``.
    record : tuple of Recorder
    record_at : sequence of int
        Step numbers, ascending; number 0 is the start. A run that ends between two of them is not recorded again.
    on_end : callable
        Called with the number of runs that left the batch, for progress displays.

    Returns
    -------
    Result
        Runs that converge, diverge or reach the limit keep the factors they had then. For diverged runs
        ``stable_lr`` holds the largest stable learning rate along the gradient flow from a state shortly before.

    Raises
    ------
    InputError
        If the shapes of problem and factorization differ, or rates do not match runs or factors.
    """
    state, rates, threshold = _prepare(problem, start, settings, lr)
    n_runs, widths = start.n_runs, start.widths
    log = Log(record, n_runs, len(record_at))
    out = allocate(n_runs, state.device, state.dtype)
    final: Tensor | None = None
    rule = Rule(settings.rule, settings.factor_rates, settings.weight_decay, settings.max_steps)
    moments, step = list(enumerate(record_at)), 0
    with cores(problem, widths) as division:
        batch = Batch(problem, widths, state, rates, threshold, rule, division)
        while len(batch.runs):
            while moments and moments[0][1] == step:
                log.write(moments.pop(0)[0], batch.runs, problem, Factorization(batch.state, widths))
            # The pass at the limit tests the loss after the last step and takes no further one.
            until = min(step + batch.block, settings.max_steps + 1, *(moments[0][1:] if moments else ()))
            squares = batch.advance(step, until)
            step = until
            ended = torch.ones_like(batch.active) if step > settings.max_steps else ~batch.active
            if bool(ended.any()):
                gone = batch.runs[ended]
                out["status"][gone] = torch.where(
                    ~(squares <= batch.ceiling),
                    int(Status.DIVERGED),
                    torch.where(squares < threshold, int(Status.CONVERGED), int(Status.LIMIT)),
                )[ended]
                if len(gone) == n_runs:  # as a single large run does: no copy is made
                    final = batch.state
                else:
                    final = torch.empty_like(start.state) if final is None else final
                    final[gone] = batch.state[ended]
                out["n_steps"][gone], out["n_evaluations"][gone] = batch.steps[ended], batch.steps[ended] + 1
                out["time"][gone] = batch.steps[ended] * batch.rates[ended]
                out["mean_square"][gone] = squares[ended] * problem.loss_scale("mean")
                if on_end is not None:
                    on_end(len(gone))
                batch.keep(~ended)
    lost = torch.nonzero(out["status"] == int(Status.DIVERGED)).flatten()
    if len(lost):
        healthy = _before_divergence(problem, start, settings, lost, rates, out["n_steps"])
        out["stable_lr"][lost] = largest_stable_lr(problem, healthy, factor_rates=settings.factor_rates)
    return Result(Factorization(start.state if final is None else final, widths), records=log.data, **out)


def _before_divergence(
    problem: Problem, start: Factorization, settings: Descent, lost: Tensor, rates: Tensor, n_steps: Tensor
) -> Factorization:
    """States in which runs that diverged were healthy: at the last multiple of `BACK` steps before they ended.

    They are trained once more. To keep such a state of every run, diverging or not, would take the memory of the
    factors once more.
    """
    states = start.state[lost].clone()
    healthy = n_steps[lost] // BACK * BACK
    for steps in healthy[healthy > 0].unique().tolist():
        these = torch.nonzero(healthy == steps).flatten()
        again = replace(settings, max_steps=steps, stop=0.0)
        begun = Factorization(states[these], start.widths)
        states[these] = gradient_descent(problem, begun, again, lr=rates[lost[these]].tolist()).factorization.state
    return Factorization(states, start.widths)


def _check_lr(lr: float) -> None:
    if not (math.isfinite(lr) and lr > 0):
        raise InputError(f"lr = {lr} is not allowed: a learning rate is a positive finite number, such as 1e-3.")


def _prepare(
    problem: Problem, start: Factorization, settings: Descent, lr: Sequence[float] | None
) -> tuple[Tensor, Tensor, float]:
    """Check what was given; return the state, the rate of every run and the threshold on the sum of squares."""
    if start.shape != problem.shape:
        raise InputError(f"the factorization gives {start.shape} matrices, but the problem asks for {problem.shape}.")
    check_factor_rates(settings.factor_rates, start.depth)
    if lr is not None and len(lr) != start.n_runs:
        raise InputError(f"{len(lr)} learning rates were given for {start.n_runs} runs: give one per run.")
    for value in lr or ():
        _check_lr(value)
    state = start.state.clone()
    values = list(lr) if lr is not None else [settings.lr] * start.n_runs
    rates = torch.tensor(values, dtype=state.dtype, device=state.device)
    return state, rates, settings.stop / problem.loss_scale(settings.stop_normalisation)
