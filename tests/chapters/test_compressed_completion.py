"""Frames under incomplete observation, counts of multiplications, and principal components of trajectories."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import subspace_angles

from dmfkit import (
    CompletionTask,
    CompressedStart,
    Flow,
    FrameGeometry,
    FullObservationTask,
    InputError,
    OrthogonalStart,
    PrincipalComponents,
    diameter,
    distance_to_path,
    gradient_frames,
    hold_last,
    invariant_frames,
    matrix_completion,
    principal_sines,
    sweep,
)
from dmfkit.gradients import flop_counts as count
from dmfkit.training.recorders import Snapshot

seeds = st.integers(min_value=0, max_value=10**6)


@settings(max_examples=15, deadline=None)
@given(seed=seeds, share=st.floats(0.2, 0.9))
def test_no_core_between_fixed_frames_beats_what_they_miss(seed, share):
    task = CompletionTask(d=20, rank=2, n_observed=round(share * 400), data_seed=seed, target="truncated")
    problem = task.problem()
    begun = CompressedStart(3, 0.1, seed=seed, rank_bound=3, discrepant_rate=0.1).begin(problem)
    measured = FrameGeometry(2)(Snapshot(problem, begun.factorization))
    V, U = begun.factorization.factors[0][0].mT, begun.factorization.factors[-1][0]
    truth = task.ground_truth()
    best = U @ (U.mT @ truth @ V) @ V.mT
    missed = float((best - truth).square().sum() / truth.square().sum())
    assert float(measured["missed"][0]) == pytest.approx(missed, rel=1e-8)
    random = torch.randn(6, 6, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    other = float((U @ random @ V.mT - truth).square().sum() / truth.square().sum())
    assert other >= missed * (1 - 1e-12)
    # The angle is SciPy's, and guarantees a part of what is missed.
    left, values, right = torch.linalg.svd(truth)
    angles = [subspace_angles(left[:, :2], U).max(), subspace_angles(right[:2].T, V).max()]
    angle = float(measured["angle"][0])
    assert angle == pytest.approx(max(angles), abs=1e-7)
    assert missed >= float(values[1] ** 2 / (values**2).sum()) * np.sin(angle) ** 2 * (1 - 1e-9)
    assert float(measured["departure"][0]) < 1e-12


def test_frames_of_the_truth_miss_nothing_and_moving_frames_leave_orthonormality():
    task = CompletionTask(d=24, rank=1, n_observed=300, target="truncated")
    told = CompressedStart(3, 1e-2, rank_bound=1, frames_from="truth")
    settings_ = Flow(rtol=1e-5, stop=1e-8, horizon=1e3)
    kept = sweep(task, told, settings_, record=(FrameGeometry(1),), record_at=(0.0, 1.0))
    assert float(kept["missed"].max()) < 1e-20
    assert float(kept["final_relative_error"]) < 1e-6
    moved = sweep(
        task,
        CompressedStart(3, 1e-2, rank_bound=1, discrepant_rate=0.1),
        settings_,
        record=(FrameGeometry(1),),
        record_at=(0.0, 1.0, 20.0, 30.0, 40.0),
    )
    departure = hold_last(moved["departure"].values)
    assert departure[0] < 1e-12
    assert departure[-1] > 1e-4


@pytest.mark.parametrize("sigma", [1e-3, 0.5, 1.0, 3.0])
@pytest.mark.parametrize("depth", [2, 3, 4])
def test_released_frames_hold_the_invariant_subspace_at_every_scale_if_all_is_observed(sigma, depth):
    problem = FullObservationTask(d=18, rank=2, data_seed=depth, target="truncated").problem()
    start = OrthogonalStart(depth, sigma).full(problem)
    ours = invariant_frames(start, problem.values, 2)
    for theirs in (gradient_frames(start, problem, 2), gradient_frames(start, problem, 4)):
        for frame, other in zip(ours.frames, theirs.frames, strict=True):
            assert float(principal_sines(frame, other).max()) < 1e-8


def test_released_frames_with_missing_entries():
    full = FullObservationTask(d=40, rank=2, target="truncated").problem()
    part = matrix_completion(full.values, 800, 0)
    tiny, large = (OrthogonalStart(3, sigma).full(part) for sigma in (1e-3, 1.0))
    sines = {
        (name, stacked): float(
            principal_sines(
                invariant_frames(start, part.values, 2).right, gradient_frames(start, part, 2, stacked=stacked).right
            ).max()
        )
        for name, start in (("tiny", tiny), ("large", large))
        for stacked in (False, True)
    }
    assert sines["tiny", False] < 1e-6
    assert sines["large", False] > 1e-3
    assert sines["tiny", True] > 0.5
    with pytest.raises(InputError, match="rank_bound = 20 is not allowed"):
        gradient_frames(tiny, part, 20)


@pytest.mark.parametrize("depth", [2, 3, 5])
@pytest.mark.parametrize("rank_bound", [1, 3])
def test_formulas_of_multiplications_are_what_an_evaluation_makes(depth, rank_bound):
    problem = CompletionTask(d=30, rank=1, n_observed=200).problem()
    widths = (30, *([2 * rank_bound] * (depth + 1)), 30)
    assert count.counted(problem, widths) == count.compressed_count(30, depth, rank_bound, 900)
    cores_first = count.compressed_count(30, depth, rank_bound, 200, cores_first=True)
    assert count.counted_entrywise(problem, widths) == cores_first
    assert count.counted(problem, (30,) * (depth + 1)) == count.full_count(30, depth)
    assert count.printed_count(1000, 3, 5) == 25_375


def test_principal_components_of_a_plane_curve():
    angle = np.linspace(0, 3, 20)
    plane = np.linalg.qr(np.random.default_rng(0).standard_normal((12, 2)))[0].T
    curve = (np.c_[3 * np.cos(angle), np.sin(angle)] @ plane + 5.0).reshape(20, 3, 4)
    found = PrincipalComponents.of(curve, 2)
    assert found.shares.sum() == pytest.approx(1.0)
    points = found.coordinates(curve)
    flat = curve.reshape(20, -1)
    assert diameter(points) == pytest.approx(diameter(flat))
    assert distance_to_path(points[5:8], points) == pytest.approx(0.0, abs=1e-12)
    assert distance_to_path(np.array([[0.0, 1.0]]), np.array([[-1.0, 0.0], [1.0, 0.0]])) == pytest.approx(1.0)


def test_a_run_that_ended_stays_where_it_was():
    record = np.array([[1.0, 2.0], [3.0, 4.0], [np.nan, np.nan]])
    assert np.array_equal(hold_last(record), [[1, 2], [3, 4], [3, 4]])
    with pytest.raises(InputError, match="without gaps"):
        PrincipalComponents.of(record[:, None], 1)
    with pytest.raises(InputError, match="left no record"):
        hold_last(record[2:])
    with pytest.raises(InputError, match="take fewer"):
        PrincipalComponents.of(record[:2, None], 2)


def test_halving_singular_values():
    values = torch.linalg.svdvals(CompletionTask(d=20, rank=3, n_observed=1, target="halving").ground_truth())
    assert torch.allclose(values[1:3] / values[:2], torch.full((2,), 0.5, dtype=torch.float64))
    assert float(values[3]) < 1e-10
