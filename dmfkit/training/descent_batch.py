"""The runs of gradient descent that go on, and the steps they take: in parts, side by side on a processor's cores."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from dmfkit.factorizations.factorization import split_factors
from dmfkit.gradients.choice import Way, evaluator_for, way
from dmfkit.gradients.compiled import CompiledEvaluator
from dmfkit.gradients.tensors import AnyEvaluator
from dmfkit.gradients.threads import Cores
from dmfkit.linalg.backend import Operand, Products, products_for, quiet_overflow, sum_of_squares
from dmfkit.problems.losses import Problem

StepRule = Literal["fixed", "group_rmsprop"]

# A run whose squared residuals are this many times the initial ones will not come back.
BLOW_UP = 1e6
# Runs of a part whose tensors take more bytes than this fall out of a core's caches between two steps.
PART_BYTES = 8 * 2**20
# Steps between two looks at which runs have ended. Ended runs stand still at once, on the device; they are only taken
# out of the batch, which needs the host, at the end of a block.
BLOCK = 50
# Compiled steps are no operations of Python's: a block of them should take some hundredths of a second, so that an
# interruption does not wait. Multiplications of a block, and its least and greatest number of steps.
BLOCK_WORK, SHORTEST, LONGEST = 4_000_000_000, 5, 1000
# Running average and floor of the released code's GroupRMSprop.
DECAY, LEAST_ROOT = 0.99, 1e-4


@dataclass(frozen=True)
class Rule:
    """How a step follows from a gradient.

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


@dataclass(frozen=True)
class _Part:
    """Some of the runs, as views into the tensors of the batch; what is a number for each run, as `by` sees it."""

    by: Products
    evaluator: AnyEvaluator
    state: Tensor
    gradient: Tensor
    active: Operand
    floor: Operand
    ceiling: Operand
    rates: Operand
    average: Operand
    blocks: list[tuple[Tensor, Tensor, float]]


class Batch:
    """Runs that go on; all have been evaluated the same number of times.

    On a CPU the runs are trained in parts, and these side by side where the cores are not needed within a run. What a
    run computes does not depend on its part.

    Attributes
    ----------
    runs : Tensor of shape (k,), int64
        Numbers of the runs.
    state : Tensor of shape (k, n_parameters)
        Overwritten, and what it views too.
    rates : Tensor of shape (k,)
        Learning rates.
    steps : Tensor of shape (k,), int64
        Steps that each run has taken.
    active : Tensor of shape (k,), bool
        False for runs that have ended and stand still.
    floor, ceiling : Tensor of shape (k,)
        Sums of squared residuals below and above which a run ends.
    """

    def __init__(
        self,
        problem: Problem,
        widths: tuple[int, ...],
        state: Tensor,
        rates: Tensor,
        threshold: float,
        rule: Rule,
        cores: Cores,
    ) -> None:
        self.problem, self.widths, self.rule, self.cores = problem, widths, rule, cores
        self._way = way(problem, widths)
        self.state, self.rates = state, rates
        # A compiled loop takes one run after the other, with a gradient of its own.
        self._gradient = state[:0] if self._way is Way.LOOPS else torch.empty_like(state)
        self.runs = torch.arange(len(state), device=state.device)
        self.steps = torch.zeros_like(self.runs)
        self.active = torch.ones_like(self.runs, dtype=torch.bool)
        self.floor, self.average = torch.full_like(rates, threshold), torch.zeros_like(rates)
        self.ceiling = torch.full_like(rates, torch.inf)
        self._evaluators: dict[int, tuple[int, AnyEvaluator]] = {}
        self._lay_out()
        with quiet_overflow():
            squares = [part.evaluator.squares(part.state) for part in self._parts]
        self.ceiling.copy_(BLOW_UP * torch.cat(squares))

    def keep(self, mask: Tensor) -> None:
        """Let only these runs go on."""
        for name in ("runs", "rates", "steps", "active", "floor", "ceiling", "average"):
            setattr(self, name, getattr(self, name)[mask])
        # In place: evaluators remember where they have multiplied, and would keep the memory of every earlier batch.
        left = len(self.runs)
        self.state[:left] = self.state[mask]
        self.state, self._gradient = self.state[:left], self._gradient[:left]
        self._lay_out()

    def advance(self, step: int, until: int) -> Tensor:
        """Evaluate all runs at the steps from `step` up to, not including, `until`, and move those that go on.

        Returns
        -------
        Tensor of shape (k,)
            Sum of squared residuals that each run had when it ended, or at step ``until - 1``.
        """

        def train(lane: int) -> list[Tensor]:
            with quiet_overflow():
                return [_train(part, self.rule, step, until) for part in self._parts[lane :: self._n_lanes]]

        if self.cores.worth_threads(len(self.runs), until - step):
            done = self.cores.map(train, range(self._n_lanes))
        else:
            done = [train(lane) for lane in range(self._n_lanes)]
        history = torch.cat([done[i % self._n_lanes][i // self._n_lanes] for i in range(len(self._parts))], dim=1)
        # A run takes one step for every loss that lets it go on; the limit lets none.
        going = (history >= self.floor).logical_and_(history <= self.ceiling).cummin(dim=0).values.sum(dim=0)
        going.clamp_(max=min(until, self.rule.last) - step)
        self.steps += going
        return history.gather(0, going.clamp(max=until - step - 1).unsqueeze(0)).squeeze(0)

    def _lay_out(self) -> None:
        """Divide the runs into parts, and the parts among threads."""
        n_runs = len(self.runs)
        by = products_for(self.state.device)
        self._n_lanes, n_parts = self._divided(n_runs)
        size = -(-n_runs // n_parts)
        self._parts = []
        for number, rows in enumerate(torch.arange(n_runs).tensor_split(n_parts)):
            if not len(rows):
                continue
            part = slice(int(rows[0]), int(rows[-1]) + 1)
            self._parts.append(
                _Part(
                    by=by,
                    evaluator=self._evaluator(number % self._n_lanes, size),
                    state=self.state[part],
                    gradient=self._gradient[part],
                    active=by.operand(self.active[part]),
                    floor=by.operand(self.floor[part]),
                    ceiling=by.operand(self.ceiling[part]),
                    rates=by.operand(self.rates[part]),
                    average=by.operand(self.average[part]),
                    blocks=_blocks(self.state[part], self._gradient[part], self.rule.factor_rates, self.widths),
                )
            )

    @property
    def block(self) -> int:
        """Number of steps that are worth taking before the next look at which runs have ended."""
        if self._way is not Way.LOOPS:
            return BLOCK
        work = self.cores.work(-(-len(self.runs) // self._n_lanes))
        return max(SHORTEST, min(LONGEST, BLOCK_WORK // max(1, work)))

    def _divided(self, n_runs: int) -> tuple[int, int]:
        """Number of threads and of parts."""
        if self._way is Way.LOOPS:
            lanes = self.cores.divide(n_runs, LONGEST)
            return lanes, lanes
        # Sensing multiplies all runs with its measurements at once; a GPU wants as much work at once as there is.
        if self._way is Way.TENSORS:
            return 1, 1
        fitting = max(1, PART_BYTES // (3 * self.state.element_size() * self.state.shape[1]))
        return 1, max(1, -(-n_runs // fitting))

    def _evaluator(self, lane: int, n_runs: int) -> AnyEvaluator:
        """The evaluator of a thread, for batches of at most `n_runs` runs."""
        known = self._evaluators.get(lane)
        if known is None or known[0] < n_runs:
            known = n_runs, evaluator_for(self.problem, self.widths, n_runs, self.cores.spread)
            self._evaluators[lane] = known
        return known[1]


def _train(part: _Part, rule: Rule, step: int, until: int) -> Tensor:
    """Losses at the steps from `step` up to, not including, `until`, ``(steps, runs)``."""
    if isinstance(part.evaluator, CompiledEvaluator):
        seen = part.evaluator.descend(
            part.state,
            part.by.tensor(part.rates),
            part.by.tensor(part.average),
            (part.by.tensor(part.floor), part.by.tensor(part.ceiling)),
            (step, until, rule.last),
            factor_rates=rule.factor_rates,
            weight_decay=rule.weight_decay,
            memory=(DECAY if rule.name == "group_rmsprop" else 0.0, LEAST_ROOT),
        )
        _look(part, seen[-1])
        return seen
    history = []
    for number in range(step, until):
        squares = part.evaluator.squares_and_gradient(part.state, part.gradient)
        history.append(squares)
        active = _look(part, squares)
        if number < rule.last:
            size = part.rates
            if rule.name == "group_rmsprop":
                size = size / (_root_mean_square(part, number + 1) + LEAST_ROOT)
            _step(part.blocks, part.by.tensor(size * active), rule.weight_decay)
    return torch.stack(history)


def _look(part: _Part, squares: Tensor) -> Operand:
    """Which runs go on after they have had these squared residuals: neither below nor above, nor NaN."""
    now, active = part.by.operand(squares), part.active
    active &= now.clip(part.floor, part.ceiling) == now
    return active


def _root_mean_square(part: _Part, count: int) -> Operand:
    """Running root mean square of the gradient's norm, corrected for its beginning at zero, after `count` gradients."""
    average = part.average
    average *= DECAY
    average += (1.0 - DECAY) * part.by.operand(sum_of_squares(part.gradient))
    return (average / (1.0 - DECAY**count)) ** 0.5


def _blocks(
    state: Tensor, gradient: Tensor, factor_rates: tuple[float, ...], widths: tuple[int, ...]
) -> list[tuple[Tensor, Tensor, float]]:
    """Parts of the state that move at one rate, each with its gradient and the multiplier of the learning rate."""
    if len(set(factor_rates)) <= 1:  # the rule, and one pass over all factors
        return [(state, gradient, factor_rates[0] if factor_rates else 1.0)]
    factors, slopes = split_factors(state, widths), split_factors(gradient, widths)
    return list(zip(factors, slopes, factor_rates, strict=True))


def _step(blocks: list[tuple[Tensor, Tensor, float]], step_size: Tensor, weight_decay: float) -> None:
    """Subtract the gradient, and the weight decay, from the state in place."""
    for weights, slope, multiplier in blocks:
        size = step_size if multiplier == 1.0 else step_size * multiplier
        size = size.view(-1, *[1] * (weights.ndim - 1))
        if weight_decay:
            weights.mul_(1.0 - size * weight_decay)
        weights.addcmul_(slope, size, value=-1.0)
