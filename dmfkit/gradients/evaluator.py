"""What every evaluation of loss and gradient can do: evaluate, and take the steps of descent and of the flow.

Here the steps are tensor operations, on any device. An evaluator that has something faster overrides them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dmfkit.factorizations.factorization import split_factors
from dmfkit.linalg.backend import Operand, products_for, quiet_overflow, sum_of_squares

StepRule = Literal["fixed", "group_rmsprop"]

# Entries of a block of rows, where the residual is formed in blocks: half a megabyte in double precision.
BLOCK = 65_536

# Running average and floor of the released code's GroupRMSprop.
DECAY, LEAST_ROOT = 0.99, 1e-4


@dataclass(frozen=True)
class DescentRule:
    """How a step of descent follows from a gradient.

    Attributes
    ----------
    name : {"fixed", "group_rmsprop"}
    factor_rates : tuple of float
        Multipliers of the learning rate for ``W_1 .. W_N``; empty means all one.
    weight_decay : float
    last : int
        Number of steps after which none is taken.
    """

    name: StepRule
    factor_rates: tuple[float, ...]
    weight_decay: float
    last: int


class DescentRuns(NamedTuple):
    """Runs of descent that are evaluated together, all of them as often.

    Attributes
    ----------
    state, gradient : Tensor of shape (runs, n_parameters)
        Overwritten. An evaluator that has memory of its own for the gradient takes an empty one.
    active, rates, floors, ceilings, averages : Operand of shape (runs,)
        As the library sees them that multiplies on the device (NumPy on a CPU): which runs have not ended; learning
        rates; sums of squared residuals below and above which a run ends; running mean square of the gradient's norm.
        The first and the last are overwritten.
    """

    state: Tensor
    gradient: Tensor
    active: Operand
    rates: Operand
    floors: Operand
    ceilings: Operand
    averages: Operand

    def update_active(self, squares: Tensor) -> None:
        """Let runs end that have had squared residuals below or above their bounds, or NaN."""
        now = products_for(squares.device).operand(squares)
        active = self.active
        active &= now.clip(self.floors, self.ceilings) == now


class FactorRates(NamedTuple):
    """Multipliers of the speed at which factors move.

    Attributes
    ----------
    by_factor : tuple of float
        Of ``W_1 .. W_N``; empty means all one.
    by_parameter : Tensor of shape (n_parameters,), optional
        The same for every entry of a state; None where all are one.
    """

    by_factor: tuple[float, ...]
    by_parameter: Tensor | None

    @classmethod
    def of(cls, factor_rates: Sequence[float], state: Tensor, widths: tuple[int, ...]) -> FactorRates:
        """Expand the rates of factors of these widths, as the states are; see the class."""
        if not factor_rates or set(factor_rates) == {1.0}:
            return cls(tuple(factor_rates), None)
        rates = torch.ones_like(state[:1])
        for block, rate in zip(split_factors(rates, widths), factor_rates, strict=True):
            block.fill_(rate)
        return cls(tuple(factor_rates), rates[0])


class FlowPoints(NamedTuple):
    """Where runs of the flow are: states and right-hand sides there, both ``(runs, n_parameters)``."""

    y: Tensor
    f: Tensor


class ChebyshevStages(NamedTuple):
    """The stages of a step: `weights`, ``(runs, most stages + 1, 5)``, and how many each run has, in descending order.

    As from `dmfkit.training.chebyshev.stage_weights`.
    """

    weights: NDArray[np.float64]
    numbers: NDArray[np.int64]


class BaseEvaluator(ABC):
    """Loss and gradient of a batch of states of one problem, and steps that follow from them.

    Attributes
    ----------
    widths : tuple of int
        ``(d_0, .., d_N)`` of the factors.
    """

    widths: tuple[int, ...]

    @abstractmethod
    def squares(self, state: Tensor) -> Tensor:
        """Sum of squared residuals, ``(runs,)``, without the gradient."""

    @abstractmethod
    def squares_and_gradient(self, state: Tensor, out: Tensor) -> Tensor:
        """Sum of squared residuals, ``(runs,)``; the gradient of the loss goes to `out`, shaped as `state`."""

    def descend(self, runs: DescentRuns, rule: DescentRule, steps: range) -> Tensor:
        """Evaluate runs once for each of `steps`, and move those that have not ended.

        Nothing is asked of the device meanwhile.

        Parameters
        ----------
        runs : DescentRuns
        rule : DescentRule
        steps : range
            Numbers of the steps.

        Returns
        -------
        Tensor of shape (steps, runs)
            Sums of squared residuals before every step. After the end of a run they say nothing new.
        """
        library, history = products_for(runs.state.device), []
        blocks = _paced(runs, rule, self.widths)
        for number in steps:
            squares = self.squares_and_gradient(runs.state, runs.gradient)
            history.append(squares)
            runs.update_active(squares)
            if number < rule.last:
                size = runs.rates
                if rule.name == "group_rmsprop":
                    size = size / (_root_mean_square(runs, number + 1) + LEAST_ROOT)
                _step(blocks, library.tensor(size * runs.active), rule.weight_decay)
        return torch.stack(history)

    @quiet_overflow()
    def field(self, y: Tensor, out: Tensor, rates: FactorRates) -> Tensor:
        """Sum of squared residuals, ``(runs,)``; the flow's right-hand side, minus the gradient, goes to `out`."""
        squares = self.squares_and_gradient(y, out)
        out.neg_()
        if rates.by_parameter is not None:
            out.mul_(rates.by_parameter)
        return squares

    def chebyshev_step(
        self, here: FlowPoints, there: FlowPoints, stages: ChebyshevStages, rates: FactorRates, workspace: Tensor
    ) -> Tensor:
        """Take one step of the flow of every run, each with stages of its own.

        Parameters
        ----------
        here, there : FlowPoints
            Where the step begins; where it leads is written.
        stages : ChebyshevStages
        rates : FactorRates
        workspace : Tensor of shape (runs or more, n_parameters)
            Memory of a state, for every other stage.

        Returns
        -------
        Tensor of shape (runs,)
            Sums of squared residuals where the step leads.
        """

        def field(y: Tensor) -> Tensor:
            out = there.f[: len(y)]
            self.field(y, out, rates)
            return out

        chebyshev_stages(field, here, stages, workspace, there.y)
        return self.field(there.y, there.f, rates)


def chebyshev_stages(
    field: Callable[[Tensor], Tensor], here: FlowPoints, stages: ChebyshevStages, workspace: Tensor, out: Tensor
) -> None:
    """Go through the stages of one step of every run; the last of each goes to `out`.

    Parameters
    ----------
    field : callable
        Right-hand side; called with the first ``k`` runs, ``(k, n)``, for as long as they have stages left. May return
        the same memory every time.
    here : FlowPoints
    stages : ChebyshevStages
    workspace : Tensor of shape (runs or more, n)
        Memory for every other stage; new memory at every stage costs more than the arithmetic in it.
    out : Tensor of shape (runs, n)
    """
    y, f = here
    # All coefficients of the step go to the device at once: (stage, coefficient, run, 1).
    columns = torch.from_numpy(stages.weights).to(y).permute(1, 2, 0).unsqueeze(3)
    # A stage is written over the one before the last. Rows of runs that are done are the last ones, which no later
    # stage writes to.
    memory = out, workspace[: len(y)]
    newer = torch.addcmul(y, f, columns[1, 4], out=memory[1])
    for j in range(2, int(stages.numbers[0]) + 1):
        k = int(np.count_nonzero(stages.numbers >= j))  # the first k runs still have a stage j
        rest, mu, nu, slope, first = columns[j, :, :k].unbind()
        stage, newer = memory[j % 2][:k], newer[:k]
        if j == 2:
            torch.mul(y[:k], rest, out=stage)
        else:
            stage.mul_(nu).addcmul_(y[:k], rest)
        stage.addcmul_(newer, mu).addcmul_(field(newer), slope).addcmul_(f[:k], first)
        done = int(np.count_nonzero(stages.numbers > j))
        if done < k and j % 2:
            memory[0][done:k] = stage[done:]
        newer = stage


def _root_mean_square(runs: DescentRuns, count: int) -> Operand:
    """Running root mean square of the gradient's norm, corrected for its beginning at zero, after `count` gradients."""
    average = runs.averages
    average *= DECAY
    average += (1.0 - DECAY) * products_for(runs.gradient.device).operand(sum_of_squares(runs.gradient))
    return (average / (1.0 - DECAY**count)) ** 0.5


def _paced(runs: DescentRuns, rule: DescentRule, widths: tuple[int, ...]) -> list[tuple[Tensor, Tensor, float]]:
    """Parts of the state that move at one rate, each with its gradient and the multiplier of the learning rate."""
    factor_rates = rule.factor_rates
    if len(set(factor_rates)) <= 1:  # mostly so, and one pass over all factors
        return [(runs.state, runs.gradient, factor_rates[0] if factor_rates else 1.0)]
    factors, slopes = split_factors(runs.state, widths), split_factors(runs.gradient, widths)
    return list(zip(factors, slopes, factor_rates, strict=True))


def _step(blocks: list[tuple[Tensor, Tensor, float]], step_size: Tensor, weight_decay: float) -> None:
    """Subtract the gradient, and the weight decay, from the state in place."""
    for weights, slope, multiplier in blocks:
        size = step_size if multiplier == 1.0 else step_size * multiplier
        size = size.view(-1, *[1] * (weights.ndim - 1))
        if weight_decay:
            weights.mul_(1.0 - size * weight_decay)
        weights.addcmul_(slope, size, value=-1.0)
