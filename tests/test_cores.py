"""Training on several cores: the same numbers to the bit, and nothing left changed."""

from __future__ import annotations

import threading
import time
import warnings

import pytest
import torch
from processes import PATIENCE
from threadpoolctl import threadpool_info

from dmfkit import (
    CompletionTask,
    Descent,
    Factorization,
    Flow,
    RelativeError,
    SensingTask,
    Status,
    full_widths,
    gradient_descent,
    gradient_flow,
    initialise,
)
from dmfkit.gradients.choice import execution_for
from dmfkit.gradients.tensors import Evaluator
from dmfkit.gradients.threads import Workers
from dmfkit.linalg.backend import BY_NUMPY, BY_TORCH, ONE_THREAD, sum_of_squares
from dmfkit.training.descent import BACK
from dmfkit.training.flow import largest_stable_lr
from dmfkit.training.result import joined

pytestmark = pytest.mark.slow

TASK = CompletionTask(d=60, rank=2, n_observed=900)
WIDTHS = full_widths(TASK.shape, 3)
SCALES = [10.0**-k for k in range(1, 13)]


def blas_threads():
    return {library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"}


def start():
    return initialise("gaussian", WIDTHS, SCALES, range(len(SCALES)))


def assert_same(one, other):
    assert torch.equal(one.factorization.state, other.factorization.state)
    for name in ("status", "n_steps", "n_evaluations", "time", "mean_square"):
        assert torch.equal(getattr(one, name), getattr(other, name)), name
    for name, value in one.records.items():
        torch.testing.assert_close(other.records[name], value, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize(("rule", "lr"), [("fixed", 2e-3), ("group_rmsprop", 0.2)])
def test_descent_gives_the_same_numbers_on_any_number_of_cores(threads, rule, lr):
    settings = Descent(lr=lr, rule=rule, stop=1e-2, max_steps=420)
    results = []
    for number in (1, 2, 3):
        threads(number)
        ended = []
        results.append(
            gradient_descent(
                TASK.problem(),
                start(),
                settings,
                record=(RelativeError(),),
                record_at=(0, 7, 200),
                on_end=ended.append,
            )
        )
        assert sum(ended) == len(SCALES)
        assert torch.get_num_threads() == number
    assert len(set(results[0].n_steps.tolist())) > 1, "some runs should end early"
    for other in results[1:]:
        assert_same(results[0], other)


def test_the_flow_gives_the_same_numbers_on_any_number_of_cores(threads):
    results = []
    for number in (1, 2, 3):
        threads(number)
        ended = []
        results.append(
            gradient_flow(
                TASK.problem(),
                start(),
                Flow(stop=1e-3, max_evaluations=160),
                record=(RelativeError(),),
                record_at=(0.0, 0.05, 5.0),
                on_end=ended.append,
            )
        )
        assert sum(ended) == len(SCALES)
    for other in results[1:]:
        assert_same(results[0], other)


def test_where_a_run_diverges_the_same_is_measured_on_any_number_of_cores(threads):
    found, late, early = [], 5, 0
    rates = [2e-2 if run in (late, early) else 1e-4 for run in range(len(SCALES))]
    for number in (1, 2, 3):
        threads(number)
        found.append(gradient_descent(TASK.problem(), start(), Descent(max_steps=4000), lr=rates))
    threads(1)
    one = Factorization(start().state[late : late + 1], WIDTHS)
    alone = gradient_descent(TASK.problem(), one, Descent(max_steps=4000), lr=rates[late : late + 1])
    diverged = found[0].status == int(Status.DIVERGED)
    assert torch.nonzero(diverged).flatten().tolist() == [early, late]
    assert int(found[0].n_steps[late]) > 2 * BACK > 2 * int(found[0].n_steps[early])
    assert torch.isnan(found[0].stable_lr[~diverged]).all()
    for other in found[1:]:
        assert torch.equal(other.stable_lr[diverged], found[0].stable_lr[diverged])
    assert torch.equal(alone.stable_lr, found[0].stable_lr[late : late + 1])
    # As from the state itself.
    steps = int(alone.n_steps[0]) // BACK * BACK
    before = gradient_descent(TASK.problem(), one, Descent(lr=rates[late], max_steps=steps)).factorization
    assert torch.equal(largest_stable_lr(TASK.problem(), before), alone.stable_lr)


def test_a_run_computes_the_same_alone_and_in_a_batch():
    settings = Descent(lr=2e-3, stop=1e-3, max_steps=120)
    batch = gradient_descent(TASK.problem(), start(), settings)
    alone = gradient_descent(TASK.problem(), Factorization(start().state[3:4], WIDTHS), settings)
    assert torch.equal(batch.factorization.state[3:4], alone.factorization.state)


@pytest.mark.parametrize("number", [1, 2])
def test_a_diverging_run_is_no_warning(threads, number):
    threads(number)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result = gradient_descent(TASK.problem(), start(), Descent(lr=1e3, max_steps=100))
    assert Status.DIVERGED in result.status.tolist()


def test_threads_are_given_where_they_are_worth_it_and_set_back(threads):
    threads(2)
    before = blas_threads()
    small, large = full_widths((20, 20), 2), full_widths((250, 250), 2)
    for d, widths, parts in ((60, WIDTHS, 2), (20, small, 1), (250, large, 1)):
        problem = CompletionTask(d=d, rank=2, n_observed=d * d // 2).problem()
        execution = execution_for(problem, widths, 2 if d != 60 else 12)
        assert execution.batches == parts
        with Workers(execution) as workers, workers.library_threads():
            assert torch.get_num_threads() == 1
            if d != 250:
                assert blas_threads() == {1}
            else:
                assert blas_threads() == before
        assert torch.get_num_threads() == 2
        assert blas_threads() == before


def test_large_runs_are_side_by_side_while_they_occupy_the_cores(threads):
    threads(2)
    before, d = blas_threads(), 210
    problem, widths = CompletionTask(d=d, rank=2, n_observed=d * d // 2).problem(), full_widths((d, d), 2)
    execution = execution_for(problem, widths, 9)
    with Workers(execution) as workers, workers.library_threads():
        for left, parts in ((9, 2), (5, 1), (4, 2), (3, 1), (2, 2), (1, 1)):
            assert execution.of(left).parts == execution.of(left).parts_at_once == parts
            for seen in workers.map(lambda _: blas_threads(), range(parts)):
                assert seen == ({1} if parts == 2 else before)
            assert blas_threads() == before
    assert blas_threads() == before
    # A flow keeps its runs to the end.
    assert execution.of(5).batches == execution.of(9).batches == 1
    # The same but for rounding, whenever the others end.
    start = initialise("gaussian", widths, [1.0, 1.0, 0.1, 1e-4], range(4))
    settings = Descent(lr=1e-3, stop=3e-1, max_steps=150)
    batch = gradient_descent(problem, start, settings)
    assert len(set(batch.n_steps.tolist())) > 2
    for run in range(4):
        alone = gradient_descent(problem, Factorization(start.state[run : run + 1], widths), settings)
        assert int(alone.n_steps[0]) == int(batch.n_steps[run])
        torch.testing.assert_close(alone.factorization.state[0], batch.factorization.state[run], rtol=1e-9, atol=1e-12)


def test_an_error_in_a_part_stops_the_others_and_is_raised(threads):
    threads(2)
    with Workers(execution_for(TASK.problem(), WIDTHS, 2)) as workers, workers.library_threads():

        def work(part):
            if part == 0:
                raise KeyboardInterrupt
            began = time.perf_counter()
            while not workers.stop.is_set():
                assert time.perf_counter() - began < PATIENCE
                time.sleep(0.01)

        with pytest.raises(KeyboardInterrupt):
            workers.map(work, (0, 1))
    assert torch.get_num_threads() == 2


def test_runs_of_several_results_stand_together():
    problem, settings = TASK.problem(), Flow(horizon=0.1)
    first = gradient_flow(problem, Factorization(start().state[:1], WIDTHS), settings)
    second = gradient_flow(
        problem, Factorization(start().state[1:3], WIDTHS), settings, record=(RelativeError(),), record_at=(0.0,)
    )
    both = joined([first, second])
    assert both.factorization.n_runs == len(both.n_steps) == 3
    assert torch.isnan(both.records["relative_error"][:1]).all()
    assert torch.equal(both.records["relative_error"][1:], second.records["relative_error"])


@pytest.mark.parametrize("shape", [(3, 7, 5), (2, 100, 101), (1, ONE_THREAD + 1, 2)])
def test_sums_of_squares_are_right(shape):
    values = torch.randn(*shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    torch.testing.assert_close(sum_of_squares(values), values.square().sum(dim=(1, 2)), rtol=1e-13, atol=0)
    torch.testing.assert_close(
        sum_of_squares(values[:, 1:]), values[:, 1:].square().sum(dim=(1, 2)), rtol=1e-13, atol=0
    )


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_the_two_libraries_multiply_alike(dtype):
    left, right = torch.randn(2, 4, 9, 9, generator=torch.Generator().manual_seed(0), dtype=dtype)
    for first, second in ((left, right), (left.mT, right), (left, right.mT)):
        products = []
        for library in (BY_NUMPY, BY_TORCH):
            out = torch.empty(4, 9, 9, dtype=dtype)
            library.multiply(library.operand(first), library.operand(second), out=library.operand(out))
            products.append(out)
        torch.testing.assert_close(products[0], products[1])


def test_training_leaves_no_thread_behind(threads):
    threads(2)
    before = set(threading.enumerate())
    gradient_descent(TASK.problem(), start(), Descent(max_steps=60))
    assert set(threading.enumerate()) == before


@pytest.mark.parametrize("train", ["descent", "flow"])
def test_runs_that_end_leave_no_memory_behind(threads, train, monkeypatch):
    threads(1)
    # Evaluated by tensor operations, which remember their operands.
    problem = SensingTask(d=WIDTHS[0], rank=2, n_observed=700, target_norm=1.0).problem()
    plain, seen = Evaluator.squares_and_gradient, set()

    def watched(evaluator, state, out):
        seen.update(tensor.untyped_storage().data_ptr() for tensor in (state, out))
        return plain(evaluator, state, out)

    monkeypatch.setattr(Evaluator, "squares_and_gradient", watched)
    if train == "descent":
        result = gradient_descent(problem, start(), Descent(lr=8e-4, stop=3e-2, max_steps=300))
        memories = 2  # state and gradient
    else:
        # A tolerance that lets some steps fail.
        result = gradient_flow(problem, start(), Flow(rtol=0.5, stop=1e-3, max_evaluations=2000))
        memories = 5  # two of states, two of right-hand sides, and two stages in one
    assert len(set(result.n_steps.tolist())) > 3
    assert len(seen) == memories
