"""Closed-form gradients against automatic differentiation: an independent computation of the same thing."""

from __future__ import annotations

import pytest
import torch
from small_problems import make_problem, random_factors

from dmfkit import FullObservation, InputError, MatrixCompletion, MatrixSensing
from dmfkit.gradients.compiled import CompiledEvaluator
from dmfkit.gradients.tensors import Evaluator

WIDTHS = [
    (5, 4),
    (4, 5),
    (5, 3, 4),
    (4, 6, 5),
    (6, 5, 2, 4),
    (3, 7, 4, 6),
    (5, 5, 5, 5, 5),
    (4, 6, 3, 5, 7),
    (7, 3, 6, 4, 5, 3),
    # Second operands of more than 2500 entries are turned before they are multiplied.
    (50, 60, 55),
    (60, 55, 51, 50),
    (60, 20, 130, 20, 60),
]


def evaluators(problem, widths, n_runs):
    found = [Evaluator(problem, widths, n_runs)]
    return found if isinstance(problem, MatrixSensing) else [*found, CompiledEvaluator(problem, widths)]


@pytest.mark.parametrize("normalisation", ["half_sum", "mean"])
@pytest.mark.parametrize("kind", ["completion", "sensing", "full"])
@pytest.mark.parametrize("widths", WIDTHS, ids=str)
def test_gradient_equals_autograd(widths, kind, normalisation):
    problem = make_problem(kind, (widths[-1], widths[0]), normalisation)
    start = random_factors(widths, n_runs=3)
    leaves = [factor.clone().requires_grad_() for factor in start.factors]
    product = leaves[0]
    for factor in leaves[1:]:
        product = factor @ product
    loss = independent_loss(problem, kind, product)
    expected = torch.autograd.grad(loss.sum(), leaves)

    found = torch.cat([part.flatten(start_dim=1) for part in expected], dim=1)
    for evaluator in evaluators(problem, widths, 3):
        out = torch.empty_like(start.state)
        squares = evaluator.squares_and_gradient(start.state, out)
        # 1e-12: a few thousand roundings of 1e-16 each, relative to the largest run.
        assert torch.linalg.vector_norm(out - found) <= 1e-12 * torch.linalg.vector_norm(found)
        torch.testing.assert_close(squares * problem.loss_scale(), loss.detach(), rtol=1e-12, atol=0)
        assert torch.equal(evaluator.squares(start.state), squares)
    pulled = start.pull_back(problem.gradient(start.end_to_end()))
    for mine, theirs in zip(pulled, expected, strict=True):
        assert torch.linalg.vector_norm(mine - theirs) <= 1e-12 * torch.linalg.vector_norm(theirs)


def independent_loss(problem, kind, product):
    """The loss written entry by entry, sharing nothing with the package."""
    if kind == "sensing":
        residual = torch.einsum("mij,rij->rm", problem.measurements, product) - problem.values
    elif kind == "completion":
        rows, columns = problem.mask.nonzero(as_tuple=True)
        residual = product[:, rows, columns] - problem.ground_truth[rows, columns]
    else:
        residual = (product - problem.ground_truth).flatten(start_dim=1)
    if problem.normalisation == "mean":
        return residual.square().mean(dim=1)
    return 0.5 * residual.square().sum(dim=1)


@pytest.mark.parametrize("kind", ["completion", "sensing", "full"])
def test_evaluating_fewer_runs_than_the_buffers_hold_gives_the_same(kind):
    widths = (6, 5, 4, 3)
    problem = make_problem(kind, (3, 6), "half_sum")
    start = random_factors(widths, n_runs=4)
    evaluator, out = Evaluator(problem, widths, 4), torch.empty_like(start.state)
    evaluator.squares_and_gradient(start.state, out)
    two = torch.empty_like(start.state[:2])
    evaluator.squares_and_gradient(start.state[:2], two)
    torch.testing.assert_close(two, out[:2], rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("widths", [(5, 3, 4), (8, 8, 8)])
def test_tensors_that_come_back_with_other_values_are_evaluated_anew(widths):
    problem = make_problem("completion", (widths[-1], widths[0]), "mean")
    first, second = (random_factors(widths, n_runs=2, seed=seed).state for seed in (0, 1))
    expected = torch.empty_like(second)
    squares = Evaluator(problem, widths, 2).squares_and_gradient(second, expected)
    evaluator, state, out = Evaluator(problem, widths, 2), first.clone(), torch.empty_like(first)
    evaluator.squares_and_gradient(state, out)
    state.copy_(second)
    assert torch.equal(evaluator.squares_and_gradient(state, out), squares)
    assert torch.equal(out, expected)


def test_values_off_the_mask_do_not_count():
    problem = make_problem("completion", (4, 5), "half_sum")
    product = random_factors((5, 4), n_runs=2).end_to_end()
    filled = MatrixCompletion("half_sum", None, problem.values + 7.0 * (1.0 - problem.mask), problem.mask)
    assert torch.equal(filled.loss(product), problem.loss(product))
    assert torch.equal(filled.gradient(product), problem.gradient(product))
    state = product.flatten(start_dim=1)
    assert torch.equal(*(CompiledEvaluator(each, (5, 4)).squares(state) for each in (filled, problem)))


def test_an_observed_value_that_is_no_number_is_refused():
    values = torch.ones(4, 5, dtype=torch.float64)
    values[1, 2] = torch.nan
    with pytest.raises(InputError, match="leave such entries out"):
        MatrixCompletion("half_sum", None, values, torch.ones(4, 5))
    with pytest.raises(InputError, match="leave such entries out"):
        CompiledEvaluator(FullObservation("half_sum", None, values), (5, 3, 4))
    unobserved = torch.ones(4, 5)
    unobserved[1, 2] = 0.0
    assert MatrixCompletion("half_sum", None, values, unobserved).n_observations == 19


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_a_run_that_has_diverged_shows_it(bad):
    problem = make_problem("completion", (4, 5), "half_sum")
    start = random_factors((5, 3, 4), n_runs=2)
    start.state[0] = bad
    squares = CompiledEvaluator(problem, start.widths).squares_and_gradient(start.state, torch.empty_like(start.state))
    assert not torch.isfinite(squares[0])
    assert torch.isfinite(squares[1])


def test_sensing_gradient_is_the_adjoint():
    # <A(W), r> = <W, A*(r)> for the operator behind Eq (2), with A* read off the gradient at residual r.
    problem = make_problem("sensing", (4, 5), "half_sum")
    generator = torch.Generator().manual_seed(5)
    first, second = (torch.randn(1, 4, 5, generator=generator, dtype=torch.float64) for _ in range(2))
    difference = problem.gradient(first) - problem.gradient(second)  # A* A (first - second)
    images = torch.einsum("mij,rij->rm", problem.measurements, first - second)
    torch.testing.assert_close(((first - second) * difference).sum(), images.square().sum(), rtol=1e-12, atol=0)
