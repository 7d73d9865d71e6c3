"""Fixed-step gradient descent, the literal method of the papers, and the released code's GroupRMSprop rule."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, ClassVar, Literal, get_args

import torch
from torch import Tensor

from dmfkit.errors import InputError
from dmfkit.factorizations.factorization import Factorization
from dmfkit.gradients.evaluator import DescentRule, StepRule
from dmfkit.gradients.threads import Workers
from dmfkit.problems.losses import Normalisation, Problem, check_stop
from dmfkit.training.descent_batch import DescentTraining
from dmfkit.training.flow import largest_stable_lr
from dmfkit.training.loop import PER_RUN, ActiveRuns, Record, train
from dmfkit.training.recorders import Recorder
from dmfkit.training.result import Result, Status

# Where a run diverged, the largest stable learning rate is measured from a state this many steps back, or fewer.
BACK = 50


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

    lr: float = field(default=1e-3, metadata=PER_RUN)
    stop: float = 1e-6
    stop_normalisation: Normalisation = "mean"
    max_steps: int = 1_000_000
    weight_decay: float = 0.0
    factor_rates: tuple[float, ...] = ()
    rule: StepRule = "fixed"
    dtype: Literal["float64", "float32"] = "float64"

    moment_name: ClassVar[str] = "step"
    stays_in_batch: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if not (math.isfinite(self.lr) and self.lr > 0):
            raise InputError(
                f"lr = {self.lr} is not allowed: a learning rate is a positive finite number, such as 1e-3."
            )
        check_stop(self.stop)
        if self.max_steps < 0:
            raise InputError(f"max_steps = {self.max_steps} is not allowed: it must be at least 0.")
        if not (math.isfinite(self.weight_decay) and self.weight_decay >= 0):
            raise InputError(
                f"weight_decay = {self.weight_decay} is not allowed: it must be a finite number of at least 0."
            )
        if self.rule not in get_args(StepRule):
            raise InputError(f"rule = {self.rule!r} is not allowed: choose one of {', '.join(get_args(StepRule))}.")

    def until(self, moment: float) -> Descent:
        """The same, for at most so many steps."""
        return replace(self, max_steps=int(moment))

    def start(
        self,
        runs: ActiveRuns,
        workers: Workers,
        *,
        factor_rates: Sequence[float] = (),
        per_run: Mapping[str, Sequence[Any]] | None = None,
    ) -> DescentTraining:
        """Begin to train; see `dmfkit.training.loop.train`. `factor_rates` take the place of the field, if given."""
        start, problem = runs.start, runs.problem
        settings = replace(self, factor_rates=tuple(factor_rates) or self.factor_rates)
        lr = torch.tensor(
            list((per_run or {}).get("lr", [self.lr] * start.n_runs)),
            dtype=start.state.dtype,
            device=start.state.device,
        )
        return DescentTraining(
            runs,
            workers,
            DescentRule(self.rule, settings.factor_rates, self.weight_decay, self.max_steps),
            lr,
            self.stop / problem.loss_scale(self.stop_normalisation),
            partial(stable_lr_before_divergence, problem, start, settings, lr),
        )


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
        ``stable_lr`` is measured when it is asked for: see `stable_lr_before_divergence`.

    Raises
    ------
    InputError
        If the shapes of problem and factorization differ, or rates do not match runs or factors.
    """
    per_run = {} if lr is None else {"lr": lr}
    return train(problem, start, settings, per_run=per_run, record=Record(record, record_at, on_end))


def stable_lr_before_divergence(
    problem: Problem, start: Factorization, settings: Descent, lr: Tensor, result: Result
) -> Tensor:
    """Largest stable learning rate, for runs that diverged, along the gradient flow from a state shortly before.

    That state is the one at the last multiple of `BACK` steps before they ended: they are trained once more up to
    there. To keep such a state of every run, diverging or not, would take the memory of the factors once more.

    Parameters
    ----------
    problem, start, settings
        As trained.
    lr : Tensor of shape (runs,)
        Learning rates.
    result : Result
        Says which runs diverged, and when.

    Returns
    -------
    Tensor of shape (runs,)
        ``nan`` for runs that did not diverge.
    """
    found = torch.full_like(result.time, torch.nan)
    lost = torch.nonzero(result.status == int(Status.DIVERGED)).flatten()
    if not len(lost):
        return found
    states = start.state[lost].clone()
    healthy = result.n_steps[lost] // BACK * BACK
    for steps in healthy[healthy > 0].unique().tolist():
        these = torch.nonzero(healthy == steps).flatten()
        again = replace(settings, max_steps=steps, stop=0.0)
        begun = Factorization(states[these], start.widths)
        states[these] = gradient_descent(problem, begun, again, lr=lr[lost[these]].tolist()).factorization.state
    before = Factorization(states, start.widths)
    found[lost] = largest_stable_lr(problem, before, factor_rates=settings.factor_rates)
    return found
