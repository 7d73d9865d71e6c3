"""Sensing: the measurement operator, and the least nuclear norm that agrees with measurements."""

from __future__ import annotations

import cvxpy as cp
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dmfkit import (
    CompletionTask,
    Descent,
    Flow,
    FullObservation,
    InputError,
    NuclearNorm,
    SensingTask,
    Start,
    Status,
    Store,
    least_nuclear_norm,
    matrix_sensing,
    minimum_nuclear_norm,
    nuclear_norm_solutions,
    random_low_rank,
    sweep,
)
from dmfkit.experiments.reproduce import certified, kind_of, nuclear_norms_of
from dmfkit.experiments.store import content_hash, read
from dmfkit.nuclear_norm.splitting import bounds
from dmfkit.problems.operators import Measurements

SMALL = SensingTask(d=8, rank=1, n_observed=40, data_seed=3)
sizes = st.integers(2, 7)
seeds = st.integers(0, 2**32 - 1)


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@settings(deadline=None, max_examples=25, derandomize=True)
@given(high=sizes, wide=sizes, m=st.integers(1, 12), runs=st.integers(1, 3), seed=seeds)
def test_the_batched_operator_is_the_loop_over_measurements(high, wide, m, runs, seed):
    truth = random_low_rank((high, wide), 1, seed)
    problem = matrix_sensing(truth, m, seed, measurement_std=0.7)
    batch = normal(runs, high, wide, seed=seed)
    for run in range(runs):
        residual = [(a * batch[run]).sum() - (a * truth).sum() for a in problem.measurements]
        loss = 0.5 * sum(r**2 for r in residual)
        gradient = sum(r * a for r, a in zip(residual, problem.measurements, strict=True))
        assert problem.loss(batch)[run].item() == pytest.approx(loss.item(), rel=1e-10)
        torch.testing.assert_close(problem.gradient(batch)[run], gradient, rtol=1e-10, atol=1e-10)


@settings(deadline=None, max_examples=25, derandomize=True)
@given(d=sizes, m=st.integers(1, 12), seed=seeds, kind=st.sampled_from([SensingTask, CompletionTask]))
def test_adjoints_are_adjoint_and_solve_inverts_the_gram_matrix(d, m, seed, kind):
    operator = kind(d=d, rank=1, n_observed=min(m, d * d // 2), data_seed=seed).problem().observation_operator()
    matrix, weights = normal(d, d, seed=seed), normal(len(operator.values), seed=seed + 1)
    left, right = operator.forward(matrix) @ weights, (matrix * operator.adjoint(weights)).sum()
    assert left.item() == pytest.approx(right.item(), rel=1e-10, abs=1e-10)
    back = operator.forward(operator.adjoint(operator.solve(weights)))
    # Half as many measurements as entries at most: well conditioned but for chance at these small sizes.
    torch.testing.assert_close(back, weights, rtol=1e-6, atol=1e-6)


def test_measurements_have_the_standard_deviation_asked_for_and_are_nested():
    truth = random_low_rank((30, 30), 2, 0)
    few, many = (matrix_sensing(truth, m, 5, measurement_std=0.05) for m in (40, 90))
    torch.testing.assert_close(many.measurements[:40], few.measurements)
    # 81,000 entries: their standard deviation is known to 0.25 %.
    assert many.measurements.std().item() == pytest.approx(0.05, rel=0.01)
    assert abs(many.measurements.mean().item()) < 4 * 0.05 / 81_000**0.5
    torch.testing.assert_close(many.values, torch.einsum("mij,ij->m", many.measurements, truth))


def test_scaling_the_measurements_only_changes_the_pace_of_the_flow():
    # A -> s A and a threshold s^2 times as large: the same end after a time 1 / s^2 times as long.
    start, stop = Start(depth=2, init_scale=0.1), 1e-5
    raw = sweep(SMALL, start, Flow(rtol=1e-4, stop=stop), seed=(0,)).squeeze()
    scaled = sweep(SMALL, start, Flow(rtol=1e-4, stop=stop / 16), measurement_std=(0.25,), seed=(0,)).squeeze()
    assert float(scaled["flow_time"]) == pytest.approx(16 * float(raw["flow_time"]), rel=1e-2)
    np.testing.assert_allclose(scaled["final_singular_value"], raw["final_singular_value"], rtol=1e-2, atol=1e-4)


def test_moving_a_problem_nowhere_copies_nothing():
    problem = SMALL.problem()
    assert problem.to("cpu", torch.float64).measurements.data_ptr() == problem.measurements.data_ptr()


def test_a_problem_is_made_once_for_neighbouring_batches(monkeypatch):
    made = []
    original = SensingTask.problem
    monkeypatch.setattr(SensingTask, "problem", lambda self: made.append(self.n_observed) or original(self))
    sweep(SMALL, Start(init_scale=0.3), Flow(stop=1e-2), depth=(1, 2), n_observed=(30, 40), seed=(0, 1))
    assert made == [30, 40]


# The number of measurements lies below, near and above what recovery needs.
@pytest.mark.parametrize(("m", "shape"), [(20, (8, 8)), (45, (8, 8)), (52, (8, 8)), (35, (6, 10)), (35, (10, 6))])
def test_least_nuclear_norm_agrees_with_an_interior_point_solver(m, shape):
    problem = matrix_sensing(random_low_rank(shape, 2, 1), m, 1)
    unknown = cp.Variable(shape)
    flat = problem.measurements.flatten(start_dim=1).numpy()
    program = cp.Problem(
        cp.Minimize(cp.normNuc(unknown)), [flat @ cp.vec(unknown, order="C") == problem.values.numpy()]
    )
    program.solve(solver="CLARABEL")
    solution = least_nuclear_norm(problem)
    # CLARABEL's own tolerance is 1e-8 on a matrix that fits only so well.
    assert solution.value == pytest.approx(program.value, rel=1e-6)
    assert solution.status == "optimal"
    assert solution.gap < 1e-7
    assert solution.max_violation < 1e-11
    # Strictly convex it is not, but the minimiser is almost surely unique.
    np.testing.assert_allclose(solution.matrix, unknown.value, atol=1e-3)


def test_least_nuclear_norm_of_a_completion_agrees_with_cvxpy():
    problem = CompletionTask(d=14, rank=4, n_observed=98, data_seed=3).problem()
    known = problem.mask.bool().numpy()
    ours = least_nuclear_norm(problem)
    theirs = minimum_nuclear_norm(problem.values.numpy(), known, solver="CLARABEL")
    assert ours.value == pytest.approx(theirs.value, rel=1e-6)
    assert theirs.dual_bound <= ours.value * (1 + 1e-12)
    assert ours.dual_bound <= theirs.value * (1 + 1e-12)
    assert (ours.certificate[~known] == 0).all()
    np.testing.assert_array_equal(ours.certificate[known], ours.multipliers)
    np.testing.assert_allclose(theirs.certificate[known], theirs.multipliers)
    np.testing.assert_allclose(ours.matrix[known], problem.values.numpy()[known], atol=1e-12)


def test_bounds_hold_for_anything_and_are_tight_only_at_the_minimum():
    problem = matrix_sensing(random_low_rank((7, 7), 2, 0), 25, 0)
    operator, solution = problem.observation_operator(), least_nuclear_norm(problem)
    assert np.linalg.norm(solution.certificate, 2) == pytest.approx(1, abs=1e-12)
    for seed in range(5):
        any_multipliers = bounds(operator, torch.from_numpy(solution.matrix), normal(25, seed=seed))
        assert any_multipliers.dual_bound < solution.dual_bound
        direction = normal(7, 7, seed=seed)
        along = direction - operator.adjoint(operator.solve(operator.forward(direction)))
        other = bounds(
            operator, torch.from_numpy(solution.matrix) + 0.1 * along, torch.from_numpy(solution.multipliers)
        )
        assert other.violation < 1e-12
        assert other.value > solution.value
        assert other.dual_bound == pytest.approx(solution.dual_bound, rel=1e-12)


def test_a_met_limit_is_said_and_its_bounds_still_bracket():
    problem = SensingTask(d=10, rank=3, n_observed=50).problem()
    rough, exact = least_nuclear_norm(problem, max_iterations=15), least_nuclear_norm(problem)
    assert (rough.status, exact.status) == ("limit", "optimal")
    assert rough.dual_bound < exact.dual_bound < exact.value < rough.value


def test_enough_measurements_recover_the_truth_at_any_scale():
    for std in (1e-6, 1.0, 1e6):
        problem = SensingTask(d=12, rank=1, n_observed=110, measurement_std=std).problem()
        solution = least_nuclear_norm(problem, tolerance=1e-9)
        np.testing.assert_allclose(solution.matrix, problem.ground_truth.numpy(), atol=1e-5)


def test_stored_solutions_are_loaded_and_carry_their_proof(tmp_path):
    options = {"name": "nuclear", "store": Store(tmp_path), "n_observed": (20, 40), "data_seed": (0, 1)}
    first = nuclear_norm_solutions(SMALL, **options)
    again = nuclear_norm_solutions(SMALL, **options)
    anew = nuclear_norm_solutions(SMALL, recompute=True, **options)
    assert [one.attrs["loaded_from_store"] for one in (first, again, anew)] == [0, 1, 0]
    assert content_hash(first) == content_hash(again) == content_hash(anew)
    (path,) = tmp_path.glob("*.nc")
    dataset = read(path)
    assert kind_of(dataset) == "nuclear_norm"
    assert first["value"].dims == ("n_observed", "data_seed")
    assert nuclear_norms_of(dataset).points == [{"n_observed": m, "data_seed": s} for m in (20, 40) for s in (0, 1)]
    for point in nuclear_norms_of(dataset).points:
        here, bracket = dataset.sel(point), certified(dataset, point)
        assert bracket.violation < 1e-12
        assert bracket.value == pytest.approx(float(here["value"]), rel=1e-12)
        assert bracket.dual_bound == pytest.approx(float(here["dual_bound"]), rel=1e-12)
        assert int(here["status"]) == Status.CONVERGED
        truth = SMALL.ground_truth() if point["data_seed"] == 3 else SensingTask(d=8, rank=1, **point).ground_truth()
        error = ((here["matrix"].values - truth.numpy()) ** 2).sum() / truth.square().sum().item()
        assert float(here["relative_error"]) == pytest.approx(error, rel=1e-9)


def test_a_forged_solution_does_not_pass(tmp_path):
    dataset = nuclear_norm_solutions(SMALL, name="nuclear", store=Store(tmp_path), n_observed=(20,))
    forged = dataset.copy(deep=True)
    forged["matrix"][0, 0, 0] += 1e-3
    assert certified(forged, {"n_observed": 20}).violation > 1e-6
    forged = dataset.copy(deep=True)
    forged["multiplier"][0, 0] *= 1.01
    assert certified(forged, {"n_observed": 20}).gap > 1e-6


def test_solvers_can_be_swept_and_an_interrupted_grid_goes_on(tmp_path, monkeypatch):
    task = CompletionTask(d=12, rank=2, n_observed=80)
    options = {"name": "grid", "store": Store(tmp_path), "solver": ("douglas-rachford", "SCS", "CLARABEL")}
    solved = []
    original = NuclearNorm.solve

    def stopping(self, problem):
        if len(solved) == 2:
            raise KeyboardInterrupt
        solved.append(self.solver)
        return original(self, problem)

    monkeypatch.setattr(NuclearNorm, "solve", stopping)
    with pytest.raises(KeyboardInterrupt):
        nuclear_norm_solutions(task, **options)
    solved.clear()
    values = nuclear_norm_solutions(task, **options)["value"]
    assert solved == ["CLARABEL"]
    np.testing.assert_allclose(values, values[0], rtol=1e-5)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: SensingTask(d=5, rank=1, n_observed=0).problem(), "n_observed = 0 is not allowed"),
        (lambda: SensingTask(d=5, rank=1, measurement_std=-1.0).problem(), "measurement_std = -1.0 is not allowed"),
        (lambda: SensingTask(d=5, rank=1, measurement_std=float("nan")).problem(), "measurement_std = nan"),
        (lambda: CompletionTask(d=5, rank=1, n_observed=9, target_norm=0.0).problem(), "target_norm = 0.0"),
        (lambda: sweep(SMALL, Start(), Descent(), measurement_std=(1.0, 0.0)), "measurement_std = 0.0"),
        (lambda: nuclear_norm_solutions(SMALL, n_observed=(20, 0)), "n_observed = 0"),
        (lambda: nuclear_norm_solutions(SMALL, depth=(2,)), "'depth' cannot be swept"),
        (lambda: nuclear_norm_solutions(SMALL, NuclearNorm(solver="SCS")), "only used for observed entries"),
        (lambda: NuclearNorm(solver="OSQP"), "solver = 'OSQP'"),
        (lambda: NuclearNorm(tolerance=0.0), "tolerance = 0.0"),
        (lambda: NuclearNorm(max_iterations=0), "max_iterations = 0"),
        (lambda: least_nuclear_norm(SensingTask(d=3, rank=1, n_observed=10).problem()), "n_observed = 10.*9 entries"),
        (FullObservation("mean", None, torch.ones(2, 2)).observation_operator, "FullObservation are not supported"),
    ],
)
def test_impossible_values_are_refused_in_one_sentence(call, words):
    with pytest.raises(InputError, match=words):
        call()


def test_repeated_measurements_are_refused():
    flat = normal(3, 4, 4)
    repeated = Measurements(torch.ones(4, dtype=torch.float64), torch.cat([flat, flat[:1]]))
    with pytest.raises(InputError, match="depend linearly"):
        repeated.solve(torch.ones(4, dtype=torch.float64))


@pytest.mark.parametrize("kind", [SensingTask, CompletionTask])
@pytest.mark.parametrize("wrong", [{"rank": 9}, {"rank": 0}, {"n_observed": 0}, {"normalisation": "sum"}])
def test_checking_a_task_says_what_making_its_problem_says(kind, wrong):
    task = kind(**{"d": 8, "rank": 2, "n_observed": 20, **wrong})
    with pytest.raises(InputError) as early:
        task.check()
    with pytest.raises(InputError) as late:
        task.problem()
    assert str(early.value) == str(late.value)
