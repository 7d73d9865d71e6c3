"""Evaluation and steps by compiled loops, for completion and full observation on a CPU."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import accumulate, pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dmfkit.errors import InputError
from dmfkit.gradients import compiled_loops as loops
from dmfkit.gradients.evaluator import (
    DECAY,
    LEAST_ROOT,
    BaseEvaluator,
    ChebyshevStages,
    DescentRule,
    DescentRuns,
    FactorRates,
    FlowPoints,
)
from dmfkit.gradients.plan import Multiplication, Place, ProductPlan, product_plan
from dmfkit.problems.completion import Completion
from dmfkit.problems.losses import FullObservation

# Where second operands are transposed.
TRANSPOSED = Place("product", -1)


class CompiledEvaluator(BaseEvaluator):
    """Sum of squared residuals and gradient in the factors, one run after the other.

    What a run computes does not depend on the others of its batch. Not to be used by two threads at once.

    Parameters
    ----------
    problem : Completion or FullObservation
    widths : tuple of int
        ``(d_0, .., d_N)``; ``(d_N, d_0)`` must be the problem's shape.
    """

    def __init__(self, problem: Completion | FullObservation, widths: tuple[int, ...]) -> None:
        if (widths[-1], widths[0]) != problem.shape:
            raise ValueError(f"factors of widths {widths} do not give {problem.shape} matrices")
        self.widths, self._dtype = widths, problem.dtype
        plan = product_plan(widths)
        places, size = _layout(plan)
        self._evaluation = loops.Evaluation(
            forward=_rows(plan, plan.forward, places),
            backward=_rows(plan, plan.backward, places),
            work=torch.empty(size, dtype=problem.dtype).numpy(),
            observed=problem.values_or_nan.flatten().numpy(),
            scale=problem.gradient_scale,
        )
        self._edges = _edges(widths)
        self._paces: dict[tuple[float, ...], loops.Pace] = {}
        self._state: NDArray[np.floating[Any]] | None = None

    def squares(self, state: Tensor) -> Tensor:
        found = torch.empty(len(state), dtype=self._dtype)
        loops.squares(self._memory(state.contiguous()), self._evaluation, found.numpy())
        return found

    def squares_and_gradient(self, state: Tensor, out: Tensor) -> Tensor:
        found = torch.empty(len(state), dtype=self._dtype)
        loops.squares_and_gradients(self._memory(state), self._memory(out), self._evaluation, found.numpy())
        return found

    def descend(self, runs: DescentRuns, rule: DescentRule, steps: range) -> Tensor:
        history = torch.empty(len(steps), len(runs.state), dtype=self._dtype)
        loops.descend(
            self._memory(runs.state),
            self._workspace(),
            self._evaluation,
            loops.Runs(runs.rates, runs.floors, runs.ceilings, runs.averages),
            loops.Rule(
                pace=self._pace(rule.factor_rates),
                weight_decay=float(rule.weight_decay),
                decay=DECAY if rule.name == "group_rmsprop" else 0.0,
                least_root=LEAST_ROOT,
                last=rule.last,
            ),
            steps.start,
            history.numpy(),
        )
        runs.update_active(history[-1])
        return history

    def chebyshev_step(
        self,
        here: FlowPoints,
        there: FlowPoints,
        stages: ChebyshevStages,
        rates: FactorRates,
        workspace: Tensor,  # noqa: ARG002 (a run at a time has less of its own)
    ) -> Tensor:
        found = torch.empty(len(here.y), dtype=self._dtype)
        loops.chebyshev_step(
            loops.Points(self._memory(here.y), self._memory(here.f)),
            loops.Points(self._memory(there.y), self._memory(there.f)),
            self._evaluation,
            self._pace(rates.by_factor),
            loops.Stages(*stages),
            self._workspace(),
            found.numpy(),
        )
        return found

    def _workspace(self) -> NDArray[np.floating[Any]]:
        """Memory of a state, made when it is first needed: new memory costs as much as going through it."""
        if self._state is None:
            self._state = np.empty(self._edges[-1], self._evaluation.work.dtype)
        return self._state

    def _memory(self, tensor: Tensor) -> NDArray[np.floating[Any]]:
        """The memory of a batch of states or gradients; compiled loops do not look at how it lies."""
        if tensor.dtype != self._dtype:
            raise InputError(
                f"the factors are {tensor.dtype}, but the observations {self._dtype}: convert one of them by .to()."
            )
        if tensor.ndim != 2 or tensor.shape[1] != self._edges[-1] or not tensor.is_contiguous():
            raise ValueError(f"{tuple(tensor.shape)} with strides {tensor.stride()} is no batch of states")
        return tensor.numpy()

    def _pace(self, factor_rates: tuple[float, ...]) -> loops.Pace:
        """The parts of a state that move at one rate; made once, for it is asked for at every step."""
        if factor_rates not in self._paces:
            edges, multipliers = self._edges, factor_rates
            if len(set(factor_rates)) <= 1:  # one pass over all factors
                edges, multipliers = self._edges[[0, -1]], factor_rates[:1] or (1.0,)
            self._paces[factor_rates] = loops.Pace(edges, np.array(multipliers, dtype=float))
        return self._paces[factor_rates]


def _edges(widths: tuple[int, ...]) -> NDArray[np.int64]:
    """Where each factor begins in a state, and where the last ends."""
    return np.array([0, *accumulate(rows * columns for columns, rows in pairwise(widths))])


def _layout(plan: ProductPlan) -> tuple[dict[Place, tuple[int, int]], int]:
    """Memory and place of all matrices of an evaluation, and the size of the workspace for those that only it uses.

    The product matrix lies first in that workspace, and where second operands are transposed last.
    """
    edges = _edges(plan.widths).tolist()
    places = {
        Place(kind, index): (memory, edge)  # type: ignore[arg-type]
        for kind, memory in (("factor", loops.STATE), ("gradient", loops.GRADIENT))
        for index, edge in enumerate(edges[:-1])
    }
    size = 0
    targets = (step.target for step in (*plan.forward, *plan.backward))
    for place in (Place("product"), *targets):
        if place not in places:
            places[place] = loops.WORK, size
            size += math.prod(plan.shape(place))
    places[TRANSPOSED] = loops.WORK, size
    sizes = (math.prod(plan.shape(step.right)) for step in plan.backward)
    return places, size + max(sizes, default=0)


def _rows(
    plan: ProductPlan, steps: Sequence[Multiplication], places: Mapping[Place, tuple[int, int]]
) -> NDArray[np.int64]:
    """Products as the compiled loops read them, a row each."""

    def operand(place: Place) -> list[int]:
        stored = place._replace(transposed=False)
        return [*places[stored], *plan.shape(place), place.transposed]

    rows = [[*operand(step.left), *operand(step.right), *places[step.target], places[TRANSPOSED][1]] for step in steps]
    return np.array(rows, dtype=np.int64).reshape(len(steps), loops.COLUMNS)
