"""Section 3 of Arora et al. (2019): every right-hand side against gradient flow of the factors themselves."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.integrate import solve_ivp
from small_problems import random_factors

from dmfkit import Descent, Factorization, InputError, gradient_descent, initialise, matrix_completion, theory
from dmfkit.errors import SolverError
from dmfkit.linalg.svd_paths import (
    SignedSVD,
    SVDVelocity,
    find_crossings,
    sorted_svd,
    svd_differences,
    track_around,
    track_svd,
)
from dmfkit.theory.small_flows import integrate

STEP = 1e-5
shapes = st.tuples(st.integers(2, 5), st.integers(2, 5))
seeds = st.integers(0, 10_000)
quick = settings(deadline=None, max_examples=20, derandomize=True)


def alternating(shape):
    return torch.tensor([(-1.0) ** r for r in range(min(shape))], dtype=torch.float64)


def flow(shape, depth, seed, horizon=0.3):
    """Flow on a loss that is no square, from a balanced start whose singular values lie well apart."""
    target = theory.spread_matrix(shape, 1.5, seed + 1)
    start = theory.balanced_factorization(theory.spread_matrix(shape, 2.0, seed)[None], depth)
    return theory.accurate_flow(lambda W: torch.tanh(W - target), start, horizon)


def sample(shape, depth, seed):
    return flow(shape, depth, seed).sample(torch.tensor([0.1, 0.3], dtype=torch.float64), alternating(shape))


def extrapolated_differences(at):
    """Central differences without their leading error, h^2 / 6 times the third derivative: that is of order 1e5 and
    more where two singular values come as near as some of the examples let them."""
    coarse, fine = at.differences(2 * STEP), at.differences(STEP)
    parts = ((4 * getattr(fine, name) - getattr(coarse, name)) / 3 for name in ("left", "values", "right"))
    return SVDVelocity(*parts)


def close(actual, expected, tolerance):
    torch.testing.assert_close(actual, expected, rtol=0, atol=tolerance)


# Lemma 3


@quick
@given(shape=shapes, depth=st.integers(1, 6), seed=seeds)
def test_the_product_moves_as_lemma_3_says(shape, depth, seed):
    made = theory.balanced_factorization(theory.spread_matrix(shape, 2.0, seed)[None], depth)
    gradient = torch.randn(1, *shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    by_factors = theory.product_velocity(made, [-part for part in made.pull_back(gradient)])
    # Velocities are of order 10; rounding of the powers is all that may differ.
    close(theory.end_to_end_velocity(made.end_to_end(), gradient, depth), by_factors, 1e-11)


def test_lemma_3_holds_for_wide_hidden_layers_and_singular_products():
    wide = initialise("balanced", (4, 7, 9, 6), [2.0], [0])
    singular = theory.spread_matrix((4, 4), 2.0, 0)
    left, values, right = torch.linalg.svd(singular)
    singular = singular - values[-1] * torch.outer(left[:, -1], right[-1])
    for made in (wide, theory.balanced_factorization(singular[None], 3)):
        gradient = torch.randn(1, *made.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
        by_factors = theory.product_velocity(made, [-part for part in made.pull_back(gradient)])
        # A singular value that is 1e-17 instead of zero gives its cube root, 2e-6, but only twice, and squared.
        close(theory.end_to_end_velocity(made.end_to_end(), gradient, made.depth), by_factors, 1e-9)


def test_lemma_3_needs_balanced_factors():
    made = random_factors((3, 4, 5), n_runs=1)
    gradient = torch.randn(1, 5, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    by_factors = theory.product_velocity(made, [-part for part in made.pull_back(gradient)])
    assert (theory.end_to_end_velocity(made.end_to_end(), gradient, 2) - by_factors).abs().max() > 0.1


@quick
@given(shape=shapes, depth=st.integers(1, 5), seed=seeds)
def test_balanced_factors_are_balanced_and_multiply_to_the_matrix(shape, depth, seed):
    matrix = theory.spread_matrix(shape, 2.0, seed)
    made = theory.balanced_factorization(matrix[None], depth)
    assert made.depth == depth
    close(made.end_to_end()[0], matrix, 1e-13)
    if depth > 1:
        assert float(made.imbalance().max()) < 1e-13


def test_product_velocity_is_the_derivative_of_the_product():
    made, toward = random_factors((3, 4, 2, 5), 1, seed=0), random_factors((3, 4, 2, 5), 1, seed=1)
    ends = [Factorization(made.state + s * 1e-6 * toward.state, made.widths).end_to_end() for s in (1, -1)]
    close(theory.product_velocity(made, toward.factors), (ends[0] - ends[1]) / 2e-6, 1e-7)


def test_field_asymmetry_tells_gradients_from_other_fields():
    point = theory.spread_matrix((2, 3), 1.0, 0)
    assert theory.field_asymmetry(lambda W: W**3, point) < 1e-10
    assert theory.field_asymmetry(torch.zeros_like, point) == 0.0


def test_for_a_row_at_depth_2_the_field_is_a_gradient_where_the_point_is_an_eigenvector_of_the_hessian():
    point, other = (theory.spread_matrix((1, 4), 2.0, seed) for seed in (0, 1))
    mask = torch.tensor([[1.0, 0.0, 1.0, 0.0]], dtype=torch.float64)

    def asymmetry(gradient_of, at=point):
        return theory.field_asymmetry(lambda W: theory.end_to_end_velocity(W, gradient_of(W), 2), at)

    assert asymmetry(lambda W: W - other) < 1e-8
    assert asymmetry(lambda W: mask * (W - other), mask * point) < 1e-8
    assert asymmetry(lambda W: mask * (W - other)) > 1e-2
    assert asymmetry(lambda W: torch.tanh(W - other)) > 1e-2


def test_turned_field():
    point = theory.spread_matrix((2, 3), 1.0, 0)
    turn = torch.tensor([[0.0, 1.0], [-1.0, 0.0]], dtype=torch.float64)
    assert theory.field_asymmetry(lambda W: turn @ W, point) == pytest.approx(2.0)


# the reference integrator


def test_factor_gradients_are_the_pulled_back_gradient():
    made = random_factors((3, 4, 2, 5), 1)
    expected = made.pull_back(torch.tanh(made.end_to_end()))
    found = theory.factor_gradients([factor[0].numpy() for factor in made.factors], np.tanh)
    for part, other in zip(found, expected, strict=True):
        close(torch.from_numpy(part), other[0], 1e-12)


def test_an_integration_ends_where_it_is_told_to_and_says_when_it_cannot_go_on():
    # y' = y^2 from 1 is 1 / (1 - t): 2 at time 1/2, infinite at time 1.
    options = {"velocity": np.square, "start": np.ones(1), "span": (0.0, 2.0), "rtol": 1e-12, "atol": 1e-12}
    found = integrate(**options, until=lambda state: state[0] - 2)
    assert found.status == 1
    assert found.t[-1] == pytest.approx(0.5, abs=1e-10)
    assert float(found.sol(0.2)[0]) == pytest.approx(1.25, abs=1e-10)
    with pytest.raises(SolverError, match="to time 2"):
        integrate(**options)


def test_a_path_is_the_same_at_its_own_times_and_when_it_is_asked():
    path = flow((4, 3), 3, 0)
    times = torch.from_numpy(path.times)
    made = path.factorization(times)
    # Steps end where the interpolant begins anew; rounding is all that may differ.
    for own, asked in zip(path.factors, made.factors, strict=True):
        close(torch.from_numpy(own), asked, 1e-14)
    close(torch.from_numpy(path.products), path.end_to_end(times), 1e-13)
    moving = torch.from_numpy(path.velocity)[1:-1]
    step = 1e-5
    slopes = (path.end_to_end(times[1:-1] + step) - path.end_to_end(times[1:-1] - step)) / (2 * step)
    close(moving, slopes, 1e-7)


def test_without_factors_the_flow_is_exponential():
    start, target = theory.spread_matrix((3, 2), 1.0, 0), theory.spread_matrix((3, 2), 2.0, 1)
    times = torch.tensor([0.0, 0.7, 2.0], dtype=torch.float64)
    exact = target + torch.exp(-times).view(-1, 1, 1) * (start - target)
    close(theory.flow_toward(target, start, 1, 2.0).end_to_end(times), exact, 1e-11)


def test_the_flow_takes_one_run_and_says_when_it_runs_off():
    with pytest.raises(InputError, match="2 runs"):
        theory.accurate_flow(torch.tanh, initialise("balanced", (2, 2), [1.0, 1.0], [0, 1]), 1.0)
    start = theory.balanced_factorization(torch.eye(2, dtype=torch.float64)[None], 3)
    with pytest.raises(InputError, match="earlier horizon"):
        theory.accurate_flow(lambda W: -W, start, 10.0)


# Theorem 3, Lemma 2 and Equation 41


@quick
@given(shape=shapes, depth=st.integers(1, 5), seed=seeds)
def test_singular_values_and_vectors_move_as_theorem_3_and_lemma_2_say(shape, depth, seed):
    at = sample(shape, depth, seed)
    moved = extrapolated_differences(at)
    close(theory.singular_value_velocity(at.svd, at.gradient, depth), moved.values, 1e-6)
    close(theory.left_velocity(at.svd, at.gradient, depth), moved.left, 1e-5)
    close(theory.right_velocity(at.svd, at.gradient, depth), moved.right, 1e-5)
    left, right = theory.vectors_from_velocity(at.svd, at.velocity)
    close(left, moved.left, 1e-5)
    close(right, moved.right, 1e-5)
    s = torch.diag_embed(at.svd.values)
    turned = at.svd.left.mT @ moved.left @ s - s @ at.svd.right.mT @ moved.right
    weights = theory.off_diagonal(min(shape)) * theory.depth_weights(at.svd.values, depth)
    close(turned, -weights * at.svd.rotate(at.gradient), 1e-5)


def test_errors_of_differences_fall_as_the_square_of_the_step():
    at = sample((5, 3), 3, 2)
    for formula, part in (
        (theory.singular_value_velocity, "values"),
        (theory.left_velocity, "left"),
        (theory.right_velocity, "right"),
    ):
        exact = formula(at.svd, at.gradient, 3)
        coarse, fine = (float((exact - getattr(at.differences(h), part)).abs().max()) for h in (1e-2, 1e-3))
        assert math.log10(coarse / fine) == pytest.approx(2.0, abs=0.02)


def test_what_the_printed_forms_get_wrong():
    tall, wide, square = (sample(shape, 2, 0) for shape in ((5, 3), (3, 5), (4, 4)))
    for at, off in ((tall, True), (wide, False), (square, False)):
        error = theory.left_velocity_as_printed(at.svd, at.gradient, 2) - theory.left_velocity(at.svd, at.gradient, 2)
        assert (float(error.abs().max()) > 0.1) is off
    positive = tall.svd.with_signs(alternating((5, 3)))
    close(
        theory.left_velocity_as_printed(positive, tall.gradient, 2),
        theory.left_velocity(positive, tall.gradient, 2),
        1e-13,
    )
    right = theory.right_velocity(wide.svd, wide.gradient, 2)
    assert float((theory.right_velocity_as_printed(wide.svd, wide.gradient, 2) - right).abs().max()) > 0.1
    # With the signs put right the transpose is still wrong.
    transposed = theory.right_velocity_as_printed(wide.svd, wide.gradient, 2, signed=True)
    assert float((transposed - right).abs().max()) > 0.1
    right = theory.right_velocity(square.svd, square.gradient, 2)
    close(theory.right_velocity_as_printed(square.svd, square.gradient, 2), right, 1e-12)
    with pytest.raises(InputError, match="only exists"):
        theory.right_velocity_as_printed(tall.svd, tall.gradient, 2)


@pytest.mark.parametrize("values", [[1.0, 1.0, 0.5], [1.0, -1.0, 0.5], [1.0, 0.0, 0.0]])
def test_repeated_squares_are_refused_in_one_sentence(values):
    eye = torch.eye(3, dtype=torch.float64)
    svd = SignedSVD(eye, torch.tensor(values, dtype=torch.float64), eye)
    for call in (lambda: theory.left_velocity(svd, eye, 2), lambda: theory.vectors_from_velocity(svd, eye)):
        with pytest.raises(InputError, match="same square") as caught:
            call()
        assert "\n" not in str(caught.value)


def test_a_single_zero_is_refused_only_where_there_is_room_outside_the_span():
    values = torch.tensor([2.0, 1.0, 0.0], dtype=torch.float64)
    eye, tall = torch.eye(3, dtype=torch.float64), torch.eye(4, 3, dtype=torch.float64)
    svd = SignedSVD(tall, values, eye)
    for call in (lambda: theory.left_velocity(svd, tall, 3), lambda: theory.vectors_from_velocity(svd, tall)):
        with pytest.raises(InputError, match="not square") as caught:
            call()
        assert "\n" not in str(caught.value)
    assert bool(torch.isfinite(theory.right_velocity(svd, tall, 3)).all())


@pytest.mark.parametrize("depth", [2, 3, 4])
def test_lemma_2_holds_for_a_square_matrix_with_one_value_that_is_zero_for_all_time(depth):
    start = torch.diag(torch.tensor([2.0, 1.0, 0.5, 0.0], dtype=torch.float64))
    path = theory.flow_toward(theory.spread_matrix((4, 4), 2.0, 5), start, depth, 0.4)
    at = path.sample(torch.tensor([0.1, 0.3], dtype=torch.float64))
    moved = at.differences(STEP)
    assert float(at.svd.values[:, 3].abs().max()) < 1e-13
    close(theory.left_velocity(at.svd, at.gradient, depth), moved.left, 1e-6)
    close(theory.right_velocity(at.svd, at.gradient, depth), moved.right, 1e-6)
    # The vectors of the zero are among those that turn.
    assert float(moved.left[..., 3].abs().max()) > 1e-2


@quick
@given(seed=seeds, depth=st.integers(1, 6), size=st.integers(2, 5))
def test_coefficient_matrices(seed, depth, size):
    random = np.random.default_rng(seed)
    values = torch.from_numpy((np.arange(size) + random.uniform(0.3, 0.7, size)) * random.choice([-1, 1], size))
    g, f = theory.depth_weights(values, depth), theory.rotation_rates(values, depth)
    close(theory.inverse_square_differences(values) * g, f, 1e-11)
    close(f, -f.T, 1e-12)
    close(g, g.T, 1e-12)
    close(g.diagonal(), theory.depth_factor(values, depth), 1e-12)
    # Off the diagonal of E, by its definition through a commutator with S^2.
    matrix = torch.from_numpy(random.standard_normal((size, size)))
    squares = torch.diag(values**2)
    close(matrix @ squares - squares @ matrix, theory.square_differences(values) * matrix, 1e-11)


def test_depth_factor_is_one_at_depth_1_even_at_zero():
    values = torch.tensor([0.0, -2.0, 0.5], dtype=torch.float64)
    assert theory.depth_factor(values, 1).tolist() == [1.0, 1.0, 1.0]
    assert theory.depth_factor(values, 2).tolist() == [0.0, 4.0, 1.0]


# Lemma 4


@quick
@given(
    exponent=st.floats(0.5, 2.0),
    start=st.floats(-1.0, 1.0).filter(lambda s: s == 0 or abs(s) > 1e-3),
    pull=st.floats(-2.0, 2.0),
)
def test_the_scalar_law_against_an_integrator(exponent, start, pull):
    def integral(t):
        return pull * t + (1 - np.cos(2 * t)) / 2

    # Left out: an integral that only just reaches, or just misses, the level at which the solution runs off.
    level = theory.blow_up_integral(start, exponent)
    if np.isfinite(level):
        assume(abs((integral(np.linspace(0, 2, 400)) / level).max() - 1) > 0.05)
    end = theory.blow_up_time(start, exponent, integral, 2.0)
    times = np.linspace(0, min(2.0, 0.8 * end), 20)
    found = solve_ivp(
        lambda t, s: (s**2) ** exponent * (pull + np.sin(2 * t)),
        (0, times[-1]),
        [start],
        method="DOP853",
        rtol=1e-11,
        atol=1e-13,
        t_eval=times,
    ).y[0]
    exact = theory.scalar_solution(start, exponent, integral(times))
    np.testing.assert_allclose(found, exact, rtol=1e-7, atol=1e-9)
    assert (np.sign(exact) == np.sign(start)).all()


@pytest.mark.parametrize("depth", [2, 3, 5])
@pytest.mark.parametrize("scale", [0.5, 1.1, 2.0])
def test_rescaled_end_factors_move_the_values_faster_by_a_known_ratio(depth, scale):
    matrix, gradient = (theory.spread_matrix((4, 4), 2.0, seed) for seed in (0, 1))
    made = theory.balanced_factorization(matrix[None], depth)
    first, *middle, last = made.factors
    made = Factorization.from_factors([first * scale, *middle, last / scale])
    velocity = theory.product_velocity(made, [-part for part in made.pull_back(gradient[None])])[0]
    svd = sorted_svd(matrix)
    expected = (scale**2 + scale**-2 + depth - 2) / depth * theory.singular_value_velocity(svd, gradient, depth)
    close(svd.rotate(velocity).diagonal(), expected, 1e-12)


def test_blow_up():
    # s' = s^2 from 1/2 is 1 / (2 - t).
    assert theory.blow_up_time(0.5, 1.0, lambda t: t, 5.0) == pytest.approx(2.0, abs=1e-12)
    assert theory.blow_up_time(0.5, 1.0, lambda t: t, 1.9) == math.inf
    assert theory.blow_up_time(-0.5, 1.0, lambda t: -t, 5.0) == pytest.approx(2.0, abs=1e-12)
    assert theory.blow_up_time(0.5, 0.5, lambda t: t, 50.0) == math.inf
    assert theory.blow_up_integral(0.0, 1.0) == math.inf
    assert np.isnan(theory.scalar_solution(0.5, 1.0, np.array([2.5]))).all()
    for call in (lambda: theory.scalar_solution(0.1, 0.25, np.zeros(1)), lambda: theory.blow_up_integral(0.1, 0.25)):
        with pytest.raises(InputError, match=r"exponent = 0\.25"):
            call()


# Lemma 1: the tracked decomposition


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_tracking_goes_through_crossings_where_sorting_jumps(depth):
    start, target = theory.crossing_pair(1)
    path = theory.flow_toward(target, start, depth, 1.5)
    times = torch.linspace(0, 1.5, 61, dtype=torch.float64)
    svd = track_svd(path.end_to_end, times)
    close(svd.matrix(), path.end_to_end(times), 1e-12)
    crossings = find_crossings(path.end_to_end, svd, times)
    assert len(crossings) == 4
    assert all(crossing.first != crossing.second for crossing in crossings)
    jumps = {"followed": [], "sorted": []}
    for step in (1e-2, 1e-4):
        for name, pair in zip(jumps, track_around(path.end_to_end, times, crossings[0].time, step), strict=True):
            close(
                pair.matrix(),
                path.end_to_end(crossings[0].time + torch.tensor([-step, step], dtype=torch.float64)),
                1e-12,
            )
            jumps[name].append(float(pair.left.diff(dim=0).abs().max()) / step)
    assert jumps["followed"][1] == pytest.approx(jumps["followed"][0], rel=0.05)
    assert jumps["sorted"][1] > 50 * jumps["sorted"][0]


def test_a_value_changes_its_sign_without_factors_only():
    start, target = theory.singular_passage((5, 3), 0)
    times = torch.linspace(0, 2, 41, dtype=torch.float64)
    for depth, expected in ((1, [math.log(2)]), (2, []), (3, [])):
        path = theory.flow_toward(target, start, depth, 2.0)
        svd = track_svd(path.end_to_end, times)
        found = [c.time for c in find_crossings(path.end_to_end, svd, times) if c.first == c.second]
        assert found == pytest.approx(expected, abs=1e-9)


def test_tracking_keeps_the_signs_it_was_given():
    path = theory.SmoothPath((4, 3), 0)
    times = torch.linspace(0, 2, 21, dtype=torch.float64)
    svd = track_svd(path.at, times, alternating((4, 3)))
    assert bool((svd.values.sign() == alternating((4, 3))).all())
    moved = svd_differences(path.at, svd, times, STEP)
    close(moved.values, svd.rotate(path.velocity(times)).diagonal(dim1=1, dim2=2), 1e-9)


def test_values_that_stay_equal_cannot_be_followed_through_a_jump():
    turn = torch.tensor([[0.0, 1.0], [-1.0, 0.0]], dtype=torch.float64)

    def path(times):
        # A jump: no subdivision makes the vectors of the second half continue those of the first.
        late = (times > 0.5).double().view(-1, 1, 1)
        tilted = torch.matrix_exp(torch.pi / 4 * turn)
        base = torch.diag(torch.tensor([2.0, 1.0], dtype=torch.float64))
        return (1 - late) * base + late * (tilted @ base @ tilted.T)

    with pytest.raises(InputError, match="cannot be followed") as caught:
        track_svd(path, torch.tensor([0.0, 1.0], dtype=torch.float64))
    assert "\n" not in str(caught.value)


# Corollary 1


@quick
@given(shape=shapes, depth=st.integers(1, 4), seed=seeds)
def test_resting_vectors_and_aligned_gradients_are_the_same(shape, depth, seed):
    generator = torch.Generator().manual_seed(seed + 20_000)
    svd = sorted_svd(theory.spread_matrix(shape, 2.0, seed)).with_signs(alternating(shape))
    gradient = torch.randn(*shape, generator=generator, dtype=torch.float64)
    constant = theory.alignment_constant(svd.values, depth)
    moving = theory.movement(svd, gradient, depth)
    assert theory.misalignment(svd, gradient) <= constant * moving * (1 + 1e-12)
    rest = theory.unaligned_part(svd, gradient)
    outside = [rest - svd.left @ (svd.left.mT @ rest), rest - rest @ svd.right @ svd.right.mT]
    other = theory.complement_constant(svd.values, depth)
    assert max(float(part.norm()) for part in outside) <= other * moving * (1 + 1e-12) + 1e-13
    assert rest.norm() <= max(constant, other) * moving * (1 + 1e-12)
    aligned = (svd.left * torch.randn(min(shape), generator=generator, dtype=torch.float64)) @ svd.right.mT
    assert theory.movement(svd, aligned, depth) < 1e-12
    assert float(theory.unaligned_part(svd, aligned).norm()) < 1e-13
    # Every gradient under which the vectors rest is aligned: the kernel has no more room than the diagonal.
    matrix = theory.movement_map(svd, depth)
    gains = torch.linalg.svdvals(matrix)
    assert int((gains > 1e-10 * gains[0]).sum()) == shape[0] * shape[1] - min(shape)
    idle = torch.linalg.svd(matrix)[2][-min(shape) :].view(-1, *shape)
    assert float(theory.unaligned_part(svd, idle).abs().max()) < 1e-9
    left = theory.left_velocity(svd, gradient, depth)
    close((matrix @ gradient.flatten())[: left.numel()], left.flatten(), 1e-11)


# Theorem 3 under descent


def test_recorded_speeds_are_those_of_descent():
    problem = matrix_completion(theory.spread_matrix((6, 6), 3.0, 0), 24, 0)
    start = initialise("balanced", (6, 6, 6, 6), [1.0], [1])
    settings_ = Descent(lr=1e-4, stop=0.0, max_steps=3)
    run = gradient_descent(
        problem, start, settings_, record=(theory.SingularValueSpeeds(3),), record_at=(0, 1, 2), on_end=None
    )
    values = run.records["singular_value"][0]
    measured = (values[2] - values[0]) / 2e-4
    # Balanced start: both predictions agree but for the imbalance that two steps make, of order lr.
    torch.testing.assert_close(measured, run.records["predicted_velocity"][0, 1], rtol=1e-2, atol=1e-3)
    close(run.records["predicted_velocity"][0, 0], run.records["flow_velocity"][0, 0], 1e-12)
    assert float(run.records["largest_imbalance"][0, 0]) < 1e-12
    single = initialise("balanced", (6, 6), [1.0], [1])
    run = gradient_descent(problem, single, settings_, record=(theory.SingularValueSpeeds(3),), record_at=(0,))
    assert run.records["largest_imbalance"].tolist() == [[0.0]]
