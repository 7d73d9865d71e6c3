"""Theorem 1 and Proposition 1 of Yaras et al. (2023), as properties of random factorizations."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import null_space, subspace_angles

from dmfkit import (
    CompletionTask,
    CompressedStart,
    Descent,
    Factors,
    Flow,
    FullObservationTask,
    InputError,
    Loss,
    OrthogonalStart,
    RelativeError,
    Start,
    Status,
    TargetCoordinates,
    UnobservedError,
    completed_frames,
    compress,
    expand,
    full_observation,
    gradient_descent,
    initialise,
    invariant_frames,
    project,
    random_low_rank,
    sweep,
    truncated_gaussian,
    with_frames,
)
from dmfkit.factorizations.starts import InitialPoint
from dmfkit.gradients.tensors import Evaluator
from dmfkit.problems.tasks import key_values
from dmfkit.theory import bounded_lr, compression_bound, compression_gap, middle_scales, monotone_lr, others_squared
from dmfkit.training.recorders import target_bases

STEPS = 500


@st.composite
def experiments(draw):
    """A full-width start, a target of rank at most r, a step size inside the condition, and weight decay."""
    rank = draw(st.integers(1, 4))
    d = 2 * rank + draw(st.integers(1, 8))
    depth = draw(st.integers(1, 4))
    scales = tuple(draw(st.floats(0.2, 1.4)) for _ in range(depth))
    weight_decay = draw(st.sampled_from([0.0, 0.02, 0.1]))
    lowered = draw(st.integers(0, rank - 1))
    target = random_low_rank((d, d), rank - lowered, draw(st.integers(0, 10**6)), target_norm=2.0)
    # Inside the condition on the inert scales, and small enough for the learned block not to diverge.
    lr = min(0.5 * monotone_lr(scales, weight_decay), 0.02)
    start = OrthogonalStart(depth, scales, draw(st.integers(0, 10**6)))
    return full_observation(target), start, rank, lr, weight_decay


def trajectory(problem, factorization, lr, weight_decay, steps=STEPS):
    """Factors after every step, ``(steps + 1, layer, row, column)``."""
    method = Descent(lr=lr, stop=0.0, max_steps=steps, weight_decay=weight_decay)
    result = gradient_descent(problem, factorization, method, record=(Factors(),), record_at=range(steps + 1))
    return result.records["factor"][0]


@settings(max_examples=20, deadline=None)
@given(experiments())
def test_every_layer_keeps_its_blocks_and_the_inert_scale_follows_eq_4(experiment):
    problem, start, rank, lr, weight_decay = experiment
    initial = start.full(problem)
    whole = completed_frames(initial, invariant_frames(initial, problem.values, rank))
    weights = trajectory(problem, initial, lr, weight_decay)
    expected = middle_scales(start.layer_scales, lr, STEPS, weight_decay)
    inert = torch.eye(whole[0].shape[-1] - 2 * rank, dtype=torch.float64)
    for layer in range(start.depth):
        blocks = whole[layer + 1][0].mT @ weights[:, layer] @ whole[layer][0]
        size = torch.linalg.matrix_norm(blocks)
        off = torch.maximum(
            torch.linalg.matrix_norm(blocks[:, : 2 * rank, 2 * rank :]),
            torch.linalg.matrix_norm(blocks[:, 2 * rank :, : 2 * rank]),
        )
        assert float((off / size).max()) < 1e-10
        rest = blocks[:, 2 * rank :, 2 * rank :] - expected[:, layer, None, None] * inert
        assert float(rest.abs().max()) < 1e-12
    # The learned blocks start at sigma_l times the identity.
    cores = compress(initial, invariant_frames(initial, problem.values, rank))
    for scale, core in zip(start.layer_scales, cores.factors, strict=True):
        assert torch.allclose(core[0], scale * torch.eye(2 * rank, dtype=torch.float64), atol=1e-13)


def test_the_blocks_are_lost_where_a_hypothesis_is_missing():
    truth = truncated_gaussian((30, 30), 3, 1)
    off = {}
    for name, kind in (("orthogonal", "orthogonal"), ("gaussian", "gaussian")):
        initial = initialise(kind, (30, 30, 30, 30), [1.0], [0])
        weights = trajectory(full_observation(truth), initial, 1e-3, 0.0, 200)[-1, 0]
        values = torch.linalg.svdvals(weights)[3:-3]
        off[name] = float(values.max() - values.min())
    masked = CompletionTask(d=30, rank=3, n_observed=270, data_seed=1, target="truncated").problem()
    values = torch.linalg.svdvals(trajectory(masked, OrthogonalStart(3, 0.3).full(masked), 1e-3, 0.0, 400)[-1, 0])[3:-3]
    assert off["orthogonal"] < 1e-13
    assert off["gaussian"] > 0.1
    assert float(values.max() - values.min()) > 1e-3


@settings(max_examples=15, deadline=None)
@given(experiments(), st.integers(0, 2))
def test_compressed_training_is_the_projected_full_training_and_keeps_proposition_1(experiment, extra):
    problem, start, rank, lr, weight_decay = experiment
    d = problem.shape[0]
    rank_bound = min(rank + extra, (d - 1) // 2)
    initial = start.full(problem)
    frames = invariant_frames(initial, problem.values, rank_bound)
    full = trajectory(problem, initial, lr, weight_decay)
    small = trajectory(project(problem, frames), compress(initial, frames), lr, weight_decay)
    scales = middle_scales(start.layer_scales, lr, STEPS, weight_decay)
    product, compressed = full[:, 0], small[:, 0]
    for layer in range(start.depth):
        projected = frames.frames[layer + 1][0].mT @ full[:, layer] @ frames.frames[layer][0]
        assert float((projected - small[:, layer]).abs().max()) < 1e-10
        if layer:
            product, compressed = full[:, layer] @ product, small[:, layer] @ compressed
    gap = torch.linalg.matrix_norm(product - frames.left[0] @ compressed @ frames.right[0].mT).square()
    bound = compression_bound(start.layer_scales, d, rank_bound)
    assert float((gap / bound).max()) <= 1 + 1e-10
    assert float((gap - compression_gap(scales, d, rank_bound)).abs().max()) < 1e-12 * max(bound, 1.0)


def test_the_bound_fails_beyond_the_step_size_condition():
    problem = full_observation(torch.zeros(6, 6, dtype=torch.float64))
    start = OrthogonalStart(2, 3.0)
    initial = start.full(problem)
    frames = invariant_frames(initial, random_low_rank((6, 6), 1, 0), 1)
    full = gradient_descent(problem, initial, Descent(lr=0.3, stop=0.0, max_steps=1)).factorization.end_to_end()[0]
    small = gradient_descent(
        project(problem, frames), compress(initial, frames), Descent(lr=0.3, stop=0.0, max_steps=1)
    ).factorization.end_to_end()[0]
    gap = torch.linalg.matrix_norm(full - frames.left[0] @ small @ frames.right[0].mT).square()
    assert bounded_lr((3.0, 3.0)) < 0.3
    assert float(gap) / compression_bound((3.0, 3.0), 6, 1) == pytest.approx(8.35, abs=0.01)


@pytest.mark.parametrize(("observed", "rank_bound"), [(900, 3), (900, 5), (360, 3), (360, 14)])
def test_the_thin_frames_span_what_a_dense_decomposition_finds(observed, rank_bound):
    problem = CompletionTask(d=30, rank=3, n_observed=observed, data_seed=2, target="truncated").problem()
    start = OrthogonalStart(3, (0.5, 1.3, 0.9), 4).full(problem)
    frames = invariant_frames(start, problem.values, rank_bound)
    left, values, right = torch.linalg.svd(problem.values)
    leading = (left[:, :rank_bound] * values[:rank_bound]) @ right[:rank_bound]
    first, second, third = (factor[0] for factor in start.factors)
    psi = (third @ second).mT @ leading
    stacked = torch.cat([psi, psi.mT @ first / 0.5])
    dense = torch.linalg.svd(stacked)[2].mT[:, : 2 * min(rank_bound, 3 if observed == 900 else rank_bound)]
    assert float(subspace_angles(frames.right[0].numpy(), dense.numpy()).max()) < 1e-8
    # What is left out is annihilated by both blocks, as the proof asks.
    assert dense.shape[1] <= frames.right.shape[-1]
    inert = null_space(frames.right[0].mT.numpy())
    assert np.abs(stacked.numpy() @ inert).max() < 1e-10
    for number, factor in enumerate((first, second, third)):
        scale = (0.5, 1.3, 0.9)[number]
        assert torch.allclose(factor @ frames.frames[number][0] / scale, frames.frames[number + 1][0], atol=1e-12)


def test_expanding_gives_the_full_factors_back():
    problem = full_observation(truncated_gaussian((20, 20), 2, 0))
    start = OrthogonalStart(3, (0.4, 0.9, 1.1), 7)
    initial = start.full(problem)
    frames = invariant_frames(initial, problem.values, 2)
    method = Descent(lr=2e-3, stop=0.0, max_steps=60, weight_decay=0.05)
    full = gradient_descent(problem, initial, method).factorization
    cores = gradient_descent(project(problem, frames), compress(initial, frames), method).factorization
    scales = middle_scales(start.layer_scales, 2e-3, 60, 0.05)[-1:]
    for ours, theirs in zip(expand(cores, frames, initial, scales).factors, full.factors, strict=True):
        assert torch.allclose(ours, theirs, atol=1e-12)


def test_a_projected_problem_has_the_loss_of_the_framed_one_and_no_large_matrix_in_its_state():
    problem = full_observation(truncated_gaussian((24, 24), 4, 3), "mean")
    initial = OrthogonalStart(2, 0.5, 1).full(problem)
    frames = invariant_frames(initial, problem.values, 3)  # below the rank: something stays outside
    cores = compress(initial, frames)
    small, framed = project(problem, frames), with_frames(cores, frames)
    assert float(small.outside) > 1.0
    assert float(small.loss(cores.end_to_end())) == pytest.approx(float(problem.loss(framed.end_to_end())), rel=1e-12)
    assert torch.allclose(small.lift(cores.end_to_end()), framed.end_to_end(), atol=1e-13)
    out, whole = torch.empty_like(cores.state), torch.empty_like(framed.state)
    Evaluator(small, cores.widths, 1).squares_and_gradient(cores.state, out)
    Evaluator(problem, framed.widths, 1).squares_and_gradient(framed.state, whole)
    assert torch.allclose(out[0], whole[0, 24 * 6 : -24 * 6], atol=1e-13)


def masked(**fields):
    return CompletionTask(d=60, rank=2, n_observed=1500, data_seed=0, target="truncated", **fields)


def test_completion_needs_frames_that_move():
    method, options = Flow(stop=1e-9, horizon=400.0), {"seed": (0,)}
    fixed, moving = (
        sweep(masked(), CompressedStart(rank_bound=2, discrepant_rate=rate), method, **options).isel(seed=0)
        for rate in (0.0, 0.01)
    )
    assert int(moving["status"]) == Status.CONVERGED
    assert float(moving["final_relative_error"]) < 1e-6
    assert float(fixed["final_relative_error"]) > 1e-3
    truth = sweep(masked(), CompressedStart(rank_bound=2, frames_from="truth"), method, **options).isel(seed=0)
    assert float(truth["final_relative_error"]) < 1e-4 * float(fixed["final_relative_error"])


def test_the_flow_of_slow_frames_is_the_limit_of_descent():
    start, moments = CompressedStart(rank_bound=2, discrepant_rate=0.05, layer_scale=0.1), (0.0, 5.0, 20.0)
    flow = sweep(masked(), start, Flow(stop=0.0, horizon=20.0, rtol=1e-5), record=(RelativeError(),), record_at=moments)
    for lr, allowed in ((4e-3, 0.05), (1e-3, 0.0125)):
        steps = tuple(round(moment / lr) for moment in moments)
        method = Descent(lr=lr, stop=0.0, max_steps=steps[-1])
        descent = sweep(masked(), start, method, record=(RelativeError(),), record_at=steps)
        assert np.allclose(descent["relative_error"], flow["relative_error"], rtol=allowed)


def test_frames_at_rate_zero_stay_where_they_are():
    problem = masked().problem()
    begun = CompressedStart(rank_bound=2).begin(problem)
    assert begun.factor_rates == (0.0, 1.0, 1.0, 1.0, 0.0)
    method = Descent(lr=1e-2, stop=0.0, max_steps=50, weight_decay=0.1, factor_rates=begun.factor_rates)
    after = gradient_descent(problem, begun.factorization, method).factorization
    assert torch.equal(after.factors[0], begun.factorization.factors[0])
    assert torch.equal(after.factors[-1], begun.factorization.factors[-1])
    assert not torch.equal(after.factors[1], begun.factorization.factors[1])


def test_a_compressed_sweep_reports_in_the_terms_of_the_full_problem():
    task = FullObservationTask(d=40, rank=3, target="truncated")
    moments, record = (0.0, 3.0, 10.0), (RelativeError(), Loss(), TargetCoordinates(3))
    method = Flow(stop=0.0, horizon=10.0, rtol=1e-6)
    wide = sweep(task, OrthogonalStart(layer_scale=0.05), method, record=record, record_at=moments)
    thin = sweep(task, CompressedStart(layer_scale=0.05, rank_bound=3), method, record=record, record_at=moments)
    # Proposition 1: end-to-end matrices differ by at most sqrt(34) * 0.05^3.
    allowed = math.sqrt(compression_bound((0.05,) * 3, 40, 3))
    assert float(np.abs(thin["coordinate"] - wide["coordinate"]).max()) < allowed
    assert np.allclose(thin["relative_error"], wide["relative_error"], rtol=1e-3)
    assert np.allclose(thin["mean_square"] * 1600, thin["relative_error"] * float(task.ground_truth().square().sum()))
    assert thin["final_singular_value"].shape == wide["final_singular_value"].shape
    assert float(thin["coordinate_share"][-1]) == pytest.approx(1.0, abs=1e-4)


def test_coordinates_are_those_of_the_bases():
    problem = masked().problem()
    left, right = target_bases(problem, 2)
    assert left.shape == (60, 4)
    assert torch.allclose(left.mT @ left, torch.eye(4, dtype=torch.float64), atol=1e-12)
    # The truth lies in the bases, and so do the leading directions of what is observed of it.
    assert torch.allclose(left @ (left.mT @ problem.ground_truth @ right) @ right.mT, problem.ground_truth, atol=1e-9)
    top = torch.linalg.svd(problem.values)[0][:, :2]
    assert torch.allclose(left @ (left.mT @ top), top, atol=1e-9)


def test_the_unobserved_error_counts_unobserved_entries_only():
    problem = masked().problem()
    run = sweep(
        masked(), OrthogonalStart(layer_scale=0.1), Descent(max_steps=0), record=(UnobservedError(),), record_at=(0,)
    )
    initial = OrthogonalStart(layer_scale=0.1).full(problem).end_to_end()[0]
    wrong = (initial - problem.ground_truth)[problem.mask == 0]
    assert float(run["unobserved_error"].squeeze()) == pytest.approx(
        0.5 * float(wrong.square().sum()) / 3600, rel=1e-12
    )


def test_p_of_several_scales_leaves_one_out():
    assert others_squared(torch.tensor([2.0, 3.0, 0.0])).tolist() == [0.0, 0.0, 36.0]
    assert others_squared(torch.tensor([5.0])).tolist() == [1.0]


def test_the_target_is_the_leading_part_of_a_gaussian_matrix():
    values = torch.linalg.svdvals(truncated_gaussian((200, 200), 5, 0))
    assert float(values[5]) < 1e-10
    assert 0.9 < float(values[4]) / (2 * math.sqrt(200)) <= float(values[0]) / (2 * math.sqrt(200)) < 1.05


def test_fields_added_later_do_not_change_the_keys_of_older_results():
    assert key_values(CompletionTask()) == {
        "kind": "CompletionTask",
        **{"d": 100, "rank": 5, "n_observed": 2000, "data_seed": 0, "normalisation": "half_sum", "target_norm": None},
    }
    assert key_values(CompletionTask(target="truncated"))["target"] == "truncated"


def test_a_start_begins_with_what_initialise_gives():
    problem = masked().problem()
    begun = Start(depth=2, init_scale=0.3, seed=5).begin(problem)
    assert isinstance(begun, InitialPoint)
    assert torch.equal(begun.factorization.state, initialise("gaussian", (60, 60, 60), [0.3], [5]).state)


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: frames_of(rank_bound=0), "rank_bound = 0 is not allowed"),
        (lambda: frames_of(rank_bound=5), "0 < 2 \\* rank_bound < d"),
        (lambda: frames_of(kind="gaussian"), "not a multiple of an orthogonal matrix"),
        (lambda: frames_of(widths=(10, 8, 10)), "square factors of one size"),
        (lambda: begin(rank_bound=30), "rank_bound = 30 is not allowed"),
        (lambda: begin(discrepant_rate=-0.1), "discrepant_rate = -0.1 is not allowed"),
        (lambda: begin(frames_from="guess"), "frames_from = 'guess' is not allowed"),
        (lambda: begin(layer_scale=0.0), "layer_scale = 0.0 is not allowed"),
        (lambda: begin(layer_scale=(0.1, 0.2)), "2 layer scales were given for depth 3"),
        (lambda: FullObservationTask(target="wide").problem(), "target = 'wide' is not allowed"),
        (lambda: sweep(masked(), OrthogonalStart(), Descent(factor_rates=(1.0,))), "1 factor_rates were given"),
        (lambda: sweep(masked(), OrthogonalStart(), Descent(factor_rates=(0.0,) * 3)), "not all 0"),
    ],
)
def test_bad_input_gets_one_sentence(call, sentence):
    with pytest.raises(InputError, match=sentence):
        call()


def frames_of(kind="orthogonal", widths=(10, 10, 10), rank_bound=2):
    return invariant_frames(initialise(kind, widths, [1.0], [0]), random_low_rank((10, 10), 2, 0), rank_bound)


def begin(**fields):
    return CompressedStart(**fields).begin(masked().problem())
