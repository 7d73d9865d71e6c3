"""The inert space of Theorem 1 (Yaras et al. 2023), the frames of its proof, and sharpness at global minima."""

import numpy as np
import pytest
import torch
from scipy.linalg import subspace_angles

from dmfkit import (
    Descent,
    InputError,
    OrthogonalStart,
    Status,
    full_observation,
    gradient_descent,
    invariant_frames,
    truncated_gaussian,
)
from dmfkit.theory import (
    block_structure,
    carried_frames,
    flattest_sharpness,
    inert_space,
    lemma_residuals,
    middle_scales,
    minimum_sharpness,
    step_size_map,
)
from dmfkit.training.recorders import Factors


def made(d=14, rank=2, scales=(0.5, 1.3, 0.9), seed=3):
    problem = full_observation(truncated_gaussian((d, d), rank, seed))
    return problem, [factor[0] for factor in OrthogonalStart(len(scales), scales, seed).full(problem).factors]


def trained(problem, factors, lr, steps, weight_decay=0.0):
    start = OrthogonalStart(len(factors), (1.0,) * len(factors)).full(problem)
    start = type(start).from_factors([factor[None] for factor in factors])
    method = Descent(lr=lr, stop=0.0, max_steps=steps, weight_decay=weight_decay)
    return gradient_descent(problem, start, method, record=(Factors(),), record_at=range(steps + 1)).records["factor"][
        0
    ]


@pytest.mark.parametrize(("d", "rank"), [(14, 2), (9, 4), (10, 5), (8, 1)])
def test_the_inert_space_is_annihilated_and_as_large_as_it_can_be(d, rank):
    problem, factors = made(d, rank)
    inert = inert_space(factors, problem.values)
    assert inert.shape == (d, max(d - 2 * rank, 0))
    assert float((problem.values @ inert).abs().sum()) < 1e-11
    carried = factors[2] @ factors[1] @ factors[0] @ inert
    assert float((problem.values.mT @ carried).abs().sum()) < 1e-11


def test_alignment_enlarges_the_inert_space():
    problem, factors = made()
    left, _, right = torch.linalg.svd(problem.values)
    later = factors[2] @ factors[1] / (1.3 * 0.9)
    assert inert_space([later.mT @ left @ right, *factors[1:]], problem.values).shape[1] == 14 - 2
    assert inert_space(factors, torch.zeros(14, 14, dtype=torch.float64)).shape[1] == 14


def test_frames_are_orthogonal_and_make_the_start_a_multiple_of_the_identity():
    problem, factors = made()
    frames = carried_frames(factors, inert_space(factors, problem.values))
    eye = torch.eye(14, dtype=torch.float64)
    assert all(torch.allclose(frame.mT @ frame, eye, atol=1e-13) for frame in frames)
    blocks = block_structure(torch.stack(factors)[None], frames, 4).blocks[0]
    for block, scale in zip(blocks, (0.5, 1.3, 0.9), strict=True):
        assert torch.allclose(block, scale * eye, atol=1e-13)


def test_lemma_1_holds_along_training_and_a_wrong_frame_shows():
    problem, factors = made()
    frames = carried_frames(factors, inert_space(factors, problem.values))
    weights, rho = trained(problem, factors, 4e-3, 300, 0.05), middle_scales((0.5, 1.3, 0.9), 4e-3, 300, 0.05)
    residuals = lemma_residuals(weights, frames, 4, problem.values, rho)
    assert set(residuals) == set("ABCD")
    assert max(float(value.max()) for value in residuals.values()) < 1e-12
    structure = block_structure(weights, frames, 4)
    assert float(structure.off.max()) < 1e-13
    assert float(structure.rest(rho).max()) < 1e-13
    assert structure.core.shape == (301, 3, 4, 4)
    # One learned direction too few on the upper block, or frames in the wrong place.
    assert float(block_structure(weights, frames, 3).off[-1].max()) > 1e-3
    wrong = lemma_residuals(weights, (frames[1], *frames[1:]), 4, problem.values, rho)
    assert float(wrong["A"].max()) > 1e-2


def test_the_share_off_the_blocks_counts_both_of_them():
    blocks = torch.zeros(1, 1, 3, 3, dtype=torch.float64)
    blocks[0, 0, 0, 2], blocks[0, 0, 2, 0], blocks[0, 0, 1, 1] = 3.0, 4.0, 12.0
    structure = block_structure(blocks, [torch.eye(3, dtype=torch.float64)] * 2, 1)
    assert float(structure.off) == 4.0
    assert float(structure.off_share) == pytest.approx(5 / 13)


def test_after_one_step_as_many_singular_values_are_above_as_below():
    problem, factors = made()
    for lr in (1e-3, 0.3, 5.0):
        rho = middle_scales((0.5, 1.3, 0.9), lr, 1, 0.1)[1].abs()
        values = torch.linalg.svdvals(trained(problem, factors, lr, 1, 0.1)[1])
        assert ((values > rho[:, None] + 1e-9).sum(1) == 2).all()
        assert ((values < rho[:, None] - 1e-9).sum(1) == 2).all()


def test_sharpness_is_the_largest_eigenvalue_of_the_hessian_and_bounded_below():
    problem = made(d=5, rank=1)[0]
    start = OrthogonalStart(2, (0.5, 0.9), 3).full(problem)
    end = gradient_descent(problem, start, Descent(lr=2e-2, stop=1e-26, max_steps=20000))
    assert int(end.status[0]) == Status.CONVERGED
    target = problem.values

    def loss(state):
        one, two = state[:25].view(5, 5), state[25:].view(5, 5)
        return 0.5 * (two @ one - target).square().sum()

    hessian = torch.autograd.functional.hessian(loss, end.factorization.state[0])
    sharpness = minimum_sharpness([factor[0].numpy() for factor in end.factorization.factors])
    assert sharpness == pytest.approx(float(torch.linalg.eigvalsh(hessian)[-1]), rel=1e-8)
    assert sharpness >= flattest_sharpness(float(torch.linalg.svdvals(target)[0]), 2)


def test_a_balanced_factorization_is_the_flattest_minimum():
    left, values, right = np.linalg.svd(np.random.default_rng(0).standard_normal((6, 6)))
    root = np.diag(values ** (1 / 3))
    factors = [root @ right, root, left @ root]
    assert minimum_sharpness(factors) == pytest.approx(flattest_sharpness(values[0], 3), rel=1e-10)


def test_the_frames_agree_with_the_thin_ones():
    problem, factors = made()
    frames = carried_frames(factors, inert_space(factors, problem.values))
    start = OrthogonalStart(3, (0.5, 1.3, 0.9), 3).full(problem)
    for dense, thin in zip(frames, invariant_frames(start, problem.values, 2).frames, strict=True):
        assert float(subspace_angles(dense[:, :4].numpy(), thin[0].numpy()).max()) < 1e-12


def test_shapes_that_do_not_fit_are_refused():
    weights, eye = torch.zeros(1, 2, 4, 4, dtype=torch.float64), torch.eye(4, dtype=torch.float64)
    with pytest.raises(InputError, match="2 frames were given for 2 layers"):
        block_structure(weights, [eye, eye], 2)
    with pytest.raises(InputError, match="size = 4 is not allowed"):
        block_structure(weights, [eye] * 3, 4)


@pytest.mark.parametrize("depth", [2, 3, 4])
def test_the_thresholds_of_the_step_size_map_are_one_and_two(depth):
    outcome = step_size_map([0.4, 1.0, 3.0], [0.5, 0.999, 1.001, 1.999, 2.001], depth)
    assert (outcome[:2] == 0).all()
    assert (outcome[2:4] == 1).all()
    assert (outcome[4] >= 2).all()
    assert step_size_map([1.0], [2.5], depth)[0, 0] == 3
