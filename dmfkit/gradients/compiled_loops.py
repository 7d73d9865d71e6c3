"""One run after the other: loss and gradient, and steps of descent and of the flow; large residuals, block by block.

Between matrix products a step passes a few times over some ten thousand numbers. As operations on arrays these passes
take a fifth of its time at d = 100, and nearly all of it at d = 10; here what belongs together is one pass, and a run
stays in its core's caches until its steps are done.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import carray, types
from numba.core.cgutils import voidptr_t
from numba.extending import intrinsic

from dmfkit.linalg.compiled import Numbers, Places, compiled

# Where a matrix lies, in the programs of an `Evaluation`.
STATE, GRADIENT, WORK = range(3)
# Columns of a program: of both operands memory, place, rows and columns as stored, and whether it is transposed; memory
# and place of what is written; and in `WORK` the place where the second operand is transposed.
COLUMNS = 13


class Evaluation(NamedTuple):
    """What an evaluation of loss and gradient needs besides the state.

    Attributes
    ----------
    forward, backward : ndarray of shape (products, COLUMNS)
        Programs: the matrix products that form the product matrix, and those of the way back.
    work : ndarray
        Workspace; the product matrix lies first in it.
    observed : ndarray of shape (d * d_in,)
        Observed values; NaN elsewhere.
    scale : float
        Of the gradient, relative to the residual.
    """

    forward: Places
    backward: Places
    work: Numbers
    observed: Numbers
    scale: float


class Pace(NamedTuple):
    """The parts of a state that move at one rate.

    Attributes
    ----------
    edges : ndarray of int
        Where the parts begin, and where the last ends.
    multipliers : ndarray
        Of the rate, for each part.
    """

    edges: Places
    multipliers: Numbers


class Runs(NamedTuple):
    """What is a number for each run of descent.

    Attributes
    ----------
    rates, floors, ceilings : ndarray of shape (runs,)
        Learning rate, and the sums of squared residuals below and above which a run ends.
    averages : ndarray of shape (runs,)
        Running mean square of the gradient's norm; continued.
    """

    rates: Numbers
    floors: Numbers
    ceilings: Numbers
    averages: Numbers


class Rule(NamedTuple):
    """How a step of descent follows from a gradient.

    Attributes
    ----------
    pace : Pace
    weight_decay : float
    decay, least_root : float
        Of the running mean square, and what is added to its root, for GroupRMSprop; a decay of 0 is the plain rule.
    last : int
        Number of the step from which none is taken.
    """

    pace: Pace
    weight_decay: float
    decay: float
    least_root: float
    last: int


class Stages(NamedTuple):
    """Stages of a Chebyshev step, as from `dmfkit.training.chebyshev.stage_weights`.

    Attributes
    ----------
    weights : ndarray of shape (runs, most stages + 1, 5)
    numbers : ndarray of int, shape (runs,)
    """

    weights: Numbers
    numbers: Places


class Points(NamedTuple):
    """States of all runs, and the right-hand sides of the flow there.

    Attributes
    ----------
    states, fields : ndarray of shape (runs, n_parameters)
    """

    states: Numbers
    fields: Numbers


def _to_pointer(typing: Any, address: Any) -> Any:  # noqa: ARG001
    """Type and code of turning an address into a pointer."""

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:  # noqa: ARG001
        return builder.inttoptr(arguments[0], voidptr_t)

    return types.voidptr(types.intp), code


_pointer: Any = intrinsic(_to_pointer)


@compiled
def _matrix(like: Numbers, start: int, place: int, rows: int, columns: int) -> Numbers:
    """The matrix that lies `place` numbers after an address.

    As a slice, it would be counted by everyone who has it, which takes twice as long as a product of 10 x 10 matrices.
    """
    return carray(_pointer(start + place * like.itemsize), (rows, columns), like.dtype)


@compiled
def _multiply(step: Places, memories: tuple[int, int, int], like: Numbers) -> None:
    """Take one product of a program, by the addresses of state, gradient and work."""
    left = _matrix(like, memories[step[0]], step[1], step[2], step[3])
    right = _matrix(like, memories[step[5]], step[6], step[7], step[8])
    if step[9]:
        # On a second operand that is stored by columns BLAS loses a third of its speed: more than copying it costs.
        transposed = _matrix(like, memories[WORK], step[12], step[8], step[7])
        for row in range(step[8]):
            for column in range(step[7]):
                transposed[row, column] = right[column, row]
        right = transposed
    height = step[3] if step[4] else step[2]
    out = _matrix(like, memories[step[10]], step[11], height, right.shape[1])
    if step[4]:
        np.dot(left.T, right, out)
    else:
        np.dot(left, right, out)


@compiled
def _residual(product: Numbers, observed: Numbers, scale: float) -> float:
    """Make `scale` times the residual of a product; sum of its squares, without `scale`.

    `observed` has the observed values, and NaN elsewhere.
    """
    total: Any = 0.0
    factor = product.dtype.type(scale)
    for i in range(product.size):
        # Not whether the residual is a number: those of a run that diverges may be none.
        residual = product[i] - observed[i] if observed[i] == observed[i] else product.dtype.type(0.0)
        total += residual * residual
        product[i] = residual * factor
    return total


@compiled
def _forward(state: Numbers, evaluation: Evaluation) -> None:
    """Form the product matrix, which lies first in the workspace."""
    forward, work = evaluation.forward, evaluation.work
    memories = (state.ctypes.data, state.ctypes.data, work.ctypes.data)
    for number in range(len(forward)):
        _multiply(forward[number], memories, work)
    if not len(forward):
        work[: evaluation.observed.size] = state


@compiled
def _evaluate(state: Numbers, gradient: Numbers, evaluation: Evaluation) -> float:
    """Sum of squared residuals; writes the gradient."""
    backward, work, observed = evaluation.backward, evaluation.work, evaluation.observed
    _forward(state, evaluation)
    square = _residual(work[: observed.size], observed, evaluation.scale)
    memories = (state.ctypes.data, gradient.ctypes.data, work.ctypes.data)
    for number in range(len(backward)):
        _multiply(backward[number], memories, work)
    if not len(backward):
        gradient[:] = work[: observed.size]
    return square


@compiled
def squares(states: Numbers, evaluation: Evaluation, found: Numbers) -> None:
    """Sums of squared residuals of all runs."""
    observed = evaluation.observed
    for run in range(len(states)):
        _forward(states[run], evaluation)
        found[run] = _residual(evaluation.work[: observed.size], observed, 1.0)


@compiled
def squares_and_gradients(states: Numbers, gradients: Numbers, evaluation: Evaluation, found: Numbers) -> None:
    """Sums of squared residuals of all runs, and their gradients."""
    for run in range(len(states)):
        found[run] = _evaluate(states[run], gradients[run], evaluation)


@compiled
def descend(
    states: Numbers, gradient: Numbers, evaluation: Evaluation, runs: Runs, rule: Rule, first: int, history: Numbers
) -> None:
    """Take as many steps of all runs as `history` has rows, each run until its loss leaves the bounds.

    Parameters
    ----------
    states : ndarray of shape (runs, n_parameters)
        Moved.
    gradient : ndarray of shape (n_parameters,)
        Workspace.
    evaluation : Evaluation
    runs : Runs
    rule : Rule
    first : int
        Number of the first step.
    history : ndarray of shape (steps, runs)
        Sums of squared residuals before every step; after its end, a run's last.
    """
    edges, multipliers = rule.pace.edges, rule.pace.multipliers
    for run in range(len(states)):
        state = states[run]
        for number in range(first, first + len(history)):
            history[number - first, run] = _evaluate(state, gradient, evaluation)
            square = history[number - first, run]
            if not runs.floors[run] <= square <= runs.ceilings[run]:
                history[number - first :, run] = square
                break
            if number >= rule.last:
                continue
            size = runs.rates[run]
            if rule.decay:
                total = 0.0
                for i in range(gradient.size):
                    total += gradient[i] * gradient[i]
                runs.averages[run] = rule.decay * runs.averages[run] + (1.0 - rule.decay) * total
                root = np.sqrt(runs.averages[run] / (1.0 - rule.decay ** (number + 1)))
                size = runs.rates[run] / (root + rule.least_root)
            for part in range(len(multipliers)):
                factor = states.dtype.type(size * multipliers[part])
                kept = states.dtype.type(1.0 - size * multipliers[part] * rule.weight_decay)
                for i in range(edges[part], edges[part + 1]):
                    state[i] = kept * state[i] - factor * gradient[i]


@compiled
def chebyshev_step(
    here: Points, there: Points, evaluation: Evaluation, pace: Pace, stages: Stages, workspace: Numbers, found: Numbers
) -> None:
    """Take one step of every run and evaluate where it leads.

    Parameters
    ----------
    here, there : Points
        Where the step begins; where it leads is written. The right-hand side is minus the gradient, times the pace.
    evaluation : Evaluation
    pace : Pace
    stages : Stages
    workspace : ndarray of shape (n_parameters,)
    found : ndarray of shape (runs,)
        Sums of squared residuals where the step leads.
    """
    edges, multipliers, weights = pace.edges, pace.multipliers, stages.weights
    kind = here.states.dtype.type
    for run in range(len(here.states)):
        state, field, gradient = here.states[run], here.fields[run], there.fields[run]
        # A stage is written over the one before the last.
        newer, stage = workspace, there.states[run]
        size = kind(weights[run, 1, 4])
        for i in range(state.size):
            newer[i] = state[i] + size * field[i]
        for number in range(2, stages.numbers[run] + 1):
            _evaluate(newer, gradient, evaluation)
            rest, mu, nu = kind(weights[run, number, 0]), kind(weights[run, number, 1]), kind(weights[run, number, 2])
            first = kind(weights[run, number, 4])
            for part in range(len(multipliers)):
                slope = kind(-multipliers[part] * weights[run, number, 3])
                if number == 2:  # what is there is no stage, and may be no number
                    for i in range(edges[part], edges[part + 1]):
                        stage[i] = rest * state[i] + mu * newer[i] + slope * gradient[i] + first * field[i]
                else:
                    for i in range(edges[part], edges[part + 1]):
                        moved = rest * state[i] + mu * newer[i] + nu * stage[i]
                        stage[i] = moved + slope * gradient[i] + first * field[i]
            newer, stage = stage, newer
        if stages.numbers[run] % 2:
            there.states[run] = newer
        found[run] = _evaluate(there.states[run], gradient, evaluation)
        for part in range(len(multipliers)):
            factor = kind(-multipliers[part])
            for i in range(edges[part], edges[part + 1]):
                gradient[i] *= factor


@compiled
def square_in_blocks(left: Numbers, right: Numbers, observed: Numbers, edges: Places, workspace: Numbers) -> float:
    """Sum of squared residuals of ``left right`` in the blocks of rows between `edges`."""
    total = 0.0
    for number in range(len(edges) - 1):
        first, end = edges[number], edges[number + 1]
        total += _block(left[first:end], right, observed[first:end], workspace[: end - first])
    return total


@compiled
def square_and_products_in_blocks(
    left: Numbers,
    right: Numbers,
    transposed_right: Numbers,
    observed: Numbers,
    edges: Places,
    workspace: Numbers,
    times_right: Numbers,
    one: Numbers,
    transposed_times_left: Numbers,
) -> float:
    """The same, and with the residual ``R`` of these rows ``R right^T`` and ``left^T R``.

    Parameters
    ----------
    left, right : ndarray of shape (d, h) and (h, d_in)
    transposed_right : ndarray of shape (d_in, h)
        ``right^T``.
    observed : ndarray of shape (d, d_in)
        Observed values; NaN elsewhere.
    edges : ndarray of int
        Where the blocks begin, and where the last ends.
    workspace : ndarray of shape (greatest height, d_in)
    times_right : ndarray of shape (d, h)
        The given rows are written.
    one, transposed_times_left : ndarray of shape (h, d_in)
        Workspace for what a block gives, and the sum of all.
    """
    total = 0.0
    for number in range(len(edges) - 1):
        first, end = edges[number], edges[number + 1]
        residual = workspace[: end - first]
        total += _block(left[first:end], right, observed[first:end], residual)
        np.dot(residual, transposed_right, times_right[first:end])
        if number:
            np.dot(left[first:end].T, residual, one)
            for i in range(one.shape[0]):
                for j in range(one.shape[1]):
                    transposed_times_left[i, j] += one[i, j]
        else:
            np.dot(left[first:end].T, residual, transposed_times_left)
    return total


@compiled
def _block(left: Numbers, right: Numbers, observed: Numbers, residual: Numbers) -> float:
    np.dot(left, right, residual)
    return _residual(residual.reshape(residual.size), observed.reshape(observed.size), 1.0)
