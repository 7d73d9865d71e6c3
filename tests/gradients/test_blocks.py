"""The evaluator that goes through the residual block by block computes what the plain one does."""

from __future__ import annotations

import warnings
from itertools import pairwise

import numpy as np
import pytest
import torch
from small_problems import random_factors

from dmfkit import (
    CompletionTask,
    Descent,
    Factorization,
    Flow,
    FullObservationTask,
    MatrixCompletion,
    Status,
    gradient_descent,
    gradient_flow,
)
from dmfkit.gradients.blocks import BLOCK, MOST_GROUPS, BlockwiseEvaluator
from dmfkit.gradients.choice import Kernel, evaluator_for, kernel_for
from dmfkit.gradients.tensors import Evaluator

D = 520
MASKED = CompletionTask(d=D, rank=2, n_observed=60_000)
FULL = FullObservationTask(d=D, rank=2)


def both(problem, widths, dtype=torch.float64):
    state = random_factors(widths, 2).state.to(dtype)
    ours, theirs = torch.empty_like(state), torch.empty_like(state)
    blocks, plain = BlockwiseEvaluator(problem, widths, len(state)), Evaluator(problem, widths, len(state))
    squares = blocks.squares_and_gradient(state, ours), plain.squares_and_gradient(state, theirs)
    return (*squares, blocks.squares(state), ours, theirs)


@pytest.mark.parametrize("normalisation", ["half_sum", "mean"])
@pytest.mark.parametrize("hidden", [(1,), (4,), (4, 7), (7, 3, 5)])
@pytest.mark.parametrize("task", [MASKED, FULL], ids=["masked", "full"])
def test_both_evaluators_agree(task, hidden, normalisation):
    problem = type(task)(**{**vars(task), "normalisation": normalisation}).problem()
    ours, theirs, alone, gradient, expected = both(problem, (D, *hidden, D))
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=0)
    torch.testing.assert_close(alone, ours, rtol=0, atol=0)
    torch.testing.assert_close(gradient, expected, rtol=0, atol=1e-13 * float(expected.abs().max()))


@pytest.mark.parametrize(("rows", "columns"), [(3, 2 * BLOCK), (2 * BLOCK, 3), (1, 3 * BLOCK), (700, 401)])
def test_matrices_of_any_shape_are_gone_through_whole(rows, columns):
    generator = torch.Generator().manual_seed(1)
    mask = (torch.rand(rows, columns, generator=generator) < 0.3).double()
    values = mask * torch.randn(rows, columns, generator=generator, dtype=torch.float64)
    problem = MatrixCompletion(normalisation="half_sum", ground_truth=None, values=values, mask=mask)
    ours, theirs, _, gradient, expected = both(problem, (columns, 2, rows))
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=0)
    torch.testing.assert_close(gradient, expected, rtol=0, atol=1e-12 * float(expected.abs().max()))


def test_single_precision_stays_so():
    problem = MASKED.problem().to("cpu", torch.float32)
    ours, theirs, _, gradient, expected = both(problem, (D, 4, D), dtype=torch.float32)
    assert ours.dtype == torch.float32
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=0)
    torch.testing.assert_close(gradient, expected, rtol=0, atol=1e-5 * float(expected.abs().max()))


@pytest.mark.parametrize("runs", [1, 3])
def test_the_same_numbers_on_any_number_of_cores(threads, runs):
    widths = (D, 4, 4, D)
    problem, start = MASKED.problem(), Factorization(0.02 * random_factors(widths, runs).state, widths)
    found = []
    for number in (1, 2, 3):
        threads(number)
        found.append(
            [
                gradient_descent(problem, start, Descent(lr=1e-3, max_steps=30)).factorization.state,
                gradient_flow(problem, start, Flow(max_evaluations=60)).factorization.state,
            ]
        )
    for one in found[1:]:
        assert all(torch.equal(mine, first) for mine, first in zip(one, found[0], strict=True))
    alone = gradient_descent(problem, Factorization(start.state[-1:], start.widths), Descent(lr=1e-3, max_steps=30))
    assert torch.equal(alone.factorization.state[0], found[0][0][-1])


def test_a_diverging_run_is_no_warning(threads):
    threads(2)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result = gradient_descent(MASKED.problem(), random_factors((D, 3, D), 1), Descent(lr=1e3, max_steps=50))
    assert (result.status == Status.DIVERGED).all()


def test_the_blocks_hold_every_row_once_and_fit_a_cache():
    for rows in (1, 5, 252, 253, 1000, 4001):
        values = torch.zeros(rows, D, dtype=torch.float64)
        problem = MatrixCompletion(normalisation="half_sum", ground_truth=None, values=values, mask=values + 1)
        groups = BlockwiseEvaluator(problem, (D, 2, rows), 1)._groups
        assert all(before[-1] == after[0] for before, after in pairwise(groups))
        edges = [groups[0][0], *(edge for group in groups for edge in group[1:])]
        assert edges[0] == 0
        assert edges[-1] == rows
        assert min(np.diff(edges)) >= 1
        assert max(np.diff(edges)) * D < 1.1 * BLOCK
        assert len(groups) <= MOST_GROUPS


def test_large_and_thin_ones_are_chosen():
    problem, small = MASKED.problem(), CompletionTask(d=100, rank=2, n_observed=4000).problem()
    assert isinstance(evaluator_for(problem, (D, 4, D), 1), BlockwiseEvaluator)
    assert isinstance(evaluator_for(FULL.problem(), (D, 4, D), 1), BlockwiseEvaluator)
    assert kernel_for(small, (100, 4, 100)) is Kernel.LOOPS
    for widths in ((D, 5, D), (D, D)):
        assert kernel_for(problem, widths) is Kernel.LOOPS
    few = CompletionTask(d=D, rank=2, n_observed=2000).problem()
    assert not isinstance(evaluator_for(few, (D, 4, D), 1), BlockwiseEvaluator)
