"""One run after the other: loss and gradient, and steps of descent and of the flow; large residuals, block by block.

Between matrix products a step passes a few times over some ten thousand numbers. As operations on arrays these passes
take a fifth of its time at d = 100, and nearly all of it at d = 10; here what belongs together is one pass, and a run
stays in its core's caches until its steps are done.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import carray, types
from numba.core.cgutils import voidptr_t
from numba.extending import intrinsic

from dmfkit.linalg.compiled import Numbers, Places, compiled

# Where a matrix lies, in the programs of `compiled_evaluation`.
STATE, GRADIENT, WORK = range(3)
# Columns of a program: of both operands memory, place, rows and columns as stored, and whether it is transposed; memory
# and place of what is written; and in `WORK` room to turn the second operand.
COLUMNS = 13


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
        # BLAS is a third slower on a second operand that is stored by columns than turning it takes.
        turned = _matrix(like, memories[WORK], step[12], step[8], step[7])
        for row in range(step[8]):
            for column in range(step[7]):
                turned[row, column] = right[column, row]
        right = turned
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
def _forward(state: Numbers, forward: Places, work: Numbers, size: int) -> None:
    """Form the product matrix, which lies first in `work`."""
    memories = (state.ctypes.data, state.ctypes.data, work.ctypes.data)
    for number in range(len(forward)):
        _multiply(forward[number], memories, work)
    if not len(forward):
        work[:size] = state


@compiled
def _evaluate(
    state: Numbers,
    gradient: Numbers,
    forward: Places,
    backward: Places,
    work: Numbers,
    observed: Numbers,
    scale: float,
) -> float:
    size = observed.size
    _forward(state, forward, work, size)
    square = _residual(work[:size], observed, scale)
    memories = (state.ctypes.data, gradient.ctypes.data, work.ctypes.data)
    for number in range(len(backward)):
        _multiply(backward[number], memories, work)
    if not len(backward):
        gradient[:] = work[:size]
    return square


@compiled
def squares(states: Numbers, forward: Places, work: Numbers, observed: Numbers, found: Numbers) -> None:
    """Sums of squared residuals of all runs."""
    for run in range(len(states)):
        _forward(states[run], forward, work, observed.size)
        found[run] = _residual(work[: observed.size], observed, 1.0)


@compiled
def squares_and_gradients(
    states: Numbers,
    gradients: Numbers,
    forward: Places,
    backward: Places,
    work: Numbers,
    observed: Numbers,
    scale: float,
    found: Numbers,
) -> None:
    """Sums of squared residuals of all runs, and their gradients."""
    for run in range(len(states)):
        found[run] = _evaluate(states[run], gradients[run], forward, backward, work, observed, scale)


@compiled
def descend(
    states: Numbers,
    gradient: Numbers,
    forward: Places,
    backward: Places,
    work: Numbers,
    observed: Numbers,
    scale: float,
    bounds: tuple[Numbers, Numbers],
    rates: Numbers,
    average: Numbers,
    edges: Places,
    multipliers: Numbers,
    weight_decay: float,
    memory: tuple[float, float],
    steps: tuple[int, int, int],
    history: Numbers,
) -> None:
    """Take the steps of all runs from a first number up to another, each run until its loss leaves the bounds.

    Parameters
    ----------
    states : ndarray of shape (runs, n_parameters)
        Moved.
    gradient : ndarray of shape (n_parameters,)
        Room.
    bounds : tuple of two ndarrays of shape (runs,)
        Sums of squared residuals below and above which a run ends.
    rates : ndarray of shape (runs,)
    average : ndarray of shape (runs,)
        Running mean square of the gradient's norm; continued.
    edges, multipliers : ndarray
        Where the parts of a state begin that move at one rate, and where the last ends; multipliers of the rate.
    memory : tuple of float
        Decay and floor of that mean square for GroupRMSprop; a decay of 0 is the plain rule.
    steps : tuple of int
        First step, the one after the last, and the one from which none is taken.
    history : ndarray of shape (steps, runs)
        Sums of squared residuals before every step; after its end, a run's last.
    """
    floors, ceilings = bounds
    decay, least_root = memory
    first, until, last = steps
    for run in range(len(states)):
        state = states[run]
        for number in range(first, until):
            history[number - first, run] = _evaluate(state, gradient, forward, backward, work, observed, scale)
            square = history[number - first, run]
            if not floors[run] <= square <= ceilings[run]:
                history[number - first :, run] = square
                break
            if number >= last:
                continue
            size = rates[run]
            if decay:
                total = 0.0
                for i in range(gradient.size):
                    total += gradient[i] * gradient[i]
                average[run] = decay * average[run] + (1.0 - decay) * total
                size = rates[run] / (np.sqrt(average[run] / (1.0 - decay ** (number + 1))) + least_root)
            for part in range(len(multipliers)):
                factor = states.dtype.type(size * multipliers[part])
                kept = states.dtype.type(1.0 - size * multipliers[part] * weight_decay)
                for i in range(edges[part], edges[part + 1]):
                    state[i] = kept * state[i] - factor * gradient[i]


@compiled
def chebyshev(
    states: Numbers,
    fields: Numbers,
    forward: Places,
    backward: Places,
    work: Numbers,
    observed: Numbers,
    scale: float,
    edges: Places,
    multipliers: Numbers,
    weights: Numbers,
    stages: Places,
    room: Numbers,
    new_states: Numbers,
    new_fields: Numbers,
    found: Numbers,
) -> None:
    """Take one step of every run by the stages of `chebyshev.stage_weights`, and evaluate where it leads.

    Parameters
    ----------
    states, fields : ndarray of shape (runs, n_parameters)
        States, and right-hand sides there.
    edges, multipliers : ndarray
        Where the parts of a state begin that move at one rate, and where the last ends; the right-hand side is that
        many times minus the gradient.
    weights : ndarray of shape (runs, stages, 5)
    stages : ndarray of shape (runs,)
    room : ndarray of shape (n_parameters,)
    new_states, new_fields, found : ndarray
        Where a step leads, the right-hand side and the sum of squared residuals there.
    """
    kind = states.dtype.type
    for run in range(len(states)):
        state, field, gradient = states[run], fields[run], new_fields[run]
        # A stage is written over the one before the last.
        newer, stage = room, new_states[run]
        size = kind(weights[run, 1, 4])
        for i in range(state.size):
            newer[i] = state[i] + size * field[i]
        for number in range(2, stages[run] + 1):
            _evaluate(newer, gradient, forward, backward, work, observed, scale)
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
        if stages[run] % 2:
            new_states[run] = newer
        found[run] = _evaluate(new_states[run], gradient, forward, backward, work, observed, scale)
        for part in range(len(multipliers)):
            factor = kind(-multipliers[part])
            for i in range(edges[part], edges[part + 1]):
                gradient[i] *= factor


@compiled
def square_in_blocks(left: Numbers, right: Numbers, observed: Numbers, edges: Places, room: Numbers) -> float:
    """Sum of squared residuals of ``left right`` in the blocks of rows between `edges`."""
    total = 0.0
    for number in range(len(edges) - 1):
        first, end = edges[number], edges[number + 1]
        total += _block(left[first:end], right, observed[first:end], room[: end - first])
    return total


@compiled
def square_and_products_in_blocks(
    left: Numbers,
    right: Numbers,
    turned: Numbers,
    observed: Numbers,
    edges: Places,
    room: Numbers,
    times_right: Numbers,
    one: Numbers,
    transposed_times_left: Numbers,
) -> float:
    """The same, and with the residual ``R`` of these rows ``R right^T`` and ``left^T R``.

    Parameters
    ----------
    left, right : ndarray of shape (d, h) and (h, d_in)
    turned : ndarray of shape (d_in, h)
        ``right^T``.
    observed : ndarray of shape (d, d_in)
        Observed values; NaN elsewhere.
    edges : ndarray of int
        Where the blocks begin, and where the last ends.
    room : ndarray of shape (greatest height, d_in)
    times_right : ndarray of shape (d, h)
        The given rows are written.
    one, transposed_times_left : ndarray of shape (h, d_in)
        Room for what a block gives, and the sum of all.
    """
    total = 0.0
    for number in range(len(edges) - 1):
        first, end = edges[number], edges[number + 1]
        residual = room[: end - first]
        total += _block(left[first:end], right, observed[first:end], residual)
        np.dot(residual, turned, times_right[first:end])
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
