"""The flow integrator: its order, its stability, and the flow's own laws."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp

from dmfkit import (
    Alignment,
    Descent,
    Factorization,
    Flow,
    InputError,
    Loss,
    SingularValues,
    Status,
    full_widths,
    gradient_descent,
    gradient_flow,
    initialise,
    matrix_completion,
    random_low_rank,
)
from dmfkit.gradients.tensors import Evaluator
from dmfkit.training.chebyshev import DAMPING, chebyshev_step, coefficients, stages_for


def reference(problem, start, horizon):
    """The flow by SciPy's DOP853 at tight tolerance, one run at a time."""
    finals = []
    for run in range(start.n_runs):
        evaluator = Evaluator(problem, start.widths, 1)

        def field(_, y, evaluator=evaluator):
            state, out = torch.from_numpy(y).unsqueeze(0), torch.empty(1, len(y), dtype=torch.float64)
            evaluator.squares_and_gradient(state, out)
            return -out[0].numpy()

        done = solve_ivp(field, (0.0, horizon), start.state[run].numpy(), method="DOP853", rtol=1e-12, atol=1e-13)
        finals.append(torch.from_numpy(done.y[:, -1]))
    return torch.stack(finals)


def test_agrees_with_dop853_at_tight_tolerance(small_completion, small_start):
    horizon = 3.0
    result = gradient_flow(small_completion, small_start, Flow(rtol=1e-8, stop=0.0, horizon=horizon))
    expected = reference(small_completion, small_start, horizon)
    assert (result.status == Status.HORIZON).all()
    assert torch.linalg.vector_norm(result.factorization.state - expected) <= 1e-6 * torch.linalg.vector_norm(expected)


def test_observed_order_of_a_step_is_two(small_completion, small_start):
    horizon, stages = 1.0, 6
    evaluator = Evaluator(small_completion, small_start.widths, small_start.n_runs)

    def field(y):
        out = torch.empty_like(y)
        evaluator.squares_and_gradient(y, out)
        return out.neg_()

    expected = reference(small_completion, small_start, horizon)
    errors, counts = [], np.array([40, 80, 160, 320])
    for count in counts:
        y, h = small_start.state.clone(), np.full(2, horizon / count)
        for _ in range(count):
            y = chebyshev_step(field, y, field(y), h, np.full(2, stages))
        errors.append(float(torch.linalg.vector_norm(y - expected)))
    order = -np.polyfit(np.log(counts), np.log(errors), 1)[0]
    assert abs(order - 2.0) <= 0.2, errors


@pytest.mark.parametrize("stages", [2, 3, 5, 10, 50, 200])
def test_a_step_is_stable_where_the_number_of_stages_says_so(stages):
    # Linear test problems y' = -x y with h = 1: the step must not grow for any x up to the bound, and must well
    # beyond the end of the stability interval, about 2/3 (s^2 - 1)(1 - 2/15 eps): the bound is no blank cheque.
    end = 2 / 3 * (stages**2 - 1) * (1 - 2 / 15 * DAMPING)
    allowed = ((stages - 1) ** 2 - 1) / 1.54
    x = torch.linspace(0.0, max(allowed, 1e-3), 2001, dtype=torch.float64).unsqueeze(1)
    y = torch.ones_like(x)
    grown = chebyshev_step(lambda z: -x * z, y, -x * y, np.ones(len(x)), np.full(len(x), stages))
    assert grown.abs().max() <= 1.0 + 1e-9
    assert allowed <= end
    beyond = torch.full((1, 1), 1.5 * end, dtype=torch.float64)
    one = torch.ones(1, 1, dtype=torch.float64)
    blown = chebyshev_step(lambda z: -beyond * z, one, -beyond * one, np.ones(1), np.array([stages]))
    assert blown.abs().item() > 1.0


def test_stages_cover_the_step():
    reach = np.array([0.0, 0.5, 1.9, 10.0, 1e4])
    stages = stages_for(reach)
    assert (((stages - 1) ** 2 - 1) / 1.54 <= np.maximum(reach, 0.0) + (2 * stages) / 1.54).all()  # not many too many
    assert (2 / 3 * (stages**2 - 1) * (1 - 2 / 15 * DAMPING) >= reach).all()
    assert stages.min() >= 2
    assert coefficients(7).stages == 7


def test_descent_converges_to_the_flow_linearly_in_lr(small_completion, small_start):
    horizon = 2.0
    limit = gradient_flow(small_completion, small_start, Flow(rtol=1e-8, stop=0.0, horizon=horizon)).factorization.state
    counts = np.array([200, 400, 800, 1600])
    errors = []
    for count in counts:
        settings = Descent(lr=horizon / count, stop=0.0, max_steps=int(count))
        found = gradient_descent(small_completion, small_start, settings).factorization.state
        errors.append(float(torch.linalg.vector_norm(found - limit)))
    slope = -np.polyfit(np.log(counts), np.log(errors), 1)[0]
    assert abs(slope - 1.0) <= 0.1, errors


def test_the_flow_conserves_the_balance_of_neighbours(small_completion, small_start):
    def invariants(factorization):
        factors = factorization.factors
        return torch.stack([left.mT @ left - right @ right.mT for right, left in pairwise(factors)])

    before = invariants(small_start)
    result = gradient_flow(small_completion, small_start, Flow(rtol=1e-8, stop=1e-10))
    after = invariants(result.factorization)
    # The integrator conserves them to its own accuracy: 1e-8 a step over some hundred steps of unequal error.
    assert torch.linalg.vector_norm(after - before) <= 1e-5 * torch.linalg.vector_norm(before)
    coarse = gradient_descent(small_completion, small_start, Descent(lr=0.02, stop=1e-10))
    drift = torch.linalg.vector_norm(invariants(coarse.factorization) - before)
    assert drift > 100 * torch.linalg.vector_norm(after - before)  # descent at a finite step does not


def test_the_loss_never_rises(small_completion, small_start):
    times = np.linspace(0.0, 5.0, 60)
    result = gradient_flow(
        small_completion,
        small_start,
        Flow(rtol=1e-5, stop=0.0, horizon=5.0),
        record=(Loss(),),
        record_at=times,
    )
    loss = result.records["mean_square"].numpy()
    assert np.isfinite(loss).all()
    assert (np.diff(loss, axis=1) <= 1e-12).all()


def test_paper_scale_run_reaches_the_stop_within_a_thousand_evaluations():
    problem = matrix_completion(random_low_rank((100, 100), 5, seed=0), 2000, seed=0)
    start = initialise("gaussian", full_widths((100, 100), 3), [1e-3], [0])
    flow = gradient_flow(problem, start, Flow(rtol=1e-3))
    assert flow.status.tolist() == [Status.CONVERGED]
    assert int(flow.n_evaluations) <= 1000
    descent = gradient_descent(problem, start, Descent(lr=2e-4))
    assert descent.status.tolist() == [Status.CONVERGED]
    found, expected = (torch.linalg.svdvals(done.factorization.end_to_end())[0] for done in (flow, descent))
    # Three digits in each of the five singular values of the solution; the rest are a thousandth of a percent of them.
    torch.testing.assert_close(found[:5], expected[:5], rtol=5e-4, atol=0)
    assert (found[5:] - expected[5:]).abs().max() <= 5e-4 * expected[4]


def test_batch_equals_the_same_runs_one_by_one(small_completion):
    scales, seeds = [0.5, 0.01, 0.8, 0.1], [0, 1, 2, 3]
    record, times = (SingularValues(2),), [0.5, 1.0, 4.0]
    batch = gradient_flow(
        small_completion,
        initialise("gaussian", (8,) * 4, scales, seeds),
        Flow(),
        record=record,
        record_at=times,
    )
    assert len(set(batch.n_evaluations.tolist())) > 1  # steps and stages really are per run
    for run, (scale, seed) in enumerate(zip(scales, seeds, strict=True)):
        alone = gradient_flow(
            small_completion,
            initialise("gaussian", (8,) * 4, [scale], [seed]),
            Flow(),
            record=record,
            record_at=times,
        )
        assert alone.n_evaluations[0] == batch.n_evaluations[run]
        torch.testing.assert_close(alone.factorization.state[0], batch.factorization.state[run], rtol=1e-8, atol=1e-10)
        torch.testing.assert_close(
            alone.records["singular_value"][0],
            batch.records["singular_value"][run],
            rtol=1e-8,
            atol=1e-10,
            equal_nan=True,
        )


def test_depth_one_has_a_closed_form():
    # At depth 1 with the half-sum loss every observed entry relaxes as exp(-t), and the others stand still.
    problem = matrix_completion(random_low_rank((6, 7), 2, seed=0), 20, seed=0)
    start = initialise("gaussian", (7, 6), [0.3], [0])
    times = [0.0, 0.3, 1.0, 2.5]
    result = gradient_flow(
        problem,
        start,
        Flow(rtol=1e-7, stop=0.0, horizon=2.5),
        record=(SingularValues(6), Loss()),
        record_at=times,
    )
    begin = start.end_to_end()[0]
    for number, t in enumerate(times):
        exact = begin + (1 - math.exp(-t)) * (problem.values - begin) * problem.mask
        torch.testing.assert_close(
            result.records["singular_value"][0, number], torch.linalg.svdvals(exact), rtol=1e-5, atol=1e-6
        )


def test_the_end_lies_just_below_the_threshold(small_completion, small_start):
    result = gradient_flow(small_completion, small_start, Flow(stop=1e-4))
    assert (result.status == Status.CONVERGED).all()
    assert (result.mean_square < 1e-4).all()
    assert (result.mean_square > 0.95e-4).all()  # located inside the step by bisection


def test_single_precision_stays_so_and_agrees(small_completion, small_start):
    settings, moments = Flow(stop=1e-3), (0.0, 0.4)
    double = gradient_flow(small_completion, small_start, settings, record=(Loss(),), record_at=moments)
    start = Factorization(small_start.state.float(), small_start.widths)
    problem = small_completion.to("cpu", torch.float32)
    single = gradient_flow(problem, start, settings, record=(Loss(),), record_at=moments)
    assert single.factorization.state.dtype == torch.float32
    assert (single.status == Status.CONVERGED).all()
    torch.testing.assert_close(single.records["mean_square"].double(), double.records["mean_square"], rtol=1e-2, atol=0)
    torch.testing.assert_close(single.factorization.state.double(), double.factorization.state, rtol=0, atol=1e-2)


def test_stable_lr_is_two_over_the_largest_hessian_eigenvalue():
    # Depth 1, all entries observed: the Hessian of the half-sum loss is the identity.
    problem = matrix_completion(random_low_rank((5, 5), 2, seed=0), 25, seed=0)
    result = gradient_flow(problem, initialise("gaussian", (5, 5), [1.0], [0]), Flow())
    assert result.stable_lr.item() == pytest.approx(2.0, rel=0.01)


def test_limits_and_statuses(small_completion, small_start):
    few = gradient_flow(small_completion, small_start, Flow(max_evaluations=30))
    assert (few.status == Status.LIMIT).all()
    assert "raise the limit" in few.advice(0)
    done = gradient_flow(small_completion, small_start, Flow(stop=1e9))
    assert (done.status == Status.CONVERGED).all()
    assert done.n_steps.tolist() == [0, 0]


def test_alignment_is_measured_in_the_singular_vectors(small_completion, small_start):
    result = gradient_flow(
        small_completion, small_start, Flow(stop=0.0, horizon=1.0), record=(Alignment(),), record_at=[1.0]
    )
    product = result.factorization.end_to_end()[0]
    left, _, right = np.linalg.svd(product.numpy())
    rotated = np.abs(left.T @ small_completion.gradient(product.unsqueeze(0))[0].numpy() @ right.T)
    off = rotated[~np.eye(8, dtype=bool)]
    found = result.records["alignment_mean"][0, 0].numpy()
    assert found == pytest.approx([np.diag(rotated).mean(), off.mean()], rel=1e-6)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"rtol": 0.0}, "rtol = 0.0"),
        ({"rtol": math.nan}, "rtol = nan"),
        ({"stop": -1.0}, "stop = -1.0"),
        ({"horizon": 0.0}, "horizon = 0.0"),
        ({"stop": 0.0}, "never end"),
    ],
)
def test_impossible_settings_are_refused_in_one_sentence(options, words):
    with pytest.raises(InputError, match=words):
        Flow(**options)
