"""What an optimiser returns: the final factors, how each run ended, what it cost, and what was recorded."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from functools import cached_property

import torch
from torch import Tensor

from dmfkit.factorizations.factorization import Factorization


class Status(IntEnum):
    """How a run ended."""

    CONVERGED = 0
    """The training loss fell below the stopping threshold."""
    LIMIT = 1
    """The step or evaluation limit came first."""
    DIVERGED = 2
    """The loss left the finite numbers or grew a million times."""
    HORIZON = 3
    """The flow time that was asked for was reached."""


@dataclass(frozen=True)
class Result:
    """A finished batch of runs.

    Attributes
    ----------
    factorization : Factorization
        Factors at the end of every run.
    status : Tensor of shape (runs,), int64
        Values of `Status`.
    n_steps, n_evaluations : Tensor of shape (runs,), int64
        Steps taken, and evaluations of loss and gradient (those spent on step sizes and stability included).
    time : Tensor of shape (runs,)
        Flow time at the end: the integral of the learning rate.
    mean_square : Tensor of shape (runs,)
        Mean squared residual at the end.
    measured_stable_lr : Tensor of shape (runs,)
        ``stable_lr`` where it was measured on the way, as the flow does; else ``nan``.
    records : dict of Tensor
        Recorded quantities, ``(runs, moments, ...)``; ``nan`` after a run has ended.
    measure_stable_lr : callable, optional
        Measures ``stable_lr`` of this result when it is asked for.
    """

    factorization: Factorization
    status: Tensor
    n_steps: Tensor
    n_evaluations: Tensor
    time: Tensor
    mean_square: Tensor
    measured_stable_lr: Tensor
    records: dict[str, Tensor] = field(default_factory=dict)
    measure_stable_lr: Callable[[Result], Tensor] | None = field(default=None, repr=False)

    @cached_property
    def stable_lr(self) -> Tensor:
        """``2 / (largest Hessian eigenvalue met)``, ``(runs,)``: fixed-step descent needs a learning rate below it.

        For the flow, over the whole trajectory. For descent, of diverged runs only, else ``nan``; it is measured when
        it is first asked for, which trains those runs once more and then follows the flow for at most 1000 evaluations
        of the gradient.
        """
        return self.measured_stable_lr if self.measure_stable_lr is None else self.measure_stable_lr(self)

    def advice(self, run: int) -> str:
        """One sentence on how run number `run` ended and, where it failed, what to do.

        Of a run of descent that diverged it names a learning rate that works; see `stable_lr` for what that costs.
        """
        status = Status(int(self.status[run]))
        loss = float(self.mean_square[run])
        steps = int(self.n_steps[run])
        if status is Status.CONVERGED:
            return f"Converged after {steps} steps with mean squared residual {loss:.3g}."
        if status is Status.HORIZON:
            return f"Reached the requested flow time {float(self.time[run]):.6g} with mean squared residual {loss:.3g}."
        if status is Status.LIMIT:
            return (
                f"Stopped by the limit after {steps} steps with mean squared residual {loss:.3g}; "
                "raise the limit, or raise lr if it is far below the largest stable one."
            )
        stable = float(self.stable_lr[run])
        return (
            f"Diverged after {steps} steps; lower lr below {stable:.2g}, the largest stable value along the flow."
            if stable == stable
            else f"Diverged after {steps} steps; lower lr."
        )


def joined(results: Sequence[Result]) -> Result:
    """Return one batch of the runs of several, in their order; what one of them did not record is ``nan``.

    Of several, ``stable_lr`` is asked for.
    """
    if len(results) == 1:
        return results[0]
    names = dict.fromkeys(name for result in results for name in result.records)
    shapes = {name: result.records[name] for result in results for name in result.records}
    records = {
        name: torch.cat(
            [
                result.records[name]
                if name in result.records
                else shapes[name].new_full((len(result.status), *shapes[name].shape[1:]), torch.nan)
                for result in results
            ]
        )
        for name in names
    }
    columns = {
        name: torch.cat([getattr(result, name) for result in results])
        for name in ("status", "n_steps", "n_evaluations", "time", "mean_square")
    }
    return Result(
        Factorization(torch.cat([result.factorization.state for result in results]), results[0].factorization.widths),
        **columns,  # type: ignore[arg-type]  # none of them is the callable
        measured_stable_lr=torch.cat([result.stable_lr for result in results]),
        records=records,
    )
