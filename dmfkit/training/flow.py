"""Gradient flow by an adaptive stabilised Runge-Kutta-Chebyshev method.

Gradient flow on a factorization is a gradient system: its Jacobian is minus the Hessian, so its eigenvalues are real,
and near a minimum they are non-positive and spread over many decades. `chebyshev` says why that suits the method.
Every run of a batch has its own step, number of stages and spectral radius.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from torch import Tensor

from dmfkit.errors import InputError
from dmfkit.factorizations.factorization import Factorization
from dmfkit.gradients.threads import Workers
from dmfkit.problems.losses import Normalisation, Problem, check_stop
from dmfkit.training.flow_integration import FlowTraining
from dmfkit.training.loop import ActiveRuns, Record, train
from dmfkit.training.recorders import Recorder
from dmfkit.training.result import Result


@dataclass(frozen=True)
class Flow:
    """Settings of the gradient flow.

    Attributes
    ----------
    rtol : float
        Error allowed in one step, relative to the Frobenius norm of all factors together. That norm, unlike one entry
        by entry, does not change when hidden layers are rotated, and neither does gradient flow.
    atol : float
        Added to ``rtol`` times that norm.
    stop : float
        A run ends where its training loss, in `stop_normalisation`, falls to this; located inside the step.
    stop_normalisation : {"mean", "half_sum"}
    horizon : float
        Flow time at which a run ends at the latest.
    max_evaluations : int
        Evaluations of the gradient after which a run is given up.
    """

    rtol: float = 1e-3
    atol: float = 1e-12
    stop: float = 1e-6
    stop_normalisation: Normalisation = "mean"
    horizon: float = math.inf
    max_evaluations: int = 100_000

    moment_name: ClassVar[str] = "time"
    # A run has a step of its own, so nothing is gained when those that are left are divided anew.
    stays_in_batch: ClassVar[bool] = True
    dtype: ClassVar[str] = "float64"

    def __post_init__(self) -> None:
        if not 0 < self.rtol < 1:
            raise InputError(
                f"rtol = {self.rtol} is not allowed: a relative tolerance lies between 0 and 1, such as 1e-3."
            )
        check_stop(self.stop)
        if not self.horizon > 0:
            raise InputError(f"horizon = {self.horizon} is not allowed: a flow time is a positive number.")
        if self.stop == 0 and math.isinf(self.horizon):
            raise InputError(
                "stop = 0 with an endless horizon would never end: give a positive stop or a finite horizon."
            )

    def until(self, moment: float) -> Flow:
        """The same, with this horizon."""
        return replace(self, horizon=moment)

    def start(
        self,
        runs: ActiveRuns,
        workers: Workers,
        *,
        factor_rates: Sequence[float] = (),
        per_run: Mapping[str, Sequence[Any]] | None = None,  # noqa: ARG002 (no field differs between runs)
    ) -> FlowTraining:
        """Begin to train; see `dmfkit.training.loop.train`."""
        return FlowTraining(runs, workers, self, factor_rates)


def gradient_flow(
    problem: Problem,
    start: Factorization,
    settings: Flow,
    *,
    record: tuple[Recorder, ...] = (),
    record_at: Sequence[float] = (),
    factor_rates: Sequence[float] = (),
    on_end: Callable[[int], None] | None = None,
) -> Result:
    """Follow ``dW_j/dt = -d l(W_N .. W_1) / dW_j`` (Eq 4 of Arora et al. 2019) for a batch of runs.

    Parameters
    ----------
    problem : Problem
    start : Factorization
        Initial factors, left unchanged.
    settings : Flow
    record : tuple of Recorder
    record_at : sequence of float
        Flow times, ascending; between steps the trajectory is interpolated by cubic Hermite polynomials.
    factor_rates : sequence of float
        ``c_j``: ``dW_j/dt`` is multiplied by it; empty means all one. The error allowed in a step is then measured by
        the factors of the greatest rate, because slow ones may be much larger.
    on_end : callable
        Called with the number of runs that left the batch, for progress displays.

    Returns
    -------
    Result
        ``stable_lr`` is ``2 / rho`` for the largest spectral radius ``rho`` estimated along the run (without margin).

    Raises
    ------
    InputError
        If the shapes of problem and factorization differ, or rates do not match factors.
    """
    moments = Record(record, record_at, on_end)
    return train(problem, start, settings, factor_rates=factor_rates, record=moments)


def largest_stable_lr(
    problem: Problem,
    start: Factorization,
    rtol: float = 1e-2,
    max_evaluations: int = 1000,
    factor_rates: Sequence[float] = (),
) -> Tensor:
    """Largest learning rate with which fixed-step descent can follow the gradient flow from `start`, ``(runs,)``.

    Descent on a quadratic is stable for ``lr < 2 / (largest Hessian eigenvalue)``; that eigenvalue is estimated by
    power iteration along the flow until the mean squared residual has fallen to 1e-6, or for `max_evaluations`
    evaluations of the gradient, and its maximum taken.
    """
    settings = Flow(rtol=rtol, max_evaluations=max_evaluations)
    return gradient_flow(problem, start, settings, factor_rates=factor_rates).stable_lr
