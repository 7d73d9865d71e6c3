"""The minimum nuclear norm: against problems solved independently, and by its optimality conditions."""

import importlib.metadata
import warnings

import numpy as np
import pytest
from scipy.optimize import minimize_scalar

from dmfkit.errors import InputError, SolverError
from dmfkit.nuclear_norm.solution import minimum_nuclear_norm


def low_rank(shape, rank, share, seed=0):
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(shape[0], rank)) @ rng.normal(size=(rank, shape[1]))
    return values, rng.random(shape) < share


@pytest.mark.parametrize("solver", ["SCS", "CLARABEL"])
def test_fully_observed_rank_one_matrix_is_its_own_completion(solver):
    u, v = np.random.default_rng(0).normal(size=(2, 12))
    solution = minimum_nuclear_norm(np.outer(u, v), np.ones((12, 12), dtype=bool), solver=solver)
    exact = np.linalg.norm(u) * np.linalg.norm(v)
    assert solution.value == pytest.approx(exact, rel=1e-12)
    assert solution.dual_bound == pytest.approx(exact, rel=1e-4)
    assert solution.status == "optimal"
    assert (solution.solver, solution.solver_version) == (solver, importlib.metadata.version(solver.lower()))
    assert solution.seconds > 0
    assert solution.iterations > 0


def test_one_missing_entry_against_a_search_along_it():
    values, mask = np.array([[3.0, 1.0, 0.5], [2.0, np.nan, 1.0]]), np.ones((2, 3), dtype=bool)
    mask[1, 1] = False  # what is not observed is not read: here NaN

    def norm(x):
        return np.linalg.norm(np.where(mask, values, x), "nuc")

    best = minimize_scalar(norm, bounds=(-5, 5), method="bounded", options={"xatol": 1e-10})
    solution = minimum_nuclear_norm(values, mask, solver="CLARABEL")
    assert solution.value == pytest.approx(best.fun, rel=1e-8)
    assert solution.matrix[1, 1] == pytest.approx(best.x, abs=1e-3)


def test_diagonal_of_two_has_the_trace_as_its_least_norm():
    # tr W <= ||W||_*, with equality for positive semidefinite W, whatever the entries off the diagonal.
    solution = minimum_nuclear_norm(np.diag([2.0, 3.0]), np.eye(2, dtype=bool), solver="CLARABEL")
    assert solution.value == pytest.approx(5, rel=1e-7)
    np.testing.assert_allclose(solution.certificate, np.eye(2), atol=1e-7)


@pytest.mark.parametrize(("shape", "scale"), [((15, 15), 1.0), ((12, 20), 1e6), ((20, 12), 1e-6)])
def test_certificate_and_optimality_conditions(shape, scale):
    values, mask = low_rank(shape, rank=3, share=0.6)
    solution = minimum_nuclear_norm(scale * values, mask, solver="CLARABEL")
    Y, W = solution.certificate, solution.matrix
    assert (Y[~mask] == 0).all()
    assert np.linalg.norm(Y, 2) <= 1 + 1e-12
    np.testing.assert_array_equal(W[mask], scale * values[mask])
    assert solution.max_violation < 1e-5 * scale
    # A feasible matrix and a feasible certificate that meet: both are optimal.
    assert solution.dual_bound == pytest.approx(np.sum(Y * W), rel=1e-12)
    assert solution.dual_bound <= solution.value <= scale * np.linalg.norm(values, "nuc") * (1 + 1e-6)
    assert 0 <= solution.gap < 1e-5
    # Y is a subgradient at W: U V^T on the spaces of W's singular vectors.
    U, s, Vt = np.linalg.svd(W)
    r = int(np.sum(s > 1e-3 * s[0]))
    np.testing.assert_allclose(U[:, :r].T @ Y @ Vt[:r].T, np.eye(r), atol=1e-3)


def test_solvers_agree_and_bracket_the_minimum():
    values, mask = low_rank((14, 14), rank=4, share=0.5, seed=3)
    first = minimum_nuclear_norm(values, mask, solver="SCS")
    second = minimum_nuclear_norm(values, mask, solver="CLARABEL")
    assert first.value < np.linalg.norm(values, "nuc") * 0.99  # not recovered: the norm is beaten
    assert first.dual_bound <= second.value
    assert second.dual_bound <= first.value
    assert first.value == pytest.approx(second.value, rel=1e-3)
    assert 0 <= second.gap < first.gap < 1e-3


def test_other_feasible_matrices_have_a_larger_norm():
    values, mask = low_rank((13, 13), rank=2, share=0.5, seed=1)
    solution = minimum_nuclear_norm(values, mask, solver="CLARABEL")
    rng = np.random.default_rng(0)
    for size in (1e-2, 1e-1, 1.0):
        other = solution.matrix + np.where(mask, 0, size * rng.normal(size=mask.shape))
        assert np.linalg.norm(other, "nuc") > solution.value


def test_status_other_than_optimal_is_an_error_in_one_sentence():
    values, mask = low_rank((12, 12), rank=2, share=0.6)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(SolverError, match="SCS ended with status 'optimal_inaccurate' instead of"):
            minimum_nuclear_norm(values, mask, solver="SCS", max_iters=2)
    with pytest.raises(SolverError, match=r"CLARABEL (failed|ended with status)"):
        minimum_nuclear_norm(values, mask, solver="CLARABEL", max_iter=2)


def test_options_reach_the_solver():
    values, mask = low_rank((12, 12), rank=2, share=0.6)
    loose, tight = (minimum_nuclear_norm(values, mask, solver="SCS", eps=e) for e in (1e-3, 1e-9))
    assert tight.iterations > loose.iterations
    assert tight.max_violation < loose.max_violation


@pytest.mark.parametrize(
    ("values", "mask", "words"),
    [
        (np.ones((2, 3)), np.ones((3, 2), dtype=bool), "of the same shape"),
        (np.ones((2, 2)), np.ones((2, 2)), "the mask's type is float64"),
        (np.ones(3), np.ones(3, dtype=bool), "must be a matrix"),
        (np.full((2, 2), np.inf), np.eye(2, dtype=bool), "not finite"),
        (np.zeros((2, 2)), np.eye(2, dtype=bool), "No observed value differs from zero"),
        (np.ones((2, 2)), np.zeros((2, 2), dtype=bool), "No observed value differs from zero"),
    ],
)
def test_unusable_input(values, mask, words):
    with pytest.raises(InputError, match=words):
        minimum_nuclear_norm(values, mask)


def test_unknown_solver_and_option():
    values, mask = np.ones((2, 2)), np.ones((2, 2), dtype=bool)
    with pytest.raises(InputError, match=r"'OSQP' is not available here: choose one of SCS, CLARABEL"):
        minimum_nuclear_norm(values, mask, solver="OSQP")
    for solver in ("SCS", "CLARABEL"):
        with pytest.raises(InputError, match=rf"{solver} cannot be run with the options .*'tolerance'"):
            minimum_nuclear_norm(values, mask, solver=solver, tolerance=1)
