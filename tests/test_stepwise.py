"""A run watched in slices takes the very steps of a run in one go."""

import threading
from itertools import pairwise

import pytest
import torch

import dmfkit as dm
from dmfkit.training.loop import train
from dmfkit.training.stepping import watch

TASK = dm.CompletionTask(d=12, rank=2, n_observed=90)


def start(depth=3, seed=0):
    return dm.Start(depth=depth, init_scale=1e-2, seed=seed).begin(TASK.problem()).factorization


@pytest.mark.parametrize("seconds", [0.0, 10.0])
def test_descent_in_slices_is_descent(seconds):
    method = dm.Descent(lr=5e-3, max_steps=2_000)
    whole = dm.gradient_descent(TASK.problem(), start(), method)
    seen = list(watch(TASK.problem(), start(), method, seconds=seconds))
    assert torch.equal(seen[-1].factorization.state, whole.factorization.state)
    assert seen[-1].status == dm.Status(int(whole.status[0]))
    assert seen[-1].n_steps == int(whole.n_steps[0])
    assert seen[-1].time == pytest.approx(float(whole.time[0]), rel=1e-12)
    assert [one.status for one in seen[:-1]] == [None] * (len(seen) - 1)
    assert seen[0].n_steps == 0
    assert torch.equal(seen[0].factorization.state, start().state)


@pytest.mark.parametrize("seconds", [0.0, 10.0])
def test_the_flow_in_slices_is_the_flow(seconds):
    method = dm.Flow(stop=1e-8)
    whole = dm.gradient_flow(TASK.problem(), start(), method)
    seen = list(watch(TASK.problem(), start(), method, seconds=seconds))
    assert torch.equal(seen[-1].factorization.state, whole.factorization.state)
    assert seen[-1].status is dm.Status.CONVERGED
    assert seen[-1].n_evaluations == int(whole.n_evaluations[0])
    assert len(seen) > 3 or seconds > 0
    assert all(later.n_evaluations > earlier.n_evaluations for earlier, later in pairwise(seen[:-1]))


def test_a_step_limit_ends_the_run_where_it_says():
    seen = list(watch(TASK.problem(), start(), dm.Descent(lr=5e-3, max_steps=123), seconds=0.0))
    assert (seen[-1].n_steps, seen[-1].status) == (123, dm.Status.LIMIT)


def test_a_rate_that_is_too_large_diverges_in_slices_too():
    seen = list(watch(TASK.problem(), start(), dm.Descent(lr=10.0, max_steps=10_000)))
    assert seen[-1].status is dm.Status.DIVERGED
    assert seen[-1].n_steps < 10_000


def test_compressed_starts_keep_their_rates():
    begin = dm.CompressedStart(depth=3, layer_scale=0.1, rank_bound=2, discrepant_rate=0.1).begin(TASK.problem())
    method = dm.Descent(lr=1e-2, max_steps=300)
    whole = dm.gradient_descent(
        begin.problem,
        begin.factorization,
        dm.Descent(lr=1e-2, max_steps=300, factor_rates=begin.factor_rates),
    )
    *_, last = watch(begin.problem, begin.factorization, method, factor_rates=begin.factor_rates)
    assert torch.equal(last.factorization.state, whole.factorization.state)


@pytest.mark.parametrize("method", [dm.Descent(lr=5e-3, max_steps=300, rule="group_rmsprop"), dm.Flow()])
def test_what_is_seen_is_where_the_run_is(method):
    problem = TASK.problem()
    seen = list(watch(problem, start(), method, seconds=0.0))
    for one in seen:
        loss = float(problem.loss(one.factorization.end_to_end(), "mean")[0])
        assert one.mean_square == pytest.approx(loss, rel=1e-12)
    assert (seen[0].n_evaluations, seen[0].time) == (1, 0.0)
    whole = train(problem, start(), method)
    assert torch.equal(seen[-1].factorization.state, whole.factorization.state)
    assert (seen[-1].n_steps, seen[-1].n_evaluations) == (int(whole.n_steps[0]), int(whole.n_evaluations[0]))


def test_watching_leaves_the_threads_to_who_watches(threads):
    threads(2)
    seen = watch(TASK.problem(), start(), dm.Descent(max_steps=200), seconds=0.0)
    before = threading.active_count()
    for _, _ in zip(range(3), seen, strict=False):
        assert torch.get_num_threads() == 2
    seen.close()
    assert threading.active_count() == before


def test_more_than_one_run_is_refused():
    two = dm.initialise("gaussian", dm.full_widths((12, 12), 2), [1e-2, 1e-2], [0, 1])
    with pytest.raises(dm.InputError, match="2 runs were given: one run at a time"):
        watch(TASK.problem(), two, dm.Flow())
