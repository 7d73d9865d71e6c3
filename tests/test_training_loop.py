"""One loop for every method: descent and flow are trained, watched and told what to do in the same words."""

from __future__ import annotations

import ast
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path

import pytest
import torch

import dmfkit as dm
from dmfkit.gradients.choice import Kernel, Sharing, execution_for
from dmfkit.gradients.threads import Workers
from dmfkit.training import descent
from dmfkit.training.loop import (
    PER_RUN,
    ActiveRuns,
    Record,
    per_run_fields,
    per_run_settings,
    shared_settings,
    train,
)

ROOT = Path(__file__).parent.parent
TASK = dm.CompletionTask(d=12, rank=2, n_observed=90)
WIDTHS = dm.full_widths((12, 12), 3)
METHODS = [
    dm.Descent(lr=5e-3, stop=1e-4, max_steps=900),
    dm.Descent(lr=5e-3, stop=1e-4, max_steps=400, rule="group_rmsprop"),
    dm.Flow(stop=1e-4, horizon=20.0),
]


def start(scales=(1.0, 0.3, 0.01)):
    return dm.initialise("gaussian", WIDTHS, list(scales), range(len(scales)))


def advanced(method, at_most=None, **options):
    """Train by hand; return the result, and what was seen before every advance."""
    runs, seen = ActiveRuns(TASK.problem(), start()), []
    with Workers(execution_for(TASK.problem(), WIDTHS, 3)) as workers, workers.library_threads():
        training = method.start(runs, workers, **options)
        while training.running:
            columns, squares = training.columns(), training.squares()
            assert training.runs is runs
            assert len(training.state) == len(squares) == len(runs) == len(runs.ids)
            assert {name: len(value) for name, value in columns.items()} == dict.fromkeys(columns, len(runs))
            seen.append((runs.ids.tolist(), training.state.clone(), squares.clone(), columns["n_steps"].tolist()))
            training.advance(at_most)
        return training.result(), seen


@pytest.mark.parametrize("method", METHODS, ids=str)
def test_both_methods_are_advanced_in_the_same_way(method):
    whole, (found, seen) = train(TASK.problem(), start(), method), advanced(method)
    assert torch.equal(whole.factorization.state, found.factorization.state)
    for name in ("status", "n_steps", "n_evaluations", "time", "mean_square"):
        assert torch.equal(getattr(whole, name), getattr(found, name)), name
    assert seen[0][0] == [0, 1, 2]
    problem = TASK.problem()
    for _, state, squares, _ in seen:
        product = dm.Factorization(state, WIDTHS).end_to_end()
        expected = problem.loss(product, "mean") / problem.loss_scale("mean")
        torch.testing.assert_close(squares, expected, rtol=1e-12, atol=0)


@pytest.mark.parametrize("method", METHODS, ids=str)
def test_no_more_steps_are_taken_than_are_allowed_and_they_are_the_same(method):
    whole, (found, seen) = train(TASK.problem(), start(), method), advanced(method, at_most=7)
    assert torch.equal(whole.factorization.state, found.factorization.state)
    for (ids, _, _, before), (later, _, _, after) in pairwise(seen):
        taken = dict(zip(ids, before, strict=True))
        assert all(0 <= steps - taken[run] <= 7 for run, steps in zip(later, after, strict=True))


@pytest.mark.parametrize("method", METHODS[::2], ids=str)
def test_rates_of_factors_are_given_to_both_methods_in_the_same_way(method):
    # A first factor that does not move.
    result = train(TASK.problem(), start(), method, factor_rates=(0.0, 1.0, 0.5))
    # But for rounding: a stage of the flow is a sum with weights that add to one.
    torch.testing.assert_close(result.factorization.factors[0], start().factors[0], rtol=1e-12, atol=0)
    assert not torch.allclose(result.factorization.factors[1], start().factors[1])
    with pytest.raises(dm.InputError, match="2 factor_rates were given for depth 3"):
        train(TASK.problem(), start(), method, factor_rates=(1.0, 1.0))
    with pytest.raises(dm.InputError, match="asks for"):
        train(dm.CompletionTask(d=13, rank=2, n_observed=90).problem(), start(), method)


def test_rates_that_are_given_take_the_place_of_those_of_the_method():
    method = replace(METHODS[0], factor_rates=(0.0, 1.0, 1.0))
    own, given = (train(TASK.problem(), start(), method, factor_rates=rates) for rates in ((), (1.0, 0.0, 1.0)))
    assert torch.equal(own.factorization.factors[0], start().factors[0])
    assert torch.equal(given.factorization.factors[1], start().factors[1])
    assert not torch.equal(given.factorization.factors[0], start().factors[0])


@pytest.mark.parametrize("method", METHODS[::2], ids=str)
def test_moments_and_ends_are_kept_in_the_same_way(method):
    ended = []
    record = Record((dm.Loss(),), (0, 1, 10**9), ended.append)
    result = train(TASK.problem(), start(), method, record=record)
    assert sum(ended) == 3
    losses = result.records["mean_square"]
    torch.testing.assert_close(losses[:, 0], TASK.problem().loss(start().end_to_end(), "mean"), rtol=1e-12, atol=0)
    assert (losses[:, 1] < losses[:, 0]).all()
    assert losses[:, 2].isnan().all()


def test_settings_that_differ_between_runs_are_declared():
    methods = [dm.Descent(lr=lr, stop=1e-3) for lr in (1e-3, 2e-3, 5e-3)]
    assert per_run_fields(methods[0]) == ("lr",)
    assert per_run_settings(methods) == {"lr": [1e-3, 2e-3, 5e-3]}
    assert len({shared_settings(method) for method in methods}) == 1
    assert shared_settings(methods[0]) != shared_settings(replace(methods[0], stop=1e-4))
    assert per_run_fields(dm.Flow()) == ()
    assert per_run_settings([dm.Flow()] * 2) == {}
    assert shared_settings(dm.Flow(rtol=1e-4)) == dm.Flow(rtol=1e-4)

    @dataclass(frozen=True)
    class Other(dm.Flow):
        seed: int = field(default=3, metadata=PER_RUN)

    assert per_run_settings([Other(seed=1), Other(seed=2)]) == {"seed": [1, 2]}


def test_a_run_is_trained_by_its_own_settings():
    rates = [1e-3, 2e-3, 5e-3]
    together = train(TASK.problem(), start(), dm.Descent(max_steps=60), per_run={"lr": rates})
    for run, lr in enumerate(rates):
        one = dm.Factorization(start().state[run : run + 1], WIDTHS)
        alone = train(TASK.problem(), one, dm.Descent(lr=lr, max_steps=60))
        assert torch.equal(alone.factorization.state[0], together.factorization.state[run])
    with pytest.raises(dm.InputError, match="2 values of lr were given for 3 runs: give one per run"):
        train(TASK.problem(), start(), dm.Descent(), per_run={"lr": [1e-3, 1e-3]})
    with pytest.raises(dm.InputError, match=r"lr = -1\.0 is not allowed"):
        train(TASK.problem(), start(), dm.Descent(), per_run={"lr": [1e-3, -1.0, 1e-3]})


def test_a_stable_rate_is_measured_when_somebody_asks(monkeypatch):
    asked, plain = [], descent.largest_stable_lr

    def counted(*arguments, **options):
        asked.append(len(arguments[1].state))
        return plain(*arguments, **options)

    monkeypatch.setattr(descent, "largest_stable_lr", counted)
    result = dm.gradient_descent(TASK.problem(), start(), dm.Descent(max_steps=300), lr=[1e3, 1e-3, 1e-3])
    assert result.status.tolist() == [dm.Status.DIVERGED, dm.Status.LIMIT, dm.Status.LIMIT]
    assert "raise the limit" in result.advice(1)
    assert not asked
    assert f"lower lr below {float(result.stable_lr[0]):.2g}" in result.advice(0)
    assert asked == [1]
    assert result.stable_lr.isnan().tolist() == [False, True, True]
    # A dataset has nothing that could be asked later: a sweep asks at once.
    dataset = dm.sweep(TASK, dm.Start(init_scale=1.0), dm.Descent(lr=1e3, max_steps=300), seed=(0,), device="cpu")
    assert asked == [1, 1]
    assert float(dataset["stable_lr"][0]) == float(result.stable_lr[0])


@pytest.mark.parametrize(
    ("task", "widths", "kernel", "sharing"),
    [
        (dm.CompletionTask(d=60, rank=2, n_observed=900), (60,) * 4, Kernel.LOOPS, Sharing.RUNS),
        (dm.CompletionTask(d=210, rank=2, n_observed=9000), (210,) * 3, Kernel.LOOPS, Sharing.RUNS_OR_PRODUCTS),
        (dm.SensingTask(d=12, rank=1, n_observed=30), (12,) * 3, Kernel.TENSORS, Sharing.PRODUCTS),
        (dm.FullObservationTask(d=520, rank=2), (520, 4, 520), Kernel.BLOCKS, Sharing.PIECES),
        (dm.CompletionTask(d=520, rank=2, n_observed=2000), (520, 4, 520), Kernel.ENTRIES, Sharing.PIECES),
        (dm.SparseCompletionTask(d=520, rank=2, n_observed=2000), (520, 4, 520), Kernel.ENTRIES, Sharing.PIECES),
    ],
)
def test_how_a_batch_is_evaluated_is_one_decision(threads, task, widths, kernel, sharing):
    problem = task.problem()
    threads(2)
    execution = execution_for(problem, widths, 5)
    assert (execution.kernel, execution.sharing, execution.threads) == (kernel, sharing, 2)
    assert execution.of(3) == replace(execution, n_runs=3)
    threads(1)
    alone = execution_for(problem, widths, 5)
    assert (alone.kernel, alone.sharing, alone.threads) == (kernel, Sharing.NOTHING, 1)
    assert alone.batches == alone.parts_at_once == 1


def test_nobody_asks_which_method_it_is():
    asked = []
    for folder in ("dmfkit", "bookbuild", "benchmarks"):
        for path in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                is_question = isinstance(node, ast.Call) and getattr(node.func, "id", "") in (
                    "isinstance",
                    "issubclass",
                )
                if is_question or isinstance(node, ast.MatchClass):
                    kinds = node.args[1:] if isinstance(node, ast.Call) else [node.cls]
                    names = {
                        getattr(part, "id", getattr(part, "attr", "")) for kind in kinds for part in ast.walk(kind)
                    }
                    if names & {"Descent", "Flow", "Method", "DescentTraining", "FlowTraining"}:
                        asked.append(f"{path.relative_to(ROOT)}:{node.lineno}")
    assert not asked
