"""Compiled steps of descent and flow are those of tensor operations, and what is kept of them stays right."""

from __future__ import annotations

import inspect
import subprocess
import sys
from dataclasses import replace
from itertools import product

import pytest
import torch
from numba.core.dispatcher import Dispatcher

from dmfkit import (
    CompletionTask,
    Descent,
    Factorization,
    Flow,
    FullObservationTask,
    InputError,
    Loss,
    Status,
    full_widths,
    gradient_descent,
    gradient_flow,
    initialise,
)
from dmfkit.gradients import choice
from dmfkit.gradients import compiled_loops as loops
from dmfkit.gradients.choice import LONGEST, SHORTEST, Kernel, execution_for
from dmfkit.gradients.compiled import CompiledEvaluator
from dmfkit.linalg import compiled
from dmfkit.linalg import compiled_loops as entries

TASKS = {
    "completion": CompletionTask(d=12, rank=2, n_observed=90, target_norm=12.0),
    "full observation": FullObservationTask(d=12, rank=2, target_norm=12.0),
}
RULES = {
    "fixed": Descent(lr=2e-2, stop=1e-3, max_steps=700),
    "group_rmsprop": Descent(lr=2e-2, rule="group_rmsprop", stop=1e-3, max_steps=300),
    "decay": Descent(lr=2e-2, weight_decay=0.01, stop=1e-3, max_steps=120),
    "rates": Descent(lr=2e-2, factor_rates=(1.0, 0.5, 0.0), stop=1e-3, max_steps=700),
}
SCALES = [1.0, 0.3, 1000.0]  # the last one diverges


@pytest.fixture
def by_tensors(monkeypatch):
    """Let everything be evaluated by tensor operations."""

    def use():
        monkeypatch.setattr(choice, "kernel_for", lambda *_: Kernel.TENSORS)

    return use


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("task", TASKS)
def test_descent_takes_the_same_steps_as_by_tensor_operations(task, rule, dtype, by_tensors):
    precision = getattr(torch, dtype)
    problem = TASKS[task].problem().to("cpu", precision)
    start = initialise("gaussian", full_widths(problem.shape, 3), SCALES, range(3), dtype=precision)
    settings, accuracy = replace(RULES[rule], dtype=dtype), 1e-9 if dtype == "float64" else 1e-3
    ours = gradient_descent(problem, start, settings)
    by_tensors()
    theirs = gradient_descent(problem, start, settings)
    assert torch.equal(ours.status, theirs.status)
    assert torch.equal(ours.n_steps, theirs.n_steps)
    going = ours.status != Status.DIVERGED
    assert going[:2].all()
    for name in ("mean_square", "time"):
        torch.testing.assert_close(getattr(ours, name)[going], getattr(theirs, name)[going], rtol=accuracy, atol=0)
    mine, other = ours.factorization.state[going], theirs.factorization.state[going]
    assert torch.linalg.vector_norm(mine - other) <= accuracy * torch.linalg.vector_norm(other)


def test_runs_end_in_both_ways_above():
    found = set()
    for task, rule in product(TASKS, RULES):
        problem = TASKS[task].problem()
        start = initialise("gaussian", full_widths(problem.shape, 3), SCALES, range(3))
        found |= set(gradient_descent(problem, start, RULES[rule]).status.tolist())
    assert found == {int(Status.CONVERGED), int(Status.LIMIT), int(Status.DIVERGED)}


@pytest.mark.parametrize("depth", [1, 2])
def test_shallow_ones_are_trained_too(depth, by_tensors):
    problem = TASKS["completion"].problem()
    start = initialise("gaussian", full_widths(problem.shape, depth), [0.1, 0.2], range(2))
    settings = Descent(lr=1e-2, stop=0.0, max_steps=40)
    ours = gradient_descent(problem, start, settings).factorization.state
    by_tensors()
    torch.testing.assert_close(ours, gradient_descent(problem, start, settings).factorization.state)


@pytest.mark.parametrize("factor_rates", [(), (1.0, 0.5, 0.0)])
@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("task", TASKS)
def test_the_flow_takes_the_same_steps_as_by_tensor_operations(task, dtype, factor_rates, by_tensors):
    precision = getattr(torch, dtype)
    problem = TASKS[task].problem().to("cpu", precision)
    start = initialise("gaussian", full_widths(problem.shape, 3), [1.0, 0.3, 0.01], range(3), dtype=precision)
    # The last run is on its plateau when the time is over, or ends; runs need different numbers of stages.
    settings, accuracy = Flow(stop=1e-4, horizon=20.0), 1e-8 if dtype == "float64" else 1e-3
    found = []
    for change in (lambda: None, by_tensors):
        change()
        flow = {"record": (Loss(),), "record_at": (0.0, 1.0, 3.0), "factor_rates": factor_rates}
        found.append(gradient_flow(problem, start, settings, **flow))
    ours, theirs = found
    assert torch.equal(ours.status, theirs.status)
    assert torch.equal(ours.n_steps, theirs.n_steps)
    for name in ("time", "mean_square", "stable_lr"):
        torch.testing.assert_close(getattr(ours, name), getattr(theirs, name), rtol=10 * accuracy, atol=0)
    mine, other = ours.factorization.state, theirs.factorization.state
    assert torch.linalg.vector_norm(mine - other) <= accuracy * torch.linalg.vector_norm(other)
    recorded = (each.records["mean_square"] for each in found)
    torch.testing.assert_close(*recorded, rtol=10 * accuracy, atol=0, equal_nan=True)


@pytest.mark.parametrize("rule", ["fixed", "group_rmsprop"])
def test_the_length_of_blocks_changes_nothing(rule, monkeypatch):
    problem = TASKS["completion"].problem()
    start = initialise("gaussian", full_widths(problem.shape, 3), [1.0, 0.3], range(2))
    settings = replace(RULES[rule], max_steps=333)
    found = []
    for longest in (LONGEST, 7):
        monkeypatch.setattr(choice, "LONGEST", longest)
        found.append(gradient_descent(problem, start, settings))
    assert torch.equal(found[0].factorization.state, found[1].factorization.state)
    assert torch.equal(found[0].n_steps, found[1].n_steps)


def test_blocks_are_long_for_small_factors_and_short_for_large_ones():
    found = []
    for d in (4, 100, 600):
        problem = CompletionTask(d=d, rank=2, n_observed=d * d // 2).problem()
        found.append(execution_for(problem, full_widths(problem.shape, 3), 1).block)
    assert found == sorted(found, reverse=True)
    assert (found[0], found[-1]) == (LONGEST, SHORTEST)


def test_memory_that_is_not_as_it_should_be_is_refused():
    problem = TASKS["completion"].problem()
    evaluator, state = CompiledEvaluator(problem, (12, 3, 12)), torch.ones(4, 72, dtype=torch.float64)
    with pytest.raises(InputError, match=r"factors are torch\.float32, but the observations torch\.float64"):
        gradient_descent(problem, Factorization(state.float(), (12, 3, 12)), Descent())
    for wrong in (state[:, :71].contiguous(), state.mT.contiguous().mT, state[:, None]):
        with pytest.raises(ValueError, match="no batch of states"):
            evaluator.squares_and_gradient(state, wrong)
        with pytest.raises(ValueError, match="no batch of states"):
            evaluator.squares_and_gradient(wrong, state)
    with pytest.raises(ValueError, match=r"do not give \(12, 12\) matrices"):
        CompiledEvaluator(problem, (12, 3, 11))


def test_compiled_functions_call_those_of_their_own_file_only():
    # What Numba keeps on disk is made anew when that file has changed, whatever else has.
    called = 0
    for module in (loops, entries):
        for function in vars(module).values():
            if isinstance(function, Dispatcher):
                names = inspect.getclosurevars(function.py_func).globals.values()
                others = [other for other in names if isinstance(other, Dispatcher)]
                assert all(other.py_func.__module__ == module.__name__ for other in others)
                called += len(others)
    assert called > 5


def test_functions_are_compiled_where_nothing_can_be_kept(monkeypatch):
    plain = compiled.njit

    def nowhere(**options):
        if options.get("cache"):
            raise RuntimeError("cannot cache function: no locator available")
        return plain(**options)

    monkeypatch.setattr(compiled, "njit", nowhere)
    assert compiled.compiled(lambda x: x + 1)(2) == 3


@pytest.mark.slow
def test_what_is_compiled_is_found_again():
    code = (
        "import time, dmfkit as dm\n"
        "problem = dm.CompletionTask(d=12, rank=2, n_observed=90).problem()\n"
        "start = dm.initialise('gaussian', (12, 12, 12), [0.1], [0])\n"
        "dm.gradient_descent(problem, start, dm.Descent(max_steps=3))\n"
        "from dmfkit.gradients import compiled_loops as loops\n"
        "print(sum(loops.descend.stats.cache_misses.values()), sum(loops.descend.stats.cache_hits.values()))"
    )
    for _ in range(2):
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["0", "1"]
