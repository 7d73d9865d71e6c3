"""The entry-wise evaluator computes what the dense one does."""

import math

import pytest
import torch
from small_problems import random_factors

from dmfkit import CompletionTask, MatrixCompletion
from dmfkit.gradients import entries
from dmfkit.gradients.choice import Kernel, evaluator_for, kernel_for
from dmfkit.gradients.entries import EntrywiseEvaluator
from dmfkit.gradients.tensors import Evaluator
from dmfkit.linalg.sampled_products import DeviceProducts, HostProducts
from dmfkit.problems.completion import SPARSE_SHARE, SPARSE_SIZE, SPARSE_WIDTH


@pytest.mark.parametrize("products", [HostProducts, DeviceProducts])
@pytest.mark.parametrize("normalisation", ["half_sum", "mean"])
@pytest.mark.parametrize("widths", [(30, 4, 30), (30, 4, 5, 30), (30, 6, 3, 4, 30), (30, 2, 9, 3, 5, 30)])
def test_both_evaluators_agree(widths, normalisation, products, monkeypatch):
    monkeypatch.setattr(entries, "sampled_products", lambda *given: products(*given[:4]))
    problem = CompletionTask(d=30, rank=2, n_observed=70, normalisation=normalisation).problem()
    state = random_factors(widths, 3).state
    sparse, dense = EntrywiseEvaluator(problem, widths, 3), Evaluator(problem, widths, 3)
    ours, theirs = torch.empty_like(state), torch.empty_like(state)
    assert torch.allclose(
        sparse.squares_and_gradient(state, ours), dense.squares_and_gradient(state, theirs), rtol=1e-12
    )
    assert torch.allclose(ours, theirs, rtol=1e-11, atol=1e-11 * float(theirs.abs().max()))
    assert torch.allclose(sparse.squares(state), dense.squares(state), rtol=1e-12)
    # A batch that has become smaller uses the first places of the buffers.
    fewer = torch.empty_like(state[:2])
    sparse.squares_and_gradient(state[:2].contiguous(), fewer)
    assert torch.equal(fewer, ours[:2])


def test_an_observed_zero_is_an_observation():
    task = CompletionTask(d=30, rank=2, n_observed=70)
    drawn = task.problem()
    row, column = (int(place) for place in drawn.mask.nonzero()[0])
    drawn.values[row, column] = 0.0
    problem = MatrixCompletion("half_sum", None, drawn.values, drawn.mask)
    assert problem.n_observations == 70
    state = torch.ones(1, 2 * 30 * 3, dtype=torch.float64)
    widths = (30, 3, 30)
    expected = Evaluator(problem, widths, 1).squares(state)
    assert float(EntrywiseEvaluator(problem, widths, 1).squares(state)) == pytest.approx(float(expected), rel=1e-13)


def test_the_cheapest_one_is_chosen():
    d = math.isqrt(SPARSE_SIZE)
    few = CompletionTask(d=d, rank=2, n_observed=int(SPARSE_SIZE * SPARSE_SHARE) - 1).problem()
    many = CompletionTask(d=d, rank=2, n_observed=int(SPARSE_SIZE * SPARSE_SHARE) + 1).problem()
    small = CompletionTask(d=d - 1, rank=2, n_observed=10).problem()
    assert isinstance(evaluator_for(few, (d, 40, d), 1), EntrywiseEvaluator)
    for problem, width in ((many, 40), (few, SPARSE_WIDTH + 1), (small, 40)):
        side = problem.shape[0]
        assert kernel_for(problem, (side, width, side)) is not Kernel.ENTRIES
    assert kernel_for(few, (d, d)) is Kernel.LOOPS
