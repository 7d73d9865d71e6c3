"""Gradient descent against a plain loop with automatic differentiation, and its ways to end."""

from __future__ import annotations

import math

import pytest
import torch
from made import make_problem, random_factors

from dmfkit import Descent, InputError, Loss, SingularValues, Status, gradient_descent, initialise


def plain_loop(problem, start, n_steps, lr, weight_decay=0.0, factor_rates=None, rule="fixed"):
    """Train every run by itself with autograd."""
    finals = []
    for run in range(start.n_runs):
        factors = [factor[run : run + 1].clone().requires_grad_() for factor in start.factors]
        average = 0.0
        for step in range(1, n_steps + 1):
            product = factors[0]
            for factor in factors[1:]:
                product = factor @ product
            residual = (product - problem.values) * problem.mask
            loss = residual.square().sum() * (0.5 if problem.normalisation == "half_sum" else 1 / problem.mask.sum())
            gradients = torch.autograd.grad(loss, factors)
            size = lr
            if rule == "group_rmsprop":
                average = 0.99 * average + 0.01 * float(sum(part.square().sum() for part in gradients))
                size = lr / (math.sqrt(average / (1 - 0.99**step)) + 1e-4)
            rates = factor_rates or [1.0] * len(factors)
            factors = [
                (weights - size * rate * (part + weight_decay * weights)).detach().requires_grad_()
                for weights, part, rate in zip(factors, gradients, rates, strict=True)
            ]
        finals.append(torch.cat([factor.detach().flatten(start_dim=1) for factor in factors], dim=1))
    return torch.cat(finals)


@pytest.mark.parametrize("normalisation", ["half_sum", "mean"])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"weight_decay": 0.1},
        {"factor_rates": (1.0, 0.25, 2.0)},
        {"factor_rates": (1.0, 0.25, 2.0), "weight_decay": 0.1},
        {"rule": "group_rmsprop"},
    ],
    ids=str,
)
def test_steps_equal_a_plain_loop(options, normalisation):
    problem = make_problem("completion", (4, 6), normalisation)
    start = initialise("gaussian", (6, 5, 4, 4), [0.3, 0.6], [0, 1])
    # 120 steps: more than two blocks, so the joins between blocks are in it.
    settings = Descent(lr=0.01, stop=0.0, max_steps=120, **options)
    result = gradient_descent(problem, start, settings)
    expected = plain_loop(problem, start, 120, 0.01, **options)
    torch.testing.assert_close(result.factorization.state, expected, rtol=1e-10, atol=1e-12)
    assert result.n_steps.tolist() == [120, 120]
    assert result.status.tolist() == [Status.LIMIT, Status.LIMIT]


def test_a_run_stops_at_the_first_step_below_the_threshold(small_completion, small_start):
    settings = Descent(lr=0.02, stop=1e-4)
    result = gradient_descent(small_completion, small_start, settings)
    assert (result.status == Status.CONVERGED).all()
    assert (result.mean_square < 1e-4).all()
    for run in range(2):
        steps = int(result.n_steps[run])
        before = gradient_descent(small_completion, small_start, Descent(lr=0.02, stop=0.0, max_steps=steps - 1))
        assert before.mean_square[run] >= 1e-4
        torch.testing.assert_close(
            result.factorization.state[run],
            gradient_descent(
                small_completion, small_start, Descent(lr=0.02, stop=0.0, max_steps=steps)
            ).factorization.state[run],
            rtol=1e-12,
            atol=1e-14,
        )


def test_stop_normalisations_differ_by_the_number_of_observations(small_completion, small_start):
    m = small_completion.n_observations
    as_mean = gradient_descent(small_completion, small_start, Descent(lr=0.02, stop=2e-4, stop_normalisation="mean"))
    as_sum = gradient_descent(
        small_completion, small_start, Descent(lr=0.02, stop=1e-4 * m, stop_normalisation="half_sum")
    )
    assert as_mean.n_steps.tolist() == as_sum.n_steps.tolist()


def test_batch_equals_the_same_runs_one_by_one(small_completion):
    scales, seeds, rates = [0.5, 0.1, 0.8, 0.3], [0, 1, 2, 3], [0.02, 0.01, 0.02, 0.015]
    settings = Descent(stop=1e-5)
    batch = gradient_descent(small_completion, initialise("gaussian", (8,) * 4, scales, seeds), settings, lr=rates)
    for run, (scale, seed, rate) in enumerate(zip(scales, seeds, rates, strict=True)):
        alone = gradient_descent(
            small_completion, initialise("gaussian", (8,) * 4, [scale], [seed]), settings, lr=[rate]
        )
        assert alone.n_steps[0] == batch.n_steps[run]
        torch.testing.assert_close(alone.factorization.state[0], batch.factorization.state[run], rtol=1e-9, atol=1e-12)


def test_a_diverging_run_leaves_the_others_alone_and_is_told_a_rate_that_works(small_completion):
    start = initialise("gaussian", (8,) * 4, [0.5, 0.5], [0, 0])
    result = gradient_descent(small_completion, start, Descent(stop=1e-4, max_steps=20_000), lr=[0.5, 0.01])
    assert result.status.tolist() == [Status.DIVERGED, Status.CONVERGED]
    stable = float(result.stable_lr[0])
    assert result.measured_stable_lr.isnan().all()
    assert "lower lr below" in result.advice(0)
    assert 0.01 < stable < 0.5
    # The advice is sharp: a little below it descent converges, well above it does not.
    below = gradient_descent(
        small_completion,
        start.__class__(start.state[:1], start.widths),
        Descent(lr=0.9 * stable, stop=1e-4, max_steps=20_000),
    )
    above = gradient_descent(
        small_completion,
        start.__class__(start.state[:1], start.widths),
        Descent(lr=2.0 * stable, stop=1e-4, max_steps=20_000),
    )
    assert below.status.tolist() == [Status.CONVERGED]
    assert above.status.tolist() != [Status.CONVERGED]


def test_records_are_the_states_at_the_given_steps(small_completion, small_start):
    moments = [0, 7, 50, 60]
    result = gradient_descent(
        small_completion,
        small_start,
        Descent(lr=0.01, stop=0.0, max_steps=60),
        record=(SingularValues(3), Loss()),
        record_at=moments,
    )
    for number, step in enumerate(moments):
        there = gradient_descent(small_completion, small_start, Descent(lr=0.01, stop=0.0, max_steps=step))
        values = torch.linalg.svdvals(there.factorization.end_to_end())[:, :3]
        torch.testing.assert_close(result.records["singular_value"][:, number], values, rtol=1e-10, atol=1e-12)
        torch.testing.assert_close(result.records["mean_square"][:, number], there.mean_square, rtol=1e-10, atol=0)


def test_records_after_the_end_are_nan(small_completion, small_start):
    result = gradient_descent(
        small_completion, small_start, Descent(lr=0.02, stop=1e-3), record=(Loss(),), record_at=[0, 10**6]
    )
    assert torch.isfinite(result.records["mean_square"][:, 0]).all()
    assert torch.isnan(result.records["mean_square"][:, 1]).all()


def test_the_start_is_left_unchanged(small_completion, small_start):
    before = small_start.state.clone()
    gradient_descent(small_completion, small_start, Descent(lr=0.01, max_steps=20))
    assert torch.equal(small_start.state, before)


def test_float32_runs_in_float32():
    problem = make_problem("completion", (5, 5), "half_sum").to("cpu", torch.float32)
    start = initialise("gaussian", (5, 5, 5), [0.5], [0], dtype=torch.float32)
    result = gradient_descent(problem, start, Descent(lr=0.02, max_steps=100, dtype="float32"))
    assert result.factorization.state.dtype == torch.float32


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"lr": -1e-3}, "lr = -0.001"),
        ({"lr": math.nan}, "lr = nan"),
        ({"lr": 0.0}, "lr = 0.0"),
        ({"stop": math.nan}, "stop = nan"),
        ({"max_steps": -1}, "max_steps = -1"),
        ({"weight_decay": -0.1}, "weight_decay = -0.1"),
        ({"rule": "adam"}, "rule = 'adam'"),
    ],
)
def test_impossible_settings_are_refused_in_one_sentence(options, words):
    with pytest.raises(InputError, match=words):
        Descent(**options)


def test_mismatched_inputs_are_refused(small_completion, small_start):
    with pytest.raises(InputError, match="asks for"):
        gradient_descent(small_completion, random_factors((5, 5), 1), Descent())
    with pytest.raises(InputError, match="one per run"):
        gradient_descent(small_completion, small_start, Descent(), lr=[1e-3])
    with pytest.raises(InputError, match="one per factor"):
        gradient_descent(small_completion, small_start, Descent(factor_rates=(1.0, 2.0)))
