"""On a GPU nothing is asked of the device within a block of steps: shown where there are no numbers to look at.

Tensors on PyTorch's device "meta" have shapes and no values: whatever would have to wait for a number, such as a test
of a condition or a choice by a mask, raises an error there.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch

from dmfkit import CompletionTask, Factorization, FullObservationTask, SensingTask, initialise
from dmfkit.gradients.choice import evaluator_for, execution_for
from dmfkit.gradients.evaluator import DescentRule
from dmfkit.gradients.threads import Workers
from dmfkit.training.chebyshev import chebyshev_step
from dmfkit.training.descent_batch import DescentTraining
from dmfkit.training.loop import ActiveRuns

NOWHERE = torch.device("meta")
TASKS = {
    "completion": CompletionTask(d=12, rank=1, n_observed=80),
    "few entries": CompletionTask(d=40, rank=1, n_observed=80),
    "sensing": SensingTask(d=12, rank=1, n_observed=30),
    "full observation": FullObservationTask(d=12, rank=1),
}
DEPTH, N_RUNS = 3, 2


def problem_and_start(name):
    problem = TASKS[name].problem().to(NOWHERE)
    widths = (problem.shape[0],) * (DEPTH + 1)
    return problem, widths, initialise("gaussian", widths, [0.1] * N_RUNS, range(N_RUNS)).state.to(NOWHERE)


@pytest.mark.parametrize("rule", ["fixed", "group_rmsprop"])
@pytest.mark.parametrize("name", TASKS)
def test_a_block_of_descent_looks_at_no_number(name, rule):
    problem, widths, state = problem_and_start(name)
    rates = torch.empty(N_RUNS, dtype=state.dtype, device=NOWHERE)
    runs, settings = ActiveRuns(problem, Factorization(state, widths)), DescentRule(rule, (1.0, 0.1, 1.0), 0.1, 100)
    with Workers(execution_for(problem, widths, N_RUNS)) as workers, workers.library_threads():
        training = DescentTraining(runs, workers, settings, rates, 1e-6)
        squares = training._descend(range(20))
    assert squares.device == NOWHERE
    assert squares.shape == (N_RUNS,)


@pytest.mark.parametrize("name", TASKS)
def test_the_stages_of_a_step_of_the_flow_look_at_no_number(name):
    problem, widths, state = problem_and_start(name)
    evaluator, calls = evaluator_for(problem, widths, N_RUNS), []

    def field(y):
        slope = torch.empty_like(y)
        calls.append(evaluator.squares_and_gradient(y, slope))
        return slope.neg_()

    # Each run has its own number of stages, which the host knows.
    moved = chebyshev_step(field, state, field(state), np.array([0.1, 0.05]), np.array([7, 4]))
    assert moved.device == NOWHERE
    assert len(calls) == 7


def test_there_is_nothing_to_look_at():
    with pytest.raises(RuntimeError, match="meta"):
        bool(torch.empty((), device=NOWHERE) > 0)
    with pytest.raises(RuntimeError, match=r"[Mm]eta"):
        torch.empty(3, device=NOWHERE)[torch.empty(3, device=NOWHERE) > 0]
