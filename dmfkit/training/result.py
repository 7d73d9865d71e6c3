"""What an optimiser returns: the final factors, how each run ended, what it cost, and what was recorded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import IntEnum

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
    stable_lr : Tensor of shape (runs,)
        ``2 / (largest Hessian eigenvalue met)``: fixed-step descent along this run needs a learning rate below it. For
        the flow, over the whole trajectory; for descent, computed for diverged runs only, else ``nan``.
    records : dict of Tensor
        Recorded quantities, ``(runs, moments, ...)``; ``nan`` after a run has ended.
    """

    factorization: Factorization
    status: Tensor
    n_steps: Tensor
    n_evaluations: Tensor
    time: Tensor
    mean_square: Tensor
    stable_lr: Tensor
    records: dict[str, Tensor] = field(default_factory=dict)

    def advice(self, run: int) -> str:
        """One sentence on how run number `run` ended and, where it failed, what to do."""
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


def allocate(n_runs: int, device: torch.device, dtype: torch.dtype) -> dict[str, Tensor]:
    """Per-run tensors of a `Result`, filled in as runs end."""
    whole = {
        name: torch.zeros(n_runs, dtype=torch.int64, device=device) for name in ("status", "n_steps", "n_evaluations")
    }
    real = {
        name: torch.full((n_runs,), torch.nan, dtype=dtype, device=device)
        for name in ("time", "mean_square", "stable_lr")
    }
    return {**whole, **real}


def joined(results: Sequence[Result]) -> Result:
    """Return one batch of the runs of several, in their order; what one of them did not record is ``nan``."""
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
    columns = ("status", "n_steps", "n_evaluations", "time", "mean_square", "stable_lr")
    return Result(
        Factorization(torch.cat([result.factorization.state for result in results]), results[0].factorization.widths),
        **{name: torch.cat([getattr(result, name) for result in results]) for name in columns},
        records=records,
    )
