"""Evaluation and descent by compiled loops, for completion and full observation on a CPU."""

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
from dmfkit.gradients.plan import Multiplication, Place, ProductPlan, product_plan
from dmfkit.problems.losses import FullObservation, MatrixCompletion

# Where second operands are turned.
ROOM = Place("product", -1)


class CompiledEvaluator:
    """Sum of squared residuals and gradient in the factors, one run after the other.

    What a run computes does not depend on the others of its batch. Not to be used by two threads at once.

    Parameters
    ----------
    problem : MatrixCompletion or FullObservation
    widths : tuple of int
        ``(d_0, .., d_N)``; ``(d_N, d_0)`` must be the problem's shape.
    """

    def __init__(self, problem: MatrixCompletion | FullObservation, widths: tuple[int, ...]) -> None:
        self._scale, self._dtype = problem.gradient_scale, problem.dtype
        if (widths[-1], widths[0]) != problem.shape:
            raise ValueError(f"factors of widths {widths} do not give {problem.shape} matrices")
        plan = product_plan(widths)
        places, size = _layout(plan)
        self._program = tuple(_rows(plan, steps, places) for steps in (plan.forward, plan.backward))
        self._edges = _edges(widths)
        self._work = torch.empty(size, dtype=problem.dtype).numpy()
        self._room: NDArray[np.floating[Any]] | None = None
        self._observed = problem.values_or_nan.flatten().numpy()

    def squares(self, state: Tensor) -> Tensor:
        """Sum of squared residuals, ``(runs,)``, without the gradient."""
        found = torch.empty(len(state), dtype=self._dtype)
        loops.squares(self._memory(state.contiguous()), self._program[0], self._work, self._observed, found.numpy())
        return found

    def squares_and_gradient(self, state: Tensor, out: Tensor) -> Tensor:
        """Sum of squared residuals, ``(runs,)``; the gradient of the loss goes to `out`, shaped as `state`."""
        found = torch.empty(len(state), dtype=self._dtype)
        evaluation = (*self._program, self._work, self._observed, self._scale)
        loops.squares_and_gradients(self._memory(state), self._memory(out), *evaluation, found.numpy())
        return found

    def descend(
        self,
        state: Tensor,
        rates: Tensor,
        average: Tensor,
        bounds: tuple[Tensor, Tensor],
        steps: tuple[int, int, int],
        *,
        factor_rates: Sequence[float],
        weight_decay: float,
        memory: tuple[float, float],
    ) -> Tensor:
        """Move the runs in `state` step by step, each until it ends; see `loops.descend`.

        Returns
        -------
        Tensor of shape (steps, runs)
            Sums of squared residuals before every step; after its end, a run's last.
        """
        edges, multipliers = self._rates(factor_rates)
        history = torch.empty(steps[1] - steps[0], len(state), dtype=self._dtype)
        loops.descend(
            self._memory(state),
            self._state_of_room(),
            *self._program,
            self._work,
            self._observed,
            self._scale,
            tuple(bound.numpy() for bound in bounds),
            rates.numpy(),
            average.numpy(),
            edges,
            multipliers,
            weight_decay,
            memory,
            steps,
            history.numpy(),
        )
        return history

    def chebyshev(
        self,
        y: Tensor,
        f: Tensor,
        weights: NDArray[np.float64],
        stages: NDArray[np.int64],
        y_new: Tensor,
        f_new: Tensor,
        *,
        factor_rates: Sequence[float],
    ) -> Tensor:
        """Take one step of the flow of every run; see `loops.chebyshev`.

        Parameters
        ----------
        y, f : Tensor of shape (runs, n_parameters)
        weights, stages : ndarray
            As from `dmfkit.training.chebyshev.stage_weights`.
        y_new, f_new : Tensor of shape (runs, n_parameters)
            Written.

        Returns
        -------
        Tensor of shape (runs,)
            Sum of squared residuals after the step.
        """
        found = torch.empty(len(y), dtype=self._dtype)
        evaluation = (*self._program, self._work, self._observed, self._scale)
        steps = (*self._rates(factor_rates), weights, stages, self._state_of_room())
        here, there = (self._memory(y), self._memory(f)), (self._memory(y_new), self._memory(f_new))
        loops.chebyshev(*here, *evaluation, *steps, *there, found.numpy())
        return found

    def _state_of_room(self) -> NDArray[np.floating[Any]]:
        """Memory of a state, made when it is first needed: new memory costs as much as going through it."""
        if self._room is None:
            self._room = np.empty(self._edges[-1], self._work.dtype)
        return self._room

    def _memory(self, tensor: Tensor) -> NDArray[np.floating[Any]]:
        """The memory of a batch of states or gradients; compiled loops do not look at how it lies."""
        if tensor.dtype != self._dtype:
            raise InputError(
                f"the factors are {tensor.dtype}, but the observations {self._dtype}: convert one of them by .to()."
            )
        if tensor.ndim != 2 or tensor.shape[1] != self._edges[-1] or not tensor.is_contiguous():
            raise ValueError(f"{tuple(tensor.shape)} with strides {tensor.stride()} is no batch of states")
        return tensor.numpy()

    def _rates(self, factor_rates: Sequence[float]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Where the parts of a state begin that move at one rate, and where the last ends; their rates."""
        if len(set(factor_rates)) <= 1:  # one pass over all factors
            return self._edges[[0, -1]], np.array(factor_rates[:1] or (1.0,), dtype=float)
        return self._edges, np.array(factor_rates, dtype=float)


def _edges(widths: tuple[int, ...]) -> NDArray[np.int64]:
    """Where each factor begins in a state, and where the last ends."""
    return np.array([0, *accumulate(rows * columns for columns, rows in pairwise(widths))])


def _layout(plan: ProductPlan) -> tuple[dict[Place, tuple[int, int]], int]:
    """Memory and place of all matrices of an evaluation, and the size of the room for those that only it uses.

    The product matrix lies first in that room, and where second operands are turned last.
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
    places[ROOM] = loops.WORK, size
    turned = (math.prod(plan.shape(step.right)) for step in plan.backward)
    return places, size + max(turned, default=0)


def _rows(
    plan: ProductPlan, steps: Sequence[Multiplication], places: Mapping[Place, tuple[int, int]]
) -> NDArray[np.int64]:
    """Products as the compiled loops read them, a row each."""

    def operand(place: Place) -> list[int]:
        stored = place._replace(transposed=False)
        return [*places[stored], *plan.shape(place), place.transposed]

    rows = [[*operand(step.left), *operand(step.right), *places[step.target], places[ROOM][1]] for step in steps]
    return np.array(rows, dtype=np.int64).reshape(len(steps), loops.COLUMNS)
