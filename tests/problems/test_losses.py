from __future__ import annotations

import pytest
import torch
from small_problems import make_problem

from dmfkit import CompletionTask, InputError, RatingsTask, matrix_completion, matrix_sensing, random_low_rank
from dmfkit.linalg.spectra import effective_rank, nuclear_norm, relative_error, singular_values, split_diagonal


def test_random_low_rank_matrices_have_the_papers_moments():
    matrices = [random_low_rank((40, 30), 3, seed) for seed in range(60)]
    assert all(torch.linalg.matrix_rank(matrix) == 3 for matrix in matrices)
    mean = torch.stack([matrix.square().sum() for matrix in matrices]).mean()
    # E ||W*||_F^2 = rank * d * d_in; one draw scatters by about 13 %, the mean of 60 by under 2 %.
    assert mean.item() == pytest.approx(3 * 40 * 30, rel=0.06)


def test_target_norm_rescales():
    assert torch.linalg.matrix_norm(random_low_rank((20, 20), 2, 0, target_norm=20.0)).item() == pytest.approx(20.0)
    raw, scaled = random_low_rank((20, 20), 2, 0), random_low_rank((20, 20), 2, 0, target_norm=20.0)
    torch.testing.assert_close(scaled, raw * (20.0 / torch.linalg.matrix_norm(raw)))


def test_observed_entries_are_distinct_uniform_and_nested():
    truth = random_low_rank((30, 30), 2, 0)
    few, many = matrix_completion(truth, 200, 0), matrix_completion(truth, 500, 0)
    assert few.n_observations == 200
    assert many.n_observations == 500
    assert (few.mask <= many.mask).all()
    counts = sum(matrix_completion(truth, 450, seed).mask for seed in range(400))
    # Every entry is observed in half of the draws: 200 +- 10 (one standard deviation of a binomial).
    assert counts.min() > 200 - 55
    assert counts.max() < 200 + 55


def test_observations_do_not_repeat_the_stream_of_the_truth():
    problem = matrix_sensing(random_low_rank((5, 5), 5, seed=0), 3, seed=0)
    left = torch.randn(5, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert not torch.allclose(problem.measurements[0], left)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: random_low_rank((5, 4), 5, 0), "rank = 5.*between 1 and 4"),
        (lambda: random_low_rank((5, 4), 0, 0), "rank = 0"),
        (lambda: matrix_completion(torch.ones(5, 4), 21, 0), "n_observed = 21.*20 entries"),
        (lambda: matrix_completion(torch.ones(5, 4), 0, 0), "n_observed = 0"),
        (lambda: matrix_completion(torch.ones(5, 4), 3, 0, "sum"), "normalisation = 'sum'"),
        (lambda: RatingsTask(data="netflix").problem(), "data = 'netflix'"),
    ],
)
def test_impossible_problems_are_refused_in_one_sentence(call, words):
    with pytest.raises(InputError, match=words):
        call()


def test_losses_in_both_normalisations():
    problem = CompletionTask(d=6, rank=1, n_observed=10).problem()
    zero = torch.zeros(1, 6, 6, dtype=torch.float64)
    squares = problem.values.square().sum()
    assert problem.loss(zero).item() == pytest.approx(0.5 * squares.item())
    assert problem.loss(zero, "mean").item() == pytest.approx(squares.item() / 10)


def test_synthetic_ratings_make_a_problem_of_their_shape():
    problem = RatingsTask(data="synthetic", n_ratings=600, n_users=40, n_items=50).problem()
    assert problem.shape == (40, 50)
    assert problem.n_observations == 600
    assert set(problem.values[problem.mask.bool()].unique().tolist()) <= {1.0, 2.0, 3.0, 4.0, 5.0}


def test_effective_rank_counts_equal_values_and_ignores_zeros():
    assert effective_rank(torch.tensor([2.0, 2.0, 2.0, 0.0], dtype=torch.float64)).item() == pytest.approx(3.0)
    assert effective_rank(torch.tensor([7.0, 0.0], dtype=torch.float64)).item() == pytest.approx(1.0)
    between = effective_rank(torch.tensor([1.0, 0.5, 0.1], dtype=torch.float64)).item()
    weights = [1 / 1.6, 0.5 / 1.6, 0.1 / 1.6]
    assert between == pytest.approx(
        torch.tensor([-w * torch.log(torch.tensor(w)) for w in weights]).sum().exp().item(), rel=1e-6
    )


def test_spectral_measures_agree_with_definitions():
    matrix = torch.randn(2, 5, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    values = singular_values(matrix)
    torch.testing.assert_close(nuclear_norm(values), torch.linalg.matrix_norm(matrix, "nuc"))
    assert relative_error(matrix, matrix[0])[0].item() == 0.0
    torch.testing.assert_close(relative_error(2 * matrix, matrix[0])[0], torch.tensor(1.0, dtype=torch.float64))
    on, off = split_diagonal(matrix)
    assert on.shape == (2, 3)
    assert off.shape == (2, 12)
    torch.testing.assert_close(on.square().sum() + off.square().sum(), matrix.square().sum())


@pytest.mark.parametrize("kind", ["completion", "sensing", "full"])
def test_the_gradient_can_be_differentiated_and_is_what_training_uses(kind):
    problem = make_problem(kind, (5, 4), "half_sum")
    at, along = torch.randn(2, 1, 5, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    value, slope = torch.func.jvp(problem.gradient, (at,), (along,))
    _, trained = problem.squares_and_residual_gradient(at.clone())
    torch.testing.assert_close(value, trained * problem.gradient_scale, rtol=0, atol=0)
    # The gradient is affine.
    torch.testing.assert_close(slope, problem.gradient(at + along) - value, rtol=1e-12, atol=1e-12)
