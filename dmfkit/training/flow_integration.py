"""The gradient flow on its way: adaptive steps, stages and spectral radii of every run.

An accepted step is known by its two ends, with the right-hand side there: whatever lies inside, moments to record and
the place where the loss meets the stopping threshold, is interpolated between them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from dmfkit.gradients.evaluator import ChebyshevStages, FactorRates, FlowPoints
from dmfkit.gradients.threads import Workers
from dmfkit.training.chebyshev import STAGE_FACTOR, stage_weights, stages_for
from dmfkit.training.loop import ActiveRuns
from dmfkit.training.result import Result, Status

if TYPE_CHECKING:
    from dmfkit.training.flow import Flow

MAX_STAGES = 400
# Accepted steps after which the spectral radius is estimated anew (a rejected step asks for it at once).
RADIUS_EVERY = 10
# Power iteration approaches the radius from below; the margin covers that and growth until the next estimate.
RADIUS_MARGIN = 1.2
RADIUS_ACCURACY = 0.02
RADIUS_ITERATIONS = 50


class FlowTraining:
    """Runs of the gradient flow that go on.

    Parameters
    ----------
    runs : ActiveRuns
    workers : Workers
    settings : Flow
    factor_rates : sequence of float
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
        # Scalars of the runs live on the host: they steer the integration.
        self.t, self.h, self.radius, self.sharpest = (np.zeros(n_runs) for _ in range(4))
        self.last_error, self.last_h = np.zeros(n_runs), np.zeros(n_runs)
        self.steps, self.evaluations = np.zeros(n_runs, dtype=np.int64), np.ones(n_runs, dtype=np.int64)
        self.radius_age = np.full(n_runs, RADIUS_EVERY)
        self.next_moment = np.zeros(n_runs, dtype=np.int64)
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
        values = {
            "n_steps": self.steps,
            "n_evaluations": self.evaluations,
            "time": self.t,
            "measured_stable_lr": np.divide(
                2.0, self.sharpest, where=self.sharpest > 0, out=np.full(len(self.t), np.nan)
            ),
        }
        return {name: self._device(value) for name, value in values.items()}

    def result(self) -> Result:
        return self.runs.result()

    def advance(self, at_most: int | None = None) -> None:  # noqa: ARG002 (one is the least)
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
            self.runs.reorder(self._device(order))
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
        there = FlowPoints(self.spare["y"], self.spare["f"])
        weights = ChebyshevStages(stage_weights(h, stages), stages)
        here = FlowPoints(self.y, self.f)
        return *there, self.evaluator.chebyshev_step(here, there, weights, self.rates, self.workspace)

    def _device(self, values: np.ndarray) -> Tensor:
        return torch.from_numpy(values).to(self.y.device)

    @staticmethod
    def _host(values: Tensor) -> np.ndarray:
        return values.detach().to("cpu", torch.float64).numpy()

    def _error(self, h: np.ndarray, y_new: Tensor, f_new: Tensor) -> np.ndarray:
        """Local error relative to what is allowed, Eq (3.1) of Sommeijer, Shampine & Verwer (1998)."""
        step = self._device(h).unsqueeze(1)
        estimate = torch.add(self.f, f_new, out=self.workspace[: len(y_new)]).mul_(0.4 * step)
        estimate.add_(self.y, alpha=0.8).sub_(y_new, alpha=0.8)
        size = torch.maximum(self._size(self.y), self._size(y_new))
        allowed = self.settings.atol + self.settings.rtol * size
        return self._host(torch.linalg.vector_norm(estimate, dim=1) / allowed)

    def _size(self, y: Tensor) -> Tensor:
        """Norm of the factors that move fastest, ``(runs,)``."""
        if (rates := self.rates.by_parameter) is not None:
            y = y * (rates == rates.max())
        return torch.linalg.vector_norm(y, dim=1)

    def _interpolate(self, rows: np.ndarray, h: np.ndarray, share: np.ndarray, y_new: Tensor, f_new: Tensor) -> Tensor:
        """Cubic Hermite interpolation at `share` of the step, for the runs in `rows`, in memory that is used again."""
        everyone, index, s = len(rows) == len(h), self._device(rows), self._device(share).unsqueeze(1)
        step = self._device(h[rows]).unsqueeze(1)
        y0, y1, f0, f1 = (x if everyone else x[index] for x in (self.y, y_new, self.f, f_new))
        out = torch.mul(y0, (1 - s).square() * (1 + 2 * s), out=self.workspace[: len(rows)])
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
                self.runs.write(int(moment), self._device(these), state)
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
            y_new[back], f_new[back], squares_new[back] = self.y[back], self.f[back], self.sums[back]
        self.spare = {"y": self.y, "f": self.f}
        self.y, self.f, self.sums = y_new, f_new, squares_new
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
        lost = ~np.isfinite(self._host(self.sums)) | (self.h < 1e-14 * np.maximum(self.t, 1e-300))
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
        if mask.any():
            statuses = self._device(np.broadcast_to(status, mask.shape).copy())
            self.runs.end(self._device(mask), statuses, self.y, self.sums, self.columns())
            self._keep(np.flatnonzero(~mask))

    def _keep(self, rows: np.ndarray) -> None:
        """Reorder or reduce the batch to `rows`."""
        index = self._device(rows)
        for name, spare in self.spare.items():
            now = getattr(self, name)
            setattr(self, name, torch.index_select(now, 0, index, out=spare[: len(rows)]))
            self.spare[name] = now[: len(rows)]
        for name in ("sums", "direction"):
            setattr(self, name, getattr(self, name)[index])
        for name in (
            *("t", "h", "radius", "sharpest", "last_error", "last_h"),
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
        everyone, index = len(rows) == len(self.t), self._device(rows)
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
