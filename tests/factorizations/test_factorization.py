from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from small_problems import random_factors

from dmfkit import Factorization, InputError, full_widths, gaussian_std, initialise


@pytest.mark.parametrize("widths", [(3, 4), (4, 6, 3), (3, 5, 4, 6)])
def test_full_width_represents_every_matrix(widths):
    # Eq (1): with no hidden width below min(d, d'), any target is a product; the SVD shows one.
    target = torch.randn(widths[-1], widths[0], generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    left, values, right = torch.linalg.svd(target, full_matrices=False)
    size = len(values)
    factors = [torch.zeros(rows, columns, dtype=torch.float64) for columns, rows in pairwise(widths)]
    if len(factors) == 1:
        factors[0][:] = target
    else:
        factors[0][:size] = right
        for inner in factors[1:-1]:
            inner[:size, :size] = torch.eye(size, dtype=torch.float64)
        factors[-1][:, :size] = left * values
    made = Factorization.from_factors([factor.unsqueeze(0) for factor in factors])
    assert made.widths == widths
    torch.testing.assert_close(made.end_to_end()[0], target, rtol=0, atol=1e-12)


@pytest.mark.parametrize("widths", [(30, 30), (30, 20, 40), (40, 40, 40, 40), (20, 30, 10, 25, 20)])
def test_gaussian_start_has_the_expected_product_norm(widths):
    scale = 1e-3
    norms = torch.linalg.matrix_norm(initialise("gaussian", widths, [scale] * 200, list(range(200))).end_to_end())
    # E ||W(0)||_F^2 = scale^2 exactly; the mean of 200 draws scatters by a few percent for the narrowest widths here.
    assert norms.square().mean().sqrt().item() == pytest.approx(scale, rel=0.06)


def test_gaussian_std_is_the_papers_formula_for_equal_widths():
    d, depth, scale = 100, 3, 1e-3
    assert gaussian_std((d,) * (depth + 1), scale) == pytest.approx((scale / d ** ((depth + 1) / 2)) ** (1 / depth))
    assert gaussian_std((d,) * (depth + 1), scale) == pytest.approx(4.64e-3, rel=1e-3)


@pytest.mark.parametrize("kind", ["identity", "orthogonal", "balanced"])
@pytest.mark.parametrize("widths", [(6, 6, 6), (8, 6, 6, 5), (5, 7, 6, 8)])
def test_deterministic_starts_have_exactly_the_product_norm(kind, widths):
    start = initialise(kind, widths, [1e-3, 0.2], [0, 1])
    norms = torch.linalg.matrix_norm(start.end_to_end())
    torch.testing.assert_close(norms, torch.tensor([1e-3, 0.2], dtype=torch.float64), rtol=1e-12, atol=0)


def test_balanced_start_is_balanced_and_gaussian_is_not():
    widths = (7, 6, 8, 6)
    assert initialise("balanced", widths, [1.0], [0]).imbalance().max() < 1e-12
    assert initialise("gaussian", widths, [1.0], [0]).imbalance().min() > 1e-2


def test_square_orthogonal_factors_are_multiples_of_orthogonal_matrices():
    start = initialise("orthogonal", (6, 6, 6, 6), [0.1], [4])
    for factor in start.factors:
        gram = factor[0].mT @ factor[0]
        torch.testing.assert_close(gram, gram[0, 0] * torch.eye(6, dtype=torch.float64), rtol=1e-12, atol=1e-14)


def test_a_run_does_not_depend_on_its_batch_and_scales_with_init_scale():
    many = initialise("gaussian", (5, 4, 6), [1e-2, 1e-4, 1e-4], [7, 7, 8])
    alone = initialise("gaussian", (5, 4, 6), [1e-4], [7])
    torch.testing.assert_close(many.state[1:2], alone.state, rtol=0, atol=0)
    torch.testing.assert_close(many.state[0] * 0.1, many.state[1], rtol=1e-12, atol=0)
    assert not torch.equal(many.state[1], many.state[2])


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: full_widths((5, 5), 0), "depth = 0"),
        (lambda: full_widths((5, 5), 2, 0), "every width must be at least 1"),
        (lambda: initialise("gaussian", (5, 5), [0.0], [0]), "init_scale = 0.0"),
        (lambda: initialise("gaussian", (5, 5), [math.nan], [0]), "init_scale = nan"),
        (lambda: initialise("uniform", (5, 5), [1.0], [0]), "init = 'uniform'"),
        (lambda: initialise("gaussian", (5, 5), [1.0, 2.0], [0]), "2 initial scales and 1 seeds"),
        (lambda: initialise("balanced", (5, 3, 5), [1.0], [0]), "too narrow"),
        (lambda: Factorization.from_factors([]), "at least one factor"),
        (lambda: Factorization.from_factors([torch.zeros(1, 2, 3), torch.zeros(1, 2, 3)]), "do not fit"),
    ],
)
def test_impossible_factorizations_are_refused_in_one_sentence(call, words):
    with pytest.raises(InputError, match=words) as caught:
        call()
    assert "\n" not in str(caught.value)


def test_imbalance_is_the_papers_difference():
    start = random_factors((3, 4, 5), n_runs=2)
    first, second = start.factors
    expected = torch.linalg.matrix_norm(second.mT @ second - first @ first.mT)
    torch.testing.assert_close(start.imbalance()[:, 0], expected)
