"""The gradient flow on its way: adaptive steps, stages and spectral radii of every run.

An accepted step is known by its two ends, with the right-hand side there: whatever lies inside, moments to record and
the place where the loss meets the stopping threshold, is interpolated between them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dmfkit.gradients.evaluator import ChebyshevStages, FactorRates, FlowPoints
from dmfkit.gradients.threads import Workers
from dmfkit.training.chebyshev import STAGE_FACTOR, stage_weights, stages_for
from dmfkit.training.loop import ActiveRuns
from dmfkit.training.result import Result, Status

if TYPE_CHECKING:
    from dmfkit.linalg.compiled import Numbers, Places
    from dmfkit.training.flow import Flow

MAX_STAGES = 400
# Accepted steps after which the spectral radius is estimated anew (a rejected step asks for it at once).
RADIUS_EVERY = 10
# Power iteration approaches the radius from below; the margin covers that and growth until the next estimate.
RADIUS_MARGIN = 1.2
RADIUS_ACCURACY = 0.02
RADIUS_ITERATIONS = 50


@dataclass
class Steering:
    """What steers the integration, a number for each run, on the host.

    Attributes
    ----------
    t, h : ndarray of shape (k,)
        Flow time, and the size of the next step.
    radius, sharpest : ndarray of shape (k,)
        Spectral radius that is reckoned with, margin included; the largest estimate so far, without it.
    radius_age : ndarray of int, shape (k,)
        Accepted steps since the last estimate.
    last_error, last_h : ndarray of shape (k,)
        Of the last accepted step; 0 before the first.
    steps, evaluations, next_moment : ndarray of int, shape (k,)
        Accepted steps, evaluations of the gradient, and the number of the next moment to record.
    """

    t: Numbers
    h: Numbers
    radius: Numbers
    sharpest: Numbers
    radius_age: Places
    last_error: Numbers
    last_h: Numbers
    steps: Places
    evaluations: Places
    next_moment: Places

    @classmethod
    def first(cls, n_runs: int) -> Steering:
        """Before the first step, after one evaluation; the radius is due."""
        return cls(
            t=np.zeros(n_runs),
            h=np.zeros(n_runs),
            radius=np.zeros(n_runs),
            sharpest=np.zeros(n_runs),
            radius_age=np.full(n_runs, RADIUS_EVERY),
            last_error=np.zeros(n_runs),
            last_h=np.zeros(n_runs),
            steps=np.zeros(n_runs, dtype=np.int64),
            evaluations=np.ones(n_runs, dtype=np.int64),
            next_moment=np.zeros(n_runs, dtype=np.int64),
        )

    def take(self, rows: Places) -> None:
        """Reorder or reduce the runs to `rows`."""
        for item in fields(self):
            setattr(self, item.name, getattr(self, item.name)[rows])


@dataclass(frozen=True)
class Attempt:
    """A step that was tried in every run.

    Attributes
    ----------
    h : ndarray of shape (k,)
    there : FlowPoints
        Where it leads.
    sums : Tensor of shape (k,)
        Sums of squared residuals there.
    error : ndarray of shape (k,)
        Local error relative to what is allowed; accepted are steps up to 1.
    """

    h: Numbers
    there: FlowPoints
    sums: Tensor
    error: Numbers

    @property
    def accepted(self) -> NDArray[np.bool_]:
        return self.error <= 1.0


class FlowTraining:
    """Runs of the gradient flow that go on.

    Parameters
    ----------
    runs : ActiveRuns
    workers : Workers
    settings : Flow
    factor_rates : sequence of float
        Multipliers of the speed of ``W_1 .. W_N``; empty means all one.

    Attributes
    ----------
    y, f : Tensor of shape (k, n_parameters)
        States, and right-hand sides there.
    sums : Tensor of shape (k,)
        Sums of squared residuals there.
    steering : Steering
    """

    def __init__(self, runs: ActiveRuns, workers: Workers, settings: Flow, factor_rates: Sequence[float]) -> None:
        n_runs, state, widths = runs.start.n_runs, runs.start.state, runs.start.widths
        self.runs, self.settings = runs, settings
        self.evaluator = workers.execution.of(n_runs).evaluator(workers.parallel_map)
        self.threshold = settings.stop / runs.problem.loss_scale(settings.stop_normalisation)
        self.record_at = np.asarray(runs.moments, dtype=float)
        self.rates = FactorRates.of(factor_rates, state, widths)
        # Vectors of the batch: state, right-hand side there, and the direction of the last spectral radius estimate.
        self.y, self.f = state.clone(), torch.empty_like(state)
        self.sums = self.evaluator.field(self.y, self.f, self.rates)
        self.direction = self.f.clone()
        # Memory that every step uses again: the next `y` and `f`, which also serve its stages, and one state more.
        self.spare = {"y": torch.empty_like(state), "f": torch.empty_like(state)}
        self.workspace = torch.empty_like(state)
        self.steering = Steering.first(n_runs)
        self._end(self._host(self.sums) < self.threshold, Status.CONVERGED)

    @property
    def running(self) -> bool:
        return len(self.runs) > 0

    @property
    def state(self) -> Tensor:
        return self.y

    def squares(self) -> Tensor:
        """Sums of squared residuals where the runs are, ``(k,)``."""
        return self.sums

    def columns(self) -> dict[str, Tensor]:
        now = self.steering
        unknown = np.full(len(now.t), np.nan)
        values = {
            "n_steps": now.steps,
            "n_evaluations": now.evaluations,
            "time": now.t,
            "measured_stable_lr": np.divide(2.0, now.sharpest, where=now.sharpest > 0, out=unknown),
        }
        return {name: self._device(value) for name, value in values.items()}

    def result(self) -> Result:
        return self.runs.result()

    def advance(self, at_most: int | None = None) -> None:  # noqa: ARG002 (one is the least)
        """Try one step in every run."""
        self._estimate_radius()
        attempt = self._attempt()
        end = self._stop_inside(attempt)
        self._record(attempt, end)
        self._move(attempt, end)
        self._choose_next(attempt)
        self._end_where_due(np.isfinite(end))

    def _attempt(self) -> Attempt:
        """Try a step by the Chebyshev method, as long as the last error, stability and the horizon allow."""
        now = self.steering
        with np.errstate(divide="ignore"):
            first = (now.steps == 0) & (now.h == 0)
            now.h[first] = (0.25 / now.radius)[first]
        now.h = np.minimum(now.h, ((MAX_STAGES - 1) ** 2 - 1) / (STAGE_FACTOR * now.radius))
        h = np.minimum(now.h, self.settings.horizon - now.t)
        stages = stages_for(h * now.radius)
        order = np.argsort(-stages, kind="stable")
        if not np.array_equal(order, np.arange(len(order))):
            self._keep(order)
            self.runs.reorder(self._device(order))
            h, stages = h[order], stages[order]
        here, there = FlowPoints(self.y, self.f), FlowPoints(self.spare["y"], self.spare["f"])
        weights = ChebyshevStages(stage_weights(h, stages), stages)
        sums = self.evaluator.chebyshev_step(here, there, weights, self.rates, self.workspace)
        now.evaluations += stages
        error = self._error(h, there)
        return Attempt(h, there, sums, np.where(np.isfinite(error), error, 1e3))

    def _device(self, values: NDArray[Any]) -> Tensor:
        return torch.from_numpy(values).to(self.y.device)

    @staticmethod
    def _host(values: Tensor) -> Numbers:
        return values.detach().to("cpu", torch.float64).numpy()

    def _error(self, h: Numbers, there: FlowPoints) -> Numbers:
        """Local error relative to what is allowed, Eq (3.1) of Sommeijer, Shampine & Verwer (1998)."""
        step = self._device(h).unsqueeze(1)
        estimate = torch.add(self.f, there.f, out=self.workspace[: len(h)]).mul_(0.4 * step)
        estimate.add_(self.y, alpha=0.8).sub_(there.y, alpha=0.8)
        size = torch.maximum(self._size(self.y), self._size(there.y))
        allowed = self.settings.atol + self.settings.rtol * size
        return self._host(torch.linalg.vector_norm(estimate, dim=1) / allowed)

    def _size(self, y: Tensor) -> Tensor:
        """Norm of the factors that move fastest, ``(runs,)``."""
        if (rates := self.rates.by_parameter) is not None:
            y = y * (rates == rates.max())
        result: Tensor = torch.linalg.vector_norm(y, dim=1)
        return result

    def _interpolate(self, attempt: Attempt, rows: Places, share: Numbers) -> Tensor:
        """Cubic Hermite interpolation at `share` of the step, for the runs in `rows`, in memory that is used again."""
        everyone, index, s = len(rows) == len(attempt.h), self._device(rows), self._device(share).unsqueeze(1)
        step = self._device(attempt.h[rows]).unsqueeze(1)
        y0, y1, f0, f1 = (x if everyone else x[index] for x in (self.y, attempt.there.y, self.f, attempt.there.f))
        out = torch.mul(y0, (1 - s).square() * (1 + 2 * s), out=self.workspace[: len(rows)])
        out.addcmul_(y1, s.square() * (3 - 2 * s)).addcmul_(f0, s * (1 - s).square() * step)
        return out.addcmul_(f1, s.square() * (s - 1) * step)

    def _stop_inside(self, attempt: Attempt) -> Numbers:
        """Share of the step at which each run meets the stopping threshold; ``inf`` where it does not."""
        end = np.full(len(attempt.h), np.inf)
        rows = np.flatnonzero(attempt.accepted & (self._host(attempt.sums) < self.threshold))
        if len(rows):
            low, high = np.zeros(len(rows)), np.ones(len(rows))
            for _ in range(12):  # bisection: the loss falls along the flow
                middle = 0.5 * (low + high)
                below = self._host(self.evaluator.squares(self._interpolate(attempt, rows, middle))) < self.threshold
                high, low = np.where(below, middle, high), np.where(below, low, middle)
            end[rows] = high
        return end

    def _record(self, attempt: Attempt, end: Numbers) -> None:
        """Record every run at the requested times that lie in its accepted step and not after its end."""
        now, h = self.steering, attempt.h
        reach = np.where(attempt.accepted, now.t + h * np.minimum(end, 1.0), -np.inf)
        # A horizon that is also a moment must not be missed for a last digit.
        reach += 1e-12 * np.abs(reach, where=np.isfinite(reach), out=np.zeros_like(reach))
        while True:
            waiting = now.next_moment < len(self.record_at)
            due = np.zeros_like(waiting)
            due[waiting] = self.record_at[now.next_moment[waiting]] <= reach[waiting]
            rows = np.flatnonzero(due)
            if not len(rows):
                return
            for moment in np.unique(now.next_moment[rows]):
                these = rows[now.next_moment[rows] == moment]
                share = np.clip((self.record_at[moment] - now.t[these]) / h[these], 0.0, 1.0)
                self.runs.write(int(moment), self._device(these), self._interpolate(attempt, these, share))
            now.next_moment[rows] += 1

    def _move(self, attempt: Attempt, end: Numbers) -> None:
        """Move the runs whose step was accepted, to where it leads or where they meet the threshold."""
        (y_new, f_new), sums, accepted, now = attempt.there, attempt.sums, attempt.accepted, self.steering
        rows = np.flatnonzero(np.isfinite(end))
        if len(rows):
            y_new[self._device(rows)] = self._interpolate(attempt, rows, end[rows])
            sums[self._device(rows)] = self.evaluator.squares(y_new[self._device(rows)].contiguous())
        if not accepted.all():
            back = self._device(~accepted)
            y_new[back], f_new[back], sums[back] = self.y[back], self.f[back], self.sums[back]
        self.spare = {"y": self.y, "f": self.f}
        self.y, self.f, self.sums = y_new, f_new, sums
        now.t = now.t + np.where(accepted, attempt.h * np.minimum(end, 1.0), 0.0)
        now.steps += accepted

    def _choose_next(self, attempt: Attempt) -> None:
        """Choose the next steps: the controller of Sommeijer et al. (1998), Section 3.2, growth limited to tenfold."""
        h, accepted, now = attempt.h, attempt.accepted, self.steering
        error = np.maximum(attempt.error, 1e-10)
        with np.errstate(divide="ignore", invalid="ignore"):
            remembered = 0.8 * (h / now.last_h) * np.cbrt(now.last_error) / np.cbrt(error) ** 2
        plain = 0.8 / np.cbrt(error)
        grow = np.where(now.last_error > 0, np.minimum(remembered, plain * 2.0), plain)
        factor = np.where(accepted, np.clip(grow, 0.1, 10.0), np.clip(plain, 0.1, 0.8))
        now.last_error = np.where(accepted, error, now.last_error)
        now.last_h = np.where(accepted, h, now.last_h)
        now.h = factor * h
        now.radius_age = np.where(accepted, now.radius_age + 1, RADIUS_EVERY)

    def _end_where_due(self, converged: NDArray[np.bool_]) -> None:
        """Take out the runs that have met the threshold, lost their way, or reached the horizon or the limit."""
        now, settings = self.steering, self.settings
        lost = ~np.isfinite(self._host(self.sums)) | (now.h < 1e-14 * np.maximum(now.t, 1e-300))
        horizon = now.t >= settings.horizon * (1 - 1e-14)
        limit = now.evaluations >= settings.max_evaluations
        ended = np.select(
            [converged, lost, horizon, limit],
            [int(Status.CONVERGED), int(Status.DIVERGED), int(Status.HORIZON), int(Status.LIMIT)],
            default=-1,
        )
        self._end(ended >= 0, ended)

    def _end(self, mask: NDArray[np.bool_], status: Places | Status) -> None:
        """Take the runs in `mask` out of the batch with their results."""
        if mask.any():
            statuses = self._device(np.broadcast_to(status, mask.shape).copy())
            self.runs.end(self._device(mask), statuses, self.y, self.sums, self.columns())
            self._keep(np.flatnonzero(~mask))

    def _keep(self, rows: Places) -> None:
        """Reorder or reduce the batch to `rows`."""
        index = self._device(rows)
        for name, spare in self.spare.items():
            now = getattr(self, name)
            setattr(self, name, torch.index_select(now, 0, index, out=spare[: len(rows)]))
            self.spare[name] = now[: len(rows)]
        for name in ("sums", "direction"):
            setattr(self, name, getattr(self, name)[index])
        self.steering.take(rows)

    def _estimate_radius(self) -> None:
        """Spectral radius of the Jacobian by power iteration on finite differences, where it is due.

        Every run starts from its last direction; a run whose estimate has settled keeps it while others iterate.
        """
        now = self.steering
        rows = np.flatnonzero(now.radius_age >= RADIUS_EVERY)
        if not len(rows):
            return
        everyone, index = len(rows) == len(now.t), self._device(rows)
        # Copies only where some runs stand by.
        y, f, direction = (x if everyone else x[index] for x in (self.y, self.f, self.direction))
        # Square root of the rounding unit, relative to the state: the best a first difference can do.
        reach = math.sqrt(torch.finfo(y.dtype).eps) * torch.linalg.vector_norm(y, dim=1, keepdim=True)
        norm = torch.linalg.vector_norm(direction, dim=1, keepdim=True)
        direction.div_(norm).masked_fill_(norm == 0, y.shape[1] ** -0.5)
        estimate, open_rows = np.zeros(len(rows)), np.ones(len(rows), dtype=bool)
        for _ in range(RADIUS_ITERATIONS):
            beside = torch.addcmul(y, direction, reach, out=self.workspace[: len(rows)])
            image = self.spare["f"][: len(rows)]
            self.evaluator.field(beside, image, self.rates)
            image.sub_(f).div_(reach)
            length = torch.linalg.vector_norm(image, dim=1, keepdim=True)
            found = self._host(length[:, 0])
            now.evaluations[rows[open_rows]] += 1
            settled = np.abs(found - estimate) <= RADIUS_ACCURACY * found
            estimate = np.where(open_rows, found, estimate)
            moved = self._device(open_rows).unsqueeze(1) & (length > 0)
            torch.where(moved, image.div_(length), direction, out=direction)
            open_rows &= ~settled
            if not open_rows.any():
                break
        if not everyone:
            self.direction[index] = direction
        now.radius[rows] = np.maximum(RADIUS_MARGIN * estimate, 1e-300)
        now.sharpest[rows] = np.maximum(now.sharpest[rows], estimate)
        now.radius_age[rows] = 0
