"""Norms in theory: endpoints against integrated flows, certificates against solvers, on random problems."""

from __future__ import annotations

import math
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog

import dmfkit as dm
from dmfkit import theory

# Examples are chosen anew only when a test changes, so a failure can be seen again.
few = settings(deadline=None, max_examples=25, derandomize=True)
fewer = settings(deadline=None, max_examples=10, derandomize=True)
seeds = st.integers(0, 10_000)


@st.composite
def problems(draw):
    d = draw(st.integers(2, 7))
    m, rank = draw(st.integers(1, d - 1)), draw(st.integers(1, d))
    return theory.random_commuting(d, m, rank, draw(seeds))


# The problem


@few
@given(problems())
def test_a_random_problem_commutes_and_is_fitted_by_a_positive_definite_matrix(problem):
    A = problem.measurements
    scale = np.abs(A).max() ** 2
    assert max(np.abs(A[i] @ A - A @ A[i]).max() for i in range(len(A))) < 1e-12 * scale
    np.testing.assert_array_equal(A, A.transpose(0, 2, 1))
    assert np.linalg.matrix_rank(A.reshape(len(A), -1)) == len(A)
    np.testing.assert_allclose(theory.measure(A, problem.matrix(problem.target)), problem.labels, atol=1e-12 * scale)
    # Positive on the null space somewhere: the largest least eigenvalue among those that fit is above zero.
    d = len(problem.target)
    most = linprog(
        np.append(np.zeros(d), -1.0),
        A_ub=np.hstack([-np.eye(d), np.ones((d, 1))]),
        b_ub=np.zeros(d),
        A_eq=np.hstack([problem.diagonals, np.zeros((len(A), 1))]),
        b_eq=problem.labels,
        bounds=[(None, None)] * d + [(None, 1.0)],
    )
    assert -most.fun > 1e-3


@pytest.mark.parametrize(("d", "m", "rank"), [(3, 3, 1), (3, 0, 1), (3, 1, 0), (3, 1, 4)])
def test_a_problem_that_does_not_fit_is_refused(d, m, rank):
    with pytest.raises(dm.InputError, match="is not allowed"):
        theory.random_commuting(d, m, rank, 0)


# The endpoint


@few
@given(problems(), st.integers(2, 6), st.floats(1e-4, 0.6))
def test_endpoint_fits_has_the_papers_form_and_is_certified(problem, depth, alpha):
    end = theory.flow_endpoint(problem, depth, alpha)
    scale = 1 + np.abs(problem.labels).max()
    np.testing.assert_allclose(problem.diagonals @ end.eigenvalues, problem.labels, atol=1e-12 * scale)
    if depth > 2:  # Equation (17), from the eigenvalues alone
        slack = (alpha**-depth * end.eigenvalues) ** (-(depth - 2) / depth)
        np.testing.assert_allclose(end.slack, slack, rtol=1e-9)
    else:
        power = np.log(end.eigenvalues / alpha**2)
        if power.max() > 0:
            rounding = 1e-9 * np.abs(power).max() / power.max()
            np.testing.assert_allclose(end.slack, 1 - power / power.max(), atol=rounding)
    # The multipliers give that slack; the subtraction here loses digits, so only to rounding of one.
    size = 1 + np.abs(problem.diagonals).T @ np.abs(end.multipliers)
    assert (np.abs(1 - problem.diagonals.T @ end.multipliers - end.slack) < 1e-10 * size).all()
    assert (end.slack >= 0).all()
    optimum = problem.optimum()
    assert optimum.dual_value == pytest.approx(optimum.value, rel=1e-9, abs=1e-9)
    assert -1e-12 <= optimum.gap(end.eigenvalues) <= end.dual_gap * (1 + 1e-9) + 1e-12


@fewer
@given(problems(), st.integers(2, 4), st.floats(0.3, 0.6))
def test_endpoint_is_where_the_decoupled_flow_ends(problem, depth, alpha):
    end = theory.flow_endpoint(problem, depth, alpha)
    # The slowest direction decays at a rate of at least about the least eigenvalue to the power 2 - 2/N.
    slowest = end.eigenvalues.min() ** (2 - 2 / depth) * np.linalg.eigvalsh(problem.diagonals @ problem.diagonals.T)[0]
    times = np.array([1.0, 60.0 / slowest])
    w, s = theory.integrate_eigenvalues(problem, depth, alpha, times)
    np.testing.assert_allclose(w[-1], end.eigenvalues, rtol=1e-7)
    if depth > 2:
        nu = -(depth - 2) * alpha ** (depth - 2) * s[-1]
        np.testing.assert_allclose(nu, end.multipliers, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("depth", [3, 4])
def test_closed_form_of_the_paper_against_full_factors(depth):
    problem, alpha = theory.random_commuting(4, 2, 2, 3), 0.3
    times = np.array([0.5, 2.0, 6.0]) / alpha ** (depth - 2)
    start = theory.identity_factors(4, depth, alpha)
    path = theory.integrate_factors(problem.measurements, problem.labels, start, times)
    for W, s in zip(path.products, path.integrals, strict=True):
        bracket = 1 + (depth - 2) * alpha ** (depth - 2) * (problem.diagonals.T @ s)
        w = alpha**depth * bracket ** (-depth / (depth - 2))
        np.testing.assert_allclose(W, problem.matrix(w), atol=1e-9)


def test_velocity_of_factors_is_minus_the_gradient():
    random = np.random.default_rng(0)
    A, y, factors = random.standard_normal((3, 4, 4)), random.standard_normal(3), random.standard_normal((3, 4, 4))
    leaf = torch.tensor(factors, requires_grad=True)
    product = leaf[2] @ leaf[1] @ leaf[0]
    loss = 0.5 * ((torch.einsum("mij,ij->m", torch.tensor(A), product) - torch.tensor(y)) ** 2).sum()
    (gradient,) = torch.autograd.grad(loss, leaf)
    np.testing.assert_allclose(theory.factor_velocity(A, y, factors), -gradient.numpy(), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("depth", "alpha"), [(2, 1e-3), (3, 1e-3), (5, 1e-2)])
def test_sixty_digits_confirm_the_gaps(depth, alpha):
    problem = theory.random_commuting(5, 2, 1, 4)
    optimum = problem.optimum()
    end, exact = (
        theory.flow_endpoint(problem, depth, alpha, optimum),
        theory.precise_endpoint(problem, optimum, depth, alpha),
    )
    assert optimum.gap(end.eigenvalues) == pytest.approx(exact.gap, rel=1e-11)
    assert end.dual_gap == pytest.approx(exact.dual_gap, rel=1e-11)
    assert end.trace == pytest.approx(exact.trace, rel=1e-13)


def test_rates_in_alpha():
    problem = theory.random_commuting(6, 3, 3, 1)
    optimum = problem.optimum()
    for depth in (3, 4, 5):
        first, second = (theory.flow_endpoint(problem, depth, alpha, optimum) for alpha in (1e-5, 1e-6))
        # Ten times smaller: corrections are of relative order alpha^(N-2).
        assert math.log10(first.dual_gap / second.dual_gap) == pytest.approx(depth - 2, abs=0.001)
        ratio = optimum.gap(first.eigenvalues) / optimum.gap(second.eigenvalues)
        assert math.log10(ratio) == pytest.approx(depth, abs=0.001)


def test_the_endpoint_minimises_the_barrier_function():
    problem, alpha = theory.random_commuting(5, 2, 2, 0), 0.2
    free = np.linalg.svd(problem.diagonals)[2][2:]
    for depth in (3, 4):
        w = theory.flow_endpoint(problem, depth, alpha).eigenvalues
        gradient = 1 - alpha ** (depth - 2) * w ** (2 / depth - 1)
        np.testing.assert_allclose(free @ gradient, 0, atol=1e-11)


@fewer
@given(problems(), st.integers(2, 5), st.floats(0.15, 0.6))
def test_no_matrix_that_fits_does_better_off_the_basis_too(problem, depth, alpha):
    A = problem.measurements
    end = problem.matrix(theory.flow_endpoint(problem, depth, alpha).eigenvalues)
    centre = problem.matrix(theory.flow_endpoint(problem, 2, 0.6).eigenvalues)
    directions = theory.unseen_directions(A)
    move = np.einsum("f,fij->ij", np.random.default_rng(depth).standard_normal(len(directions)), directions)
    np.testing.assert_allclose(theory.measure(A, move), 0, atol=1e-12 * np.abs(A).sum())
    start = centre + 0.5 * np.linalg.eigvalsh(centre)[0] / np.linalg.norm(move, 2) * move
    least = theory.minimise_barrier(A, depth, alpha, start)
    np.testing.assert_allclose(least, end, atol=1e-8 * np.trace(end))
    assert theory.barrier_value(start, depth, alpha) >= theory.barrier_value(end, depth, alpha) - 1e-12


@pytest.mark.parametrize("depth", [2, 3, 5])
def test_slope_of_the_barrier_function(depth):
    w, h = np.array([0.2, 0.7, 1.3]), 1e-5
    first, second = theory.barrier_slope(w, depth, 0.3)
    for k, unit in enumerate(np.eye(3)):
        values = [theory.barrier_value(np.diag(w + s * h * unit), depth, 0.3) for s in (1, -1)]
        # Central differences: an error of order h^2 = 1e-10, and rounding of 1e-16 / h.
        assert (values[0] - values[1]) / (2 * h) == pytest.approx(first[k], abs=1e-8)
        slopes = [theory.barrier_slope(w + s * h * unit, depth, 0.3)[0][k] for s in (1, -1)]
        assert (slopes[0] - slopes[1]) / (2 * h) == pytest.approx(second[k], abs=1e-7)


def test_among_ties_depth_takes_the_largest_quasi_norm():
    # Two equal entries: every division of the weight has the same trace, and the even one the largest sum of roots.
    tie = theory.CommutingProblem(np.eye(3), np.array([[2.0, 2.0, 1.0]]), np.array([1.0, 0.0, 0.0]))
    for depth in (3, 4):
        end = theory.flow_endpoint(tie, depth, 1e-3).eigenvalues
        np.testing.assert_allclose(end, [0.5, 0.5, 0.0], atol=1e-2)
        assert end[0] == pytest.approx(end[1], rel=1e-12)
        assert (end ** (2 / depth)).sum() > 1.2 * (tie.optimum().eigenvalues ** (2 / depth)).sum()


def test_the_product_can_converge_while_the_integral_does_not():
    case = theory.CommutingProblem(np.eye(2), np.eye(2), np.array([0.0, 1.0]))
    w, s = theory.integrate_eigenvalues(case, 3, 0.3, [1e3, 1e5])
    # w' = -3 w^(4/3) w from 0.3^3: w^(-4/3) = 0.3^(-4) + 4 t, and the integral of w grows like t^(1/4).
    np.testing.assert_allclose(w[:, 0], (0.3**-4 + 4 * np.array([1e3, 1e5])) ** -0.75, rtol=1e-6)
    assert s[1, 0] > 3 * s[0, 0]
    slack = 1 + 0.3 * s  # feasible at each time, with Equation (17)
    np.testing.assert_allclose(slack, (0.3**-3 * w) ** (-1 / 3), rtol=1e-6)


def test_settling_time_is_long_enough():
    problem = theory.random_commuting(5, 2, 2, 0)
    for depth in (2, 4):
        end = theory.flow_endpoint(problem, depth, 0.2).eigenvalues
        settled = theory.settling_time(problem, depth, 0.2, end)
        w, _ = theory.integrate_eigenvalues(problem, depth, 0.2, [settled / 100, settled])
        np.testing.assert_allclose(w[1], end, rtol=1e-8)
        assert np.abs(w[0] / end - 1).max() > 1e-6


def test_no_endpoint_without_a_positive_definite_matrix_that_fits():
    impossible = theory.CommutingProblem(np.eye(2), np.array([[1.0, 0.0]]), np.array([0.0, 1.0]))
    with pytest.raises(dm.InputError):
        theory.flow_endpoint(impossible, 3, 0.1)
    for depth, alpha in ((1, 0.1), (3, 1.0)):
        with pytest.raises(dm.InputError, match="not allowed"):
            theory.flow_endpoint(theory.random_commuting(3, 1, 1, 0), depth, alpha)


# Duality


def test_the_theory_loads_no_solver_before_one_is_asked_for():
    script = "import sys, dmfkit.theory; assert not {'cvxpy', 'scipy.stats'} & set(sys.modules), 'loaded'"
    subprocess.run([sys.executable, "-c", script], check=True, timeout=300)


@few
@given(seeds, st.integers(2, 5), st.integers(1, 5))
def test_lemma_5_on_random_semidefinite_programs(seed, d, m):
    random = np.random.default_rng(seed)
    A = random.standard_normal((m, d, d))
    A, factor = A + A.transpose(0, 2, 1), random.standard_normal((d, d))
    W = factor @ factor.T + 0.1 * np.eye(d)
    y = theory.measure(A, W)
    solution = theory.minimum_trace(A, y)
    found, size = solution.certificate, np.trace(W)
    assert found.dual_bound <= found.trace + 1e-7 * size
    assert abs(found.slack) < 1e-6 * size
    assert found.largest_dual_eigenvalue <= 1 + 1e-12
    for nu in random.standard_normal((20, m)):
        nu = nu / max(np.linalg.eigvalsh(theory.adjoint(A, nu))[-1], 1e-6)
        trial = theory.certify(A, y, W, nu)
        assert trial.dual_bound <= solution.value + 1e-7 * size
        assert trial.slack == pytest.approx(trial.trace - trial.dual_bound, abs=1e-9 * (size + abs(trial.dual_bound)))
    # Negative control: every dual vector leaves a matrix that is not optimal its excess trace.
    assert theory.least_slack(A, W) == pytest.approx(size - solution.value, abs=1e-6 * size)


@fewer
@given(problems())
def test_semidefinite_and_linear_program_agree(problem):
    solution, optimum = theory.minimum_trace(problem.measurements, problem.labels), problem.optimum()
    assert solution.value == pytest.approx(optimum.value, rel=1e-6, abs=1e-6)


def test_another_solver_and_an_unknown_one():
    problem = theory.random_commuting(4, 2, 2, 0)
    value = theory.minimum_trace(problem.measurements, problem.labels, solver="SCS", eps=1e-9).value
    assert value == pytest.approx(problem.optimum().value, rel=1e-6)
    with pytest.raises(dm.InputError, match="not available"):
        theory.minimum_trace(problem.measurements, problem.labels, solver="NONE")
    A = np.eye(2)[None]
    with pytest.raises(dm.InputError, match="infeasible"):
        theory.minimum_trace(A, np.array([-1.0]))


# Depth 2


def test_two_factors_follow_the_symmetric_flow_at_half_speed_whatever_the_rotation():
    problem, alpha = theory.random_commuting(4, 2, 2, 1), 0.3
    A, y = problem.measurements, problem.labels
    turn = np.linalg.qr(np.random.default_rng(0).standard_normal((4, 4)))[0]
    one, other = (
        theory.symmetric_flow(A, y, alpha * Z, horizon=2.0, violation=0.0, rtol=1e-12) for Z in (np.eye(4), turn)
    )
    both = theory.integrate_factors(A, y, theory.identity_factors(4, 2, alpha), [4.0])
    np.testing.assert_allclose(one.matrix, other.matrix, atol=1e-10)
    np.testing.assert_allclose(one.matrix, both.products[0], atol=1e-10)
    # Commuting: Z Z^T = alpha^2 exp(-4 A^dagger(s)).
    w = alpha**2 * np.exp(-4 * problem.diagonals.T @ one.integral)
    np.testing.assert_allclose(one.matrix, problem.matrix(w), atol=1e-10)


def test_naive_simulation_keeps_exact_zeros_only_for_diagonal_measurements():
    problem = theory.random_commuting(6, 3, 2, 2)
    start = theory.identity_factors(6, 3, 0.03)
    asymmetry = []
    for version in (problem, problem.diagonal()):
        products = theory.naive_path(version.measurements, version.labels, start, horizon=1e3).products
        asymmetry.append(np.abs(products - products.transpose(0, 2, 1)).max())
    assert asymmetry[0] > 1e-6  # from rounding, 1e-16 at most
    assert asymmetry[1] == 0.0


# Proposition 1


@few
@given(st.integers(3, 9), st.integers(2, 5), st.floats(0.05, 0.95), st.floats(0.01, 0.99))
def test_proposition_1(d, depth, exponent, epsilon):
    problem = theory.schatten_counterexample(d)
    assert np.linalg.matrix_rank(problem.diagonals) == d - 1
    end = theory.flow_endpoint(problem, depth, 0.02)
    # Depth 2 is the slowest, with errors of order alpha^(2 (1 - nu_k)); the others have alpha^N.
    np.testing.assert_allclose(end.eigenvalues, problem.target, atol=0.3 if depth == 2 else 1e-2)
    W = theory.perturbed_limit(d, epsilon)
    np.testing.assert_allclose(theory.measure(problem.measurements, W), problem.labels, atol=0)
    values = torch.from_numpy(np.linalg.eigvalsh(W).clip(0))
    values = torch.where(values > 1e-12, values, 0.0)
    assert float(dm.nuclear_norm(values)) == pytest.approx(2, abs=1e-12)
    power = float(dm.schatten(values, exponent))
    assert power == pytest.approx((1 - epsilon) ** exponent + (1 + epsilon) ** exponent, rel=1e-12)
    assert power < 2


def test_counterexample_needs_three_dimensions():
    with pytest.raises(dm.InputError, match="d >= 3"):
        theory.schatten_counterexample(2)


def test_schatten():
    values = torch.tensor([[4.0, 1.0, 0.0], [9.0, 4.0, 1.0]], dtype=torch.float64)
    assert dm.schatten(values, 0.5).tolist() == [3.0, 6.0]
    assert dm.schatten_norm(values, 0.5).tolist() == [9.0, 36.0]
    assert dm.schatten(values, 1.0).tolist() == dm.nuclear_norm(values).tolist()


# Without commuting


def test_pair_completion_does_not_commute_and_its_flow_fits():
    A, y, target = theory.pair_completion(4, 4, 1)
    assert max(np.abs(A[i] @ A - A @ A[i]).max() for i in range(4)) > 0.1
    np.testing.assert_allclose(theory.measure(A, target), y)
    ends = [theory.symmetric_flow(A, y, 1e-2 * np.eye(4), method=method) for method in ("LSODA", "BDF")]
    for end in ends:
        assert end.violation < 1.1e-8 * np.abs(y).max()
    np.testing.assert_allclose(ends[0].matrix, ends[1].matrix, atol=1e-6)
    best = theory.minimum_trace(A, y)
    # Not of least trace, by a margin that no dual vector closes.
    assert theory.least_slack(A, ends[0].matrix) > 0.01 * best.value
    with pytest.raises(dm.InputError, match="from 1 to 6"):
        theory.pair_completion(4, 7, 0)
