"""Escape from a small start of depth 3: bounds, integration, and the averaged flow against the flow of all entries."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dmfkit import CompletionTask, CompressedStart, Flow, InputError, OrthogonalStart, gradient_flow
from dmfkit.theory import averaged, averaged_flow_time, escape_bounds, escape_factor, escape_time, width_factor


def random_start(size, share, sigma, seed):
    """``a``, ``b`` of length ``share * sigma`` and ``W_2 = sigma Q``."""
    rng = np.random.default_rng(seed)
    a, b = rng.standard_normal((2, size))
    middle = sigma * np.linalg.qr(rng.standard_normal((size, size)))[0]
    return share * sigma * a / np.linalg.norm(a), share * sigma * b / np.linalg.norm(b), middle


def test_the_factor_at_its_ends_and_in_between():
    assert escape_factor(1.0) == pytest.approx(1.0, abs=1e-12)
    assert escape_factor(1e-8) == pytest.approx(math.log(2e8), rel=1e-12)
    assert escape_factor(0.0) == np.inf
    k = math.sqrt(1 - 0.3**2)
    assert escape_factor(0.3) == pytest.approx(math.atanh(k) / k, rel=1e-12)
    # The expansion near 1 joins the formula.
    near = np.array([0.5e-4, 0.9e-4, 1.1e-4, 1e-3])
    assert escape_factor(np.sqrt(1 - near**2)) == pytest.approx(1 + near**2 / 3 + near**4 / 5, abs=1e-11)
    assert width_factor(50, 50) == pytest.approx(escape_factor(math.sqrt(0.5)))


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 8), st.floats(0.02, 1.0), st.floats(1e-3, 10.0), st.floats(0.1, 10.0), st.integers(0, 10**6))
def test_the_escape_lies_between_the_bounds(size, share, sigma, strength, seed):
    a, b, middle = random_start(size, share, sigma, seed)
    lower, upper = escape_bounds(a, b, middle, strength)
    if upper * strength * sigma > 12:  # nearly opposite: escape only by rounding
        return
    time = escape_time(a, b, middle, strength)
    assert lower * (1 - 1e-5) <= time <= upper * (1 + 1e-5)


def test_the_upper_bound_is_attained_where_both_ends_agree():
    a, _, middle = random_start(5, 0.2, 0.7, 3)
    b = middle @ a / 0.7  # Q^T b = a
    lower, upper = escape_bounds(a, b, middle, 2.0)
    assert lower == pytest.approx(upper, rel=1e-12)
    assert escape_time(a, b, middle, 2.0) == pytest.approx(upper, rel=1e-5)


def test_a_start_that_never_escapes_is_refused():
    with pytest.raises(InputError, match="never escapes"):
        escape_time(np.zeros(2), np.zeros(2), np.eye(2), 1.0)


def test_the_averaged_flow_is_the_flow_itself_where_all_is_observed():
    # Every entry observed: nothing is averaged, and what the start has outside the target's directions hardly counts.
    task = CompletionTask(d=12, rank=2, n_observed=144, target="truncated")
    problem, tolerance = task.problem(), 1e-9
    for start in (OrthogonalStart(3, 1e-3, 1), OrthogonalStart(3, 1e-3, 1, hidden_width=4)):
        beginning = start.begin(problem)
        run = gradient_flow(problem, beginning.factorization, Flow(rtol=1e-5, stop=2 * tolerance))
        predicted = averaged_flow_time(problem, beginning, 2, tolerance)
        assert predicted == pytest.approx(float(run.time[0]), rel=0.02)


def test_a_compressed_start_has_in_the_targets_directions_what_the_wide_one_has():
    problem = CompletionTask(d=20, rank=2, n_observed=400, target="truncated").problem()
    wide, values = averaged(problem, OrthogonalStart(3, 1e-2, 4).begin(problem), 2)
    narrow, _ = averaged(problem, CompressedStart(3, 1e-2, 4, rank_bound=3, discrepant_rate=0.01).begin(problem), 2)
    assert torch.allclose(wide.end_to_end(), narrow.end_to_end(), atol=1e-18)
    assert torch.allclose(wide.factors[0].mT @ wide.factors[0], narrow.factors[0].mT @ narrow.factors[0], atol=1e-14)
    assert torch.allclose(values, torch.linalg.svdvals(problem.ground_truth)[:2])
