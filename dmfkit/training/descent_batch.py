"""Gradient descent on its way: the runs that go on, in parts, side by side on a processor's threads."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from dmfkit.gradients.choice import Kernel
from dmfkit.gradients.evaluator import BaseEvaluator, DescentRule, DescentRuns
from dmfkit.gradients.threads import Workers
from dmfkit.linalg.backend import products_for, quiet_overflow
from dmfkit.training.loop import ActiveRuns
from dmfkit.training.result import Result, Status

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

# A run whose squared residuals are this many times the initial ones will not come back.
BLOW_UP = 1e6


@dataclass(frozen=True)
class _Part:
    """Some of the runs, as views into the tensors of the batch."""

    evaluator: BaseEvaluator
    runs: DescentRuns


class DescentTraining:
    """Runs of gradient descent that go on; all have been evaluated the same number of times.

    On a CPU the runs are trained in parts, and these side by side where threads are not needed within a run. What a run
    computes does not depend on its part.

    Parameters
    ----------
    runs : ActiveRuns
    workers : Workers
    rule : DescentRule
    rates : Tensor of shape (runs,)
        Learning rates.
    threshold : float
        Sum of squared residuals below which a run ends.
    measure_stable_lr : callable, optional
        As in `Result`, should a run diverge.

    Attributes
    ----------
    state : Tensor of shape (k, n_parameters)
    steps : Tensor of shape (k,), int64
        Steps that each run has taken.
    step : int
        Number of the next one.
    """

    def __init__(
        self,
        runs: ActiveRuns,
        workers: Workers,
        rule: DescentRule,
        rates: Tensor,
        threshold: float,
        measure_stable_lr: Callable[[Result], Tensor] | None = None,
    ) -> None:
        self.runs, self._workers, self._rule, self._measure_stable_lr = runs, workers, rule, measure_stable_lr
        self.state, self._rates = runs.start.state.clone(), rates
        # A compiled loop takes one run after the other, with a gradient of its own.
        one_by_one = workers.execution.kernel is Kernel.LOOPS
        self._gradient = self.state[:0] if one_by_one else torch.empty_like(self.state)
        self.step, self._next_moment = 0, 0
        self.steps = torch.zeros_like(runs.ids)
        self._active = torch.ones_like(runs.ids, dtype=torch.bool)
        self._floors, self._averages = torch.full_like(rates, threshold), torch.zeros_like(rates)
        self._ceilings = torch.full_like(rates, torch.inf)
        self._evaluators: dict[int, tuple[int, BaseEvaluator]] = {}
        self._lay_out()
        self._ceilings.copy_(BLOW_UP * self.squares())

    @property
    def running(self) -> bool:
        return len(self.runs) > 0

    def squares(self) -> Tensor:
        """Sums of squared residuals where the runs are, ``(k,)``; evaluated when asked for."""

        def evaluate(part: _Part) -> Tensor:
            return part.evaluator.squares(part.runs.state)

        return torch.cat(self._of_parts(evaluate, 1))

    def columns(self) -> dict[str, Tensor]:
        return {"n_steps": self.steps, "n_evaluations": self.steps + 1, "time": self.steps * self._rates}

    def advance(self, at_most: int | None = None) -> None:
        """Take a block of steps, shorter where a moment is to be recorded."""
        moments, last = self.runs.moments, self._rule.last
        while self._next_moment < len(moments) and int(moments[self._next_moment]) == self.step:
            self.runs.write(self._next_moment, slice(None), self.state)
            self._next_moment += 1
        # The pass at the limit tests the loss after the last step and takes no further one.
        block = self._execution.block if at_most is None else min(at_most, self._execution.block)
        until = min(self.step + block, last + 1, *(int(moment) for moment in moments[self._next_moment :][:1]))
        squares = self._descend(range(self.step, until))
        self.step = until
        ended = torch.ones_like(self._active) if until > last else ~self._active
        if bool(ended.any()):
            status = torch.where(
                ~(squares <= self._ceilings),
                int(Status.DIVERGED),
                torch.where(squares < self._floors, int(Status.CONVERGED), int(Status.LIMIT)),
            )
            self.runs.end(ended, status, self.state, squares, self.columns())
            self._keep(~ended)

    def result(self) -> Result:
        return self.runs.result(self._measure_stable_lr if len(self.runs.diverged()) else None)

    def _descend(self, steps: range) -> Tensor:
        """Evaluate all runs at these steps, and move those that go on.

        Returns
        -------
        Tensor of shape (k,)
            Sum of squared residuals that each run had when it ended, or at the last of the steps.
        """

        def descend(part: _Part) -> Tensor:
            return part.evaluator.descend(part.runs, self._rule, steps)

        history = torch.cat(self._of_parts(descend, len(steps)), dim=1)
        # A run takes one step for every loss that lets it go on; the limit lets none.
        going = (history >= self._floors).logical_and_(history <= self._ceilings).cummin(dim=0).values.sum(dim=0)
        going.clamp_(max=min(steps.stop, self._rule.last) - steps.start)
        self.steps += going
        return history.gather(0, going.clamp(max=len(steps) - 1).unsqueeze(0)).squeeze(0)

    def _of_parts(self, function: Callable[[_Part], Tensor], steps: int) -> list[Tensor]:
        """Call a function, which takes about so many steps, for every part; side by side where that is worth it."""
        threads = self._execution.parts_at_once

        def share(thread: int) -> list[Tensor]:
            with quiet_overflow():
                return [function(part) for part in self._parts[thread::threads]]

        if self._execution.worth_threads(steps):
            done: Sequence[list[Tensor]] = self._workers.map(share, range(threads))
        else:
            done = [share(thread) for thread in range(threads)]
        return [done[number % threads][number // threads] for number in range(len(self._parts))]

    def _keep(self, mask: Tensor) -> None:
        """Let only these runs go on."""
        for name in ("_rates", "steps", "_active", "_floors", "_ceilings", "_averages"):
            setattr(self, name, getattr(self, name)[mask])
        # In place: evaluators remember where they have multiplied, and would keep the memory of every earlier batch.
        left = len(self.runs)
        self.state[:left] = self.state[mask]
        self.state, self._gradient = self.state[:left], self._gradient[:left]
        self._lay_out()

    def _lay_out(self) -> None:
        """Divide the runs into parts, and the parts among threads."""
        n_runs, operand = len(self.runs), products_for(self.state.device).operand
        self._execution = self._workers.execution.of(n_runs)
        n_parts = self._execution.parts
        most = -(-n_runs // n_parts)
        self._parts = []
        for number, rows in enumerate(torch.arange(n_runs).tensor_split(n_parts)):
            if not len(rows):
                continue
            part = slice(int(rows[0]), int(rows[-1]) + 1)
            numbers = (self._active, self._rates, self._floors, self._ceilings, self._averages)
            views = DescentRuns(self.state[part], self._gradient[part], *(operand(each[part]) for each in numbers))
            self._parts.append(_Part(self._evaluator(number % self._execution.parts_at_once, most), views))

    def _evaluator(self, thread: int, n_runs: int) -> BaseEvaluator:
        """The evaluator of a thread, for at most `n_runs` runs at once."""
        known = self._evaluators.get(thread)
        if known is None or known[0] < n_runs:
            known = n_runs, self._workers.execution.of(n_runs).evaluator(self._workers.parallel_map)
            self._evaluators[thread] = known
        return known[1]
