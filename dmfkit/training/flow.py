"""Gradient flow by an adaptive stabilised Runge-Kutta-Chebyshev method.

Gradient flow on a factorization is a gradient system: its Jacobian is minus the Hessian, so its eigenvalues are real,
and near a minimum they are non-positive and spread over many decades. `chebyshev` says why that suits the method.
Every run of a batch has its own step, number of stages and spectral radius.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dmfkit.errors import InputError
from dmfkit.factorizations.factorization import Factorization, split_factors
from dmfkit.gradients.choice import evaluator_for
from dmfkit.gradients.compiled import CompiledEvaluator
from dmfkit.gradients.threads import cores
from dmfkit.linalg.backend import Spread, quiet_overflow, serially
from dmfkit.problems.losses import Normalisation, Problem, check_stop
from dmfkit.training.chebyshev import STAGE_FACTOR, chebyshev_step, stage_weights, stages_for
from dmfkit.training.recorders import Log, Recorder
from dmfkit.training.result import Result, Status, allocate, joined

MAX_STAGES = 400
# Accepted steps after which the spectral radius is estimated anew (a rejected step asks for it at once).
RADIUS_EVERY = 10
# Power iteration approaches the radius from below; the margin covers that and growth until the next estimate.
RADIUS_MARGIN = 1.2
RADIUS_ACCURACY = 0.02
RADIUS_ITERATIONS = 50


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
    """Follow the gradient flow, ``dW_j/dt = -d l / dW_j`` (Eq 4 of Arora et al. 2019), for a batch of runs.

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
    if start.shape != problem.shape:
        raise InputError(f"the factorization gives {start.shape} matrices, but the problem asks for {problem.shape}.")
    check_factor_rates(factor_rates, start.depth)
    lock = threading.Lock()

    def count(runs: int) -> None:
        if on_end is not None:
            with lock:  # parts end side by side
                on_end(runs)

    with cores(problem, start.widths) as division:

        def integrate(state: Tensor) -> Result:
            part = Factorization(state, start.widths)
            integration = Integration(problem, part, settings, record, record_at, factor_rates, count, division.spread)
            while integration.running and not division.stop.is_set():
                integration.advance()
            return integration.result()

        return joined(division.map(integrate, start.state.tensor_split(division.parts(start.n_runs))))


def check_factor_rates(factor_rates: Sequence[float], depth: int) -> None:
    """Raise `InputError` unless there is none, or one per factor, not negative and not all zero."""
    if factor_rates and len(factor_rates) != depth:
        raise InputError(
            f"{len(factor_rates)} factor_rates were given for depth {depth}: give one per factor, or none."
        )
    if factor_rates and not (all(math.isfinite(rate) and rate >= 0 for rate in factor_rates) and any(factor_rates)):
        raise InputError(
            f"factor_rates = {tuple(factor_rates)} are not allowed: they must be finite, at least 0, and not all 0."
        )


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


def _per_parameter(factor_rates: Sequence[float], start: Factorization) -> Tensor | None:
    """Rate of every entry of a state, ``(n_parameters,)``; None where all move alike."""
    if not factor_rates or set(factor_rates) == {1.0}:
        return None
    rates = torch.ones_like(start.state[:1])
    for block, rate in zip(split_factors(rates, start.widths), factor_rates, strict=True):
        block.fill_(rate)
    return rates[0]


class Integration:
    """State of a batch on its way; rows are the runs that are still in it."""

    def __init__(
        self,
        problem: Problem,
        start: Factorization,
        settings: Flow,
        record: tuple[Recorder, ...],
        record_at: Sequence[float],
        factor_rates: Sequence[float],
        on_end: Callable[[int], None] | None,
        spread: Spread[Any] = serially,
    ) -> None:
        n_runs, state = start.n_runs, start.state
        self.problem, self.widths, self.settings, self.on_end = problem, start.widths, settings, on_end
        self.evaluator = evaluator_for(problem, start.widths, n_runs, spread)
        self.threshold = settings.stop / problem.loss_scale(settings.stop_normalisation)
        self.log, self.record_at = Log(record, n_runs, len(record_at)), np.asarray(record_at, dtype=float)
        self.out, self.start = allocate(n_runs, state.device, state.dtype), start
        self.final: Tensor | None = None
        self.factor_rates, self.rates = tuple(factor_rates), _per_parameter(factor_rates, start)
        # Vectors of the batch: state, right-hand side there, and the direction of the last spectral radius estimate.
        self.y = state.clone()
        self.f, self.squares = self._field(self.y)
        self.direction = self.f.clone()
        # Memory that every step uses again: the next `y` and `f`, which also serve its stages, and one state more.
        self.spare = {"y": torch.empty_like(state), "f": torch.empty_like(state)}
        self.room = torch.empty_like(state)
        # Scalars of the runs live on the host: they steer the integration.
        self.run = np.arange(n_runs)
        self.t, self.h, self.radius, self.sharpest = (np.zeros(n_runs) for _ in range(4))
        self.last_error, self.last_h = np.zeros(n_runs), np.zeros(n_runs)
        self.steps, self.evaluations = np.zeros(n_runs, dtype=np.int64), np.ones(n_runs, dtype=np.int64)
        self.radius_age = np.full(n_runs, RADIUS_EVERY)
        self.next_moment = np.zeros(n_runs, dtype=np.int64)
        self._end(self._host(self.squares) < self.threshold, Status.CONVERGED)

    @property
    def running(self) -> bool:
        return len(self.run) > 0

    def result(self) -> Result:
        final = self.start.state if self.final is None else self.final
        return Result(Factorization(final, self.widths), records=self.log.data, **self.out)

    def advance(self) -> None:
        """Try one step in every run."""
        self._estimate_radius()
        with np.errstate(divide="ignore"):
            first = self.steps == 0
            self.h[first & (self.h == 0)] = (0.25 / self.radius)[first & (self.h == 0)]
        self.h = np.minimum(self.h, ((MAX_STAGES - 1) ** 2 - 1) / (STAGE_FACTOR * self.radius))
        h = np.minimum(self.h, self.settings.horizon - self.t)
        stages = stages_for(h * self.radius)
        order = np.argsort(-stages, kind="stable")
        if not np.array_equal(order, np.arange(len(order))):
            self._keep(order)
            h, stages = h[order], stages[order]
        y_new, f_new, squares_new = self._step(h, stages)
        self.evaluations += stages
        error = self._error(h, y_new, f_new)
        finite = np.isfinite(error)
        error = np.where(finite, error, 1e3)
        accepted = error <= 1.0
        end = self._stop_inside(h, accepted, y_new, f_new, squares_new)
        self._record(h, accepted, y_new, f_new, end)
        self._update(h, error, accepted, y_new, f_new, squares_new, end)

    def _step(self, h: np.ndarray, stages: np.ndarray) -> tuple[Tensor, Tensor, Tensor]:
        """Where a step leads, the right-hand side and the sum of squared residuals there."""
        y_new, f_new = self.spare["y"], self.spare["f"]
        if isinstance(self.evaluator, CompiledEvaluator):
            weights, rates = stage_weights(h, stages), self.factor_rates
            squares = self.evaluator.chebyshev(self.y, self.f, weights, stages, y_new, f_new, factor_rates=rates)
            return y_new, f_new, squares
        chebyshev_step(self._stage_field, self.y, self.f, h, stages, self.room, y_new)
        return y_new, *self._field(y_new, f_new)

    def _stage_field(self, y: Tensor) -> Tensor:
        return self._field(y, self.spare["f"][: len(y)])[0]

    @quiet_overflow()
    def _field(self, y: Tensor, out: Tensor | None = None) -> tuple[Tensor, Tensor]:
        f = torch.empty_like(y) if out is None else out
        squares = self.evaluator.squares_and_gradient(y, f)
        f.neg_()
        return (f if self.rates is None else f.mul_(self.rates)), squares

    def _device(self, values: np.ndarray) -> Tensor:
        return torch.from_numpy(values).to(self.y.device)

    @staticmethod
    def _host(values: Tensor) -> np.ndarray:
        return values.detach().to("cpu", torch.float64).numpy()

    def _error(self, h: np.ndarray, y_new: Tensor, f_new: Tensor) -> np.ndarray:
        """Local error relative to what is allowed, Eq (3.1) of Sommeijer, Shampine & Verwer (1998)."""
        step = self._device(h).unsqueeze(1)
        estimate = torch.add(self.f, f_new, out=self.room[: len(y_new)]).mul_(0.4 * step)
        estimate.add_(self.y, alpha=0.8).sub_(y_new, alpha=0.8)
        size = torch.maximum(self._size(self.y), self._size(y_new))
        allowed = self.settings.atol + self.settings.rtol * size
        return self._host(torch.linalg.vector_norm(estimate, dim=1) / allowed)

    def _size(self, y: Tensor) -> Tensor:
        """Norm of the factors that move fastest, ``(runs,)``."""
        if self.rates is not None:
            y = y * (self.rates == self.rates.max())
        return torch.linalg.vector_norm(y, dim=1)

    def _interpolate(self, rows: np.ndarray, h: np.ndarray, share: np.ndarray, y_new: Tensor, f_new: Tensor) -> Tensor:
        """Cubic Hermite interpolation at `share` of the step, for the runs in `rows`, in memory that is used again."""
        everyone, index, s = len(rows) == len(h), self._device(rows), self._device(share).unsqueeze(1)
        step = self._device(h[rows]).unsqueeze(1)
        y0, y1, f0, f1 = (x if everyone else x[index] for x in (self.y, y_new, self.f, f_new))
        out = torch.mul(y0, (1 - s).square() * (1 + 2 * s), out=self.room[: len(rows)])
        out.addcmul_(y1, s.square() * (3 - 2 * s)).addcmul_(f0, s * (1 - s).square() * step)
        return out.addcmul_(f1, s.square() * (s - 1) * step)

    def _stop_inside(
        self, h: np.ndarray, accepted: np.ndarray, y_new: Tensor, f_new: Tensor, squares_new: Tensor
    ) -> np.ndarray:
        """Share of the step at which each run meets the stopping threshold; ``inf`` where it does not."""
        end = np.full(len(h), np.inf)
        rows = np.flatnonzero(accepted & (self._host(squares_new) < self.threshold))
        if len(rows):
            low, high = np.zeros(len(rows)), np.ones(len(rows))
            for _ in range(12):  # bisection: the loss falls along the flow
                middle = 0.5 * (low + high)
                squares = self._host(self.evaluator.squares(self._interpolate(rows, h, middle, y_new, f_new)))
                below = squares < self.threshold
                high, low = np.where(below, middle, high), np.where(below, low, middle)
            end[rows] = high
        return end

    def _record(self, h: np.ndarray, accepted: np.ndarray, y_new: Tensor, f_new: Tensor, end: np.ndarray) -> None:
        """Record every run at the requested times that lie in its accepted step and not after its end."""
        reach = np.where(accepted, self.t + h * np.minimum(end, 1.0), -np.inf)
        # A horizon that is also a moment must not be missed for a last digit.
        reach += 1e-12 * np.abs(reach, where=np.isfinite(reach), out=np.zeros_like(reach))
        while True:
            waiting = self.next_moment < len(self.record_at)
            due = np.zeros_like(waiting)
            due[waiting] = self.record_at[self.next_moment[waiting]] <= reach[waiting]
            rows = np.flatnonzero(due)
            if not len(rows):
                return
            for moment in np.unique(self.next_moment[rows]):
                these = rows[self.next_moment[rows] == moment]
                share = np.clip((self.record_at[moment] - self.t[these]) / h[these], 0.0, 1.0)
                state = self._interpolate(these, h, share, y_new, f_new)
                self.log.write(
                    int(moment),
                    self._device(self.run[these]),
                    self.problem,
                    Factorization(state, self.widths),
                )
            self.next_moment[rows] += 1

    def _update(
        self,
        h: np.ndarray,
        error: np.ndarray,
        accepted: np.ndarray,
        y_new: Tensor,
        f_new: Tensor,
        squares_new: Tensor,
        end: np.ndarray,
    ) -> None:
        """Move accepted runs, choose the next steps, and take finished runs out."""
        converged = np.isfinite(end)
        if converged.any():
            rows = np.flatnonzero(converged)
            y_new[self._device(rows)] = self._interpolate(rows, h, end[rows], y_new, f_new)
            squares_new[self._device(rows)] = self.evaluator.squares(y_new[self._device(rows)].contiguous())
        if not accepted.all():
            back = self._device(~accepted)
            y_new[back], f_new[back], squares_new[back] = self.y[back], self.f[back], self.squares[back]
        self.spare = {"y": self.y, "f": self.f}
        self.y, self.f, self.squares = y_new, f_new, squares_new
        self.t = self.t + np.where(accepted, h * np.minimum(end, 1.0), 0.0)
        self.steps += accepted
        # Controller with memory of the last error (Sommeijer et al. 1998, Section 3.2), growth limited to tenfold.
        tiny = np.maximum(error, 1e-10)
        with np.errstate(divide="ignore", invalid="ignore"):
            remembered = 0.8 * (h / self.last_h) * np.cbrt(self.last_error) / np.cbrt(tiny) ** 2
        plain = 0.8 / np.cbrt(tiny)
        grow = np.where(self.last_error > 0, np.minimum(remembered, plain * 2.0), plain)
        factor = np.where(accepted, np.clip(grow, 0.1, 10.0), np.clip(plain, 0.1, 0.8))
        self.last_error = np.where(accepted, tiny, self.last_error)
        self.last_h = np.where(accepted, h, self.last_h)
        self.h = factor * h
        self.radius_age = np.where(accepted, self.radius_age + 1, RADIUS_EVERY)
        settings = self.settings
        lost = ~np.isfinite(self._host(self.squares)) | (self.h < 1e-14 * np.maximum(self.t, 1e-300))
        horizon = self.t >= settings.horizon * (1 - 1e-14)
        limit = self.evaluations >= settings.max_evaluations
        ended = np.select(
            [converged, lost, horizon, limit],
            [int(Status.CONVERGED), int(Status.DIVERGED), int(Status.HORIZON), int(Status.LIMIT)],
            default=-1,
        )
        self._end(ended >= 0, ended)

    def _end(self, mask: np.ndarray, status: np.ndarray | Status) -> None:
        """Take the runs in `mask` out of the batch with their results."""
        if not mask.any():
            return
        gone, rows = self._device(self.run[mask]), self._device(np.flatnonzero(mask))
        if len(gone) == self.start.n_runs:  # as a single large run does: no copy is made
            self.final = self.y
        else:
            self.final = torch.empty_like(self.start.state) if self.final is None else self.final
            self.final[gone] = self.y[rows]
        values = {
            "status": np.broadcast_to(status, mask.shape),
            "n_steps": self.steps,
            "n_evaluations": self.evaluations,
            "time": self.t,
            "stable_lr": np.divide(2.0, self.sharpest, where=self.sharpest > 0, out=np.full(len(mask), np.nan)),
        }
        for name, value in values.items():
            self.out[name][gone] = self._device(np.ascontiguousarray(value[mask])).to(self.out[name])
        self.out["mean_square"][gone] = self.squares[rows] * self.problem.loss_scale("mean")
        if self.on_end is not None:
            self.on_end(int(mask.sum()))
        self._keep(np.flatnonzero(~mask))

    def _keep(self, rows: np.ndarray) -> None:
        """Reorder or reduce the batch to `rows`."""
        index = self._device(rows)
        for name, spare in self.spare.items():
            now = getattr(self, name)
            setattr(self, name, torch.index_select(now, 0, index, out=spare[: len(rows)]))
            self.spare[name] = now[: len(rows)]
        for name in ("squares", "direction"):
            setattr(self, name, getattr(self, name)[index])
        for name in (
            *("run", "t", "h", "radius", "sharpest", "last_error", "last_h"),
            *("steps", "evaluations", "radius_age", "next_moment"),
        ):
            setattr(self, name, getattr(self, name)[rows])

    def _estimate_radius(self) -> None:
        """Spectral radius of the Jacobian by power iteration on finite differences, where it is due.

        Every run starts from its last direction; a run whose estimate has settled keeps it while others iterate.
        """
        rows = np.flatnonzero(self.radius_age >= RADIUS_EVERY)
        if not len(rows):
            return
        everyone, index = len(rows) == len(self.run), self._device(rows)
        # Copies only where some runs stand by.
        y, f, direction = (x if everyone else x[index] for x in (self.y, self.f, self.direction))
        # Square root of the rounding unit, relative to the state: the best a first difference can do.
        reach = math.sqrt(torch.finfo(y.dtype).eps) * torch.linalg.vector_norm(y, dim=1, keepdim=True)
        norm = torch.linalg.vector_norm(direction, dim=1, keepdim=True)
        direction.div_(norm).masked_fill_(norm == 0, y.shape[1] ** -0.5)
        estimate, open_rows = np.zeros(len(rows)), np.ones(len(rows), dtype=bool)
        for _ in range(RADIUS_ITERATIONS):
            beside = torch.addcmul(y, direction, reach, out=self.room[: len(rows)])
            image = self._stage_field(beside)
            image.sub_(f).div_(reach)
            length = torch.linalg.vector_norm(image, dim=1, keepdim=True)
            found = self._host(length[:, 0])
            self.evaluations[rows[open_rows]] += 1
            settled = np.abs(found - estimate) <= RADIUS_ACCURACY * found
            estimate = np.where(open_rows, found, estimate)
            moved = self._device(open_rows).unsqueeze(1) & (length > 0)
            torch.where(moved, image.div_(length), direction, out=direction)
            open_rows &= ~settled
            if not open_rows.any():
                break
        if not everyone:
            self.direction[index] = direction
        self.radius[rows] = np.maximum(RADIUS_MARGIN * estimate, 1e-300)
        self.sharpest[rows] = np.maximum(self.sharpest[rows], estimate)
        self.radius_age[rows] = 0
