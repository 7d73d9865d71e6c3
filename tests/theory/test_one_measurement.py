"""One measurement: closed forms against integrations that do not use them, and the flow of full matrices."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.integrate import quad, solve_ivp

from dmfkit import MatrixSensing, theory
from dmfkit.errors import InputError, SolverError
from dmfkit.factorizations.factorization import Factorization

EQUAL = {"first_0": 0.05, "second_0": 0.05}
some = settings(deadline=None, max_examples=25, derandomize=True)
depths = st.integers(1, 8)
starts = st.floats(0.05, 2.0)
# Quotients of strengths of either sign, below and above 1; zero would mean a measurement that does not pull at all.
alphas = st.floats(0.05, 3.0) | st.floats(-3.0, -0.05)


def follow(alpha, depth, first_0, second_0, growth):
    """Integrate d first / d second = alpha (first^2 / second^2)^(1 - 1/N) until second has grown to `growth` times."""

    def slope(second, first):
        return alpha * np.square(first / second) ** (1 - 1 / depth)

    found = solve_ivp(slope, (second_0, second_0 * growth), [first_0], "DOP853", rtol=1e-12, atol=1e-14)
    return found.t, found.y[0]


@some
@given(alpha=alphas, depth=depths, first_0=starts, second_0=starts, growth=st.floats(0.2, 5.0))
def test_equation_11_is_the_solution_of_the_quotient_of_two_speeds(alpha, depth, first_0, second_0, growth):
    start = {"first_0": first_0, "second_0": second_0}
    end = float(theory.first_singular_value(growth * second_0, alpha=alpha, depth=depth, **start))
    # Near a value at which the first singular value is infinite an integration loses digits. (Depth 1 passes zero.)
    assume(depth == 1 or end < 100 * first_0)
    second, first = follow(alpha, depth, first_0, second_0, growth)
    formula = theory.first_singular_value(second, alpha=alpha, depth=depth, **start)
    # The integration's tolerance of 1e-12, amplified where the first value grows a hundredfold.
    assert np.allclose(formula, first, rtol=1e-8, atol=1e-10)
    kept = theory.conserved(first, second, alpha=alpha, depth=depth)
    terms = theory.conserved(first, second, alpha=-abs(alpha), depth=depth) if depth != 2 else kept
    assert np.ptp(kept) <= 1e-7 * abs(terms).max() + 1e-9


@some
@given(alpha=alphas, depth=st.integers(3, 12), first_0=starts, second_0=starts)
def test_the_saturation_level_balances_two_integrals(alpha, depth, first_0, second_0):
    level = theory.saturation_level(depth, alpha=alpha, first_0=first_0, second_0=second_0)

    def cost(low, high):  # of s^(2/N - 2), in log s
        return quad(lambda t: math.exp((2 / depth - 1) * t), low, high, epsabs=0, epsrel=1e-11)[0]

    paid, wanted = alpha * cost(math.log(second_0), math.inf), cost(math.log(first_0), math.inf)
    if math.isinf(level):
        assert paid >= wanted * (1 - 1e-9)  # the first value reaches infinity no later than the second
    else:
        assert cost(math.log(first_0), math.log(level)) == pytest.approx(paid, rel=1e-6, abs=1e-9)


@some
@given(alpha=st.floats(0.5, 3.0), depth=st.integers(3, 10), first_0=starts, second_0=starts)
def test_the_first_value_is_finite_below_the_pole_and_infinite_beyond(alpha, depth, first_0, second_0):
    start = {"first_0": first_0, "second_0": second_0}
    pole = theory.diverges_at(depth, alpha=alpha, **start)
    level = theory.saturation_level(depth, alpha=alpha, **start)
    assert math.isfinite(level) or math.isfinite(pole) or alpha * (first_0 / second_0) ** (1 - 2 / depth) == 1
    assume(pole < 1e12)
    before, beyond = theory.first_singular_value([0.999 * pole, 1.001 * pole], alpha=alpha, depth=depth, **start)
    assert math.isfinite(before)
    assert math.isinf(beyond)
    # So near its pole the first value has outgrown its start many times, unless the second has hardly moved.
    assert before > first_0


def test_the_numbers_of_the_ledger():
    found = [float(theory.first_singular_value(5.0, alpha=0.6, depth=n, **EQUAL)) for n in (1, 2, 3, 4, 6)]
    assert found == pytest.approx([3.02, 0.792, 0.337, 0.236, 0.179], abs=5e-4)
    levels = [theory.saturation_level(n, alpha=0.6, **EQUAL) for n in (3, 4, 6)]
    assert levels == pytest.approx([0.78125, 0.3125, 0.19764], abs=5e-6)
    assert theory.saturation_level(2, alpha=0.6, **EQUAL) == math.inf
    assert theory.saturation_level(2, alpha=-0.6, **EQUAL) == 0.0
    assert theory.saturation_level(1, alpha=-0.6, **EQUAL) == -math.inf
    assert theory.saturation_level(3, alpha=0.0, **EQUAL) == 0.05


@some
@given(alpha=st.floats(0.02, 0.98), gap=st.floats(0.03, 0.5), below=st.booleans())
def test_the_level_falls_with_depth_exactly_up_to_the_largest_start_ratio(alpha, gap, below):
    bound = theory.largest_start_ratio(alpha)
    assert 1 < bound < min(math.e, 1 / alpha)
    x = bound * (1 - gap if below else 1 + gap)
    levels = np.array(
        [theory.saturation_level(n, alpha=alpha, first_0=x, second_0=1.0) for n in (*range(3, 200), 400, 1000, 4000)]
    )
    falls = bool(np.isfinite(levels).all() and (np.diff(levels) < 0).all())
    assert falls is below


def test_the_sign_of_the_derivative_changes_at_the_largest_start_ratio():
    # Central differences in p of the logarithm of the level at p = 1, where the proposition puts the change of sign.
    for alpha in (0.1, 0.6, 0.95):
        bound, step = theory.largest_start_ratio(alpha), 1e-5

        def slope(x, alpha=alpha, step=step):
            high, low = (-math.log1p(-alpha * x**p) / p for p in (1 + step, 1 - step))
            return (high - low) / (2 * step)

        assert slope(0.99 * bound) < 0 < slope(1.001 * bound)
        assert abs(slope(bound)) < 1e-7 / (1 - alpha * bound) ** 3


@pytest.mark.parametrize("depth", [1, 2, 3, 5])
@pytest.mark.parametrize("shape", [(4, 4), (5, 3), (3, 6)])
def test_the_matrix_flow_has_the_gradient_of_the_loss(depth, shape):
    random, inner = np.random.default_rng(depth), 4
    widths = [shape[1], *([inner] * (depth - 1)), shape[0]]
    factors = [random.standard_normal((rows, columns)) / 2 for columns, rows in pairwise(widths)]
    measurement = theory.Measurement(random.standard_normal(shape), 2.0)
    flow = theory.matrix_flow(measurement, factors, stop=0.99, rtol=1e-6)  # only its start is looked at
    # Automatic differentiation of the loss, written out.
    leaves = [torch.tensor(factor, requires_grad=True) for factor in factors]
    product = leaves[0]
    for leaf in leaves[1:]:
        product = leaf @ product
    (0.5 * ((torch.tensor(measurement.matrix) * product).sum() - 2.0) ** 2).backward()
    rate = sum(
        torch.linalg.multi_dot([*reversed([*leaves[:j], -leaves[j].grad, *leaves[j + 1 :]])])
        if depth > 1
        else -leaves[j].grad
        for j in range(depth)
    )
    assert np.allclose(flow.velocity[0], rate.detach().numpy(), rtol=1e-12, atol=1e-11)
    problem = MatrixSensing(
        "half_sum", None, torch.tensor([2.0], dtype=torch.float64), torch.tensor(measurement.matrix)[None]
    )
    made = Factorization.from_factors([torch.tensor(factor)[None] for factor in factors]).end_to_end()
    assert np.allclose(problem.gradient(made).numpy(), measurement.gradient(flow.products[:1]), rtol=1e-12)


@pytest.mark.parametrize("depth", [1, 2, 3, 4])
def test_an_aligned_flow_stays_aligned_and_follows_equations_10_and_11(depth):
    random = np.random.default_rng(depth)
    left, right = np.linalg.qr(random.standard_normal((5, 3)))[0], np.linalg.qr(random.standard_normal((4, 3)))[0]
    strengths, begin = np.array([0.5, 1.0, -0.7]), np.array([0.2, 0.1, 0.15])
    measurement = theory.Measurement(left * strengths @ right.T, 3.0)
    factors = theory.aligned_factors(left, begin, right, depth, seed=1)
    for before, after in pairwise(factors):
        assert np.allclose(after.T @ after, before @ before.T)  # balanced
    flow = theory.matrix_flow(measurement, factors)
    assert abs(measurement.residual(flow.products[-1])) == pytest.approx(1e-3 * abs(strengths @ begin - 3.0))
    rotated = left.T @ flow.products @ right
    values = np.diagonal(rotated, axis1=1, axis2=2)
    assert abs(rotated - values[:, None] * np.eye(3)).max() < 1e-12
    assert np.allclose(np.linalg.norm(flow.products, axis=(1, 2)), np.linalg.norm(values, axis=1))  # nothing outside
    alone = theory.singular_value_flow(strengths, 3.0, begin, depth, flow.times)
    assert np.allclose(values, alone, rtol=0, atol=1e-8)
    for index, alpha in ((0, 0.5), (2, -0.7)):
        formula = theory.first_singular_value(
            values[:, 1], alpha=alpha, depth=depth, first_0=begin[index], second_0=begin[1]
        )
        assert np.allclose(values[:, index], formula, rtol=0, atol=1e-9)


def test_an_unaligned_flow_breaks_equation_10():
    random = np.random.default_rng(0)
    measurement = theory.Measurement(np.diag([1.0, 0.5, 0.25]), 2.0)
    left, right = (np.linalg.qr(random.standard_normal((3, 3)))[0] for _ in range(2))
    flow = theory.matrix_flow(
        measurement, theory.aligned_factors(left, np.array([0.3, 0.2, 0.1]), right, 2, 0), rtol=1e-9
    )
    U, sigma, Vt = np.linalg.svd(flow.products[0])
    # True by Theorem 3 with the entries of the gradient, false with the singular values of A in their place.
    rate = np.diag(U.T @ flow.velocity[0] @ Vt.T)
    residual = float(measurement.residual(flow.products[0]))
    entries = np.diag(U.T @ measurement.matrix @ Vt.T)
    assert np.allclose(rate, theory.singular_value_speed(sigma, depth=2, residual=residual, strengths=entries))
    assert not np.allclose(
        abs(rate),
        abs(theory.singular_value_speed(sigma, depth=2, residual=residual, strengths=[1, 0.5, 0.25])),
        rtol=0.05,
    )


def test_what_cannot_be_is_refused_in_one_sentence():
    with pytest.raises(InputError, match="at least 1 factor"):
        theory.first_singular_value(1.0, alpha=0.5, depth=0, **EQUAL)
    with pytest.raises(InputError, match="positive singular values"):
        theory.first_singular_value([0.1, -0.1], alpha=0.5, depth=3, **EQUAL)
    with pytest.raises(InputError, match="between 0 and 1"):
        theory.largest_start_ratio(1.0)
    with pytest.raises(InputError, match="at least 1 factor"):
        theory.aligned_factors(np.eye(2), np.ones(2), np.eye(2), 0, 0)
    assert float(theory.first_singular_value(-1.0, alpha=0.5, depth=1, first_0=1.0, second_0=0.0)) == 0.5
    with pytest.raises(SolverError, match="did not fit"):
        # From zero factors nothing moves at depth 2.
        theory.matrix_flow(theory.Measurement(np.eye(2), 1.0), [np.zeros((2, 2)), np.zeros((2, 2))])
