"""General-purpose integrators of the flow, the steps of the book's own, and their comparison."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from dmfkit import CompletionTask, Flow, InputError, Start, Store, gradient_flow, initialise, matrix_completion
from dmfkit import random_low_rank as low_rank
from dmfkit.errors import SolverError
from dmfkit.experiments import work_precision as module
from dmfkit.experiments.ode_solvers import SOLVERS, CountedField, dopri5, has_torchdiffeq
from dmfkit.experiments.reproduce import contest_of
from dmfkit.experiments.store import read
from dmfkit.experiments.work_precision import (
    CHEBYSHEV,
    DESCENT,
    Contest,
    horizon_of,
    reference_end,
    runner,
    work_precision,
)
from dmfkit.training.chebyshev import STAGE_FACTOR
from dmfkit.training.flow_steps import flow_steps

RESULTS = sorted((Path(__file__).parents[2] / "notebooks" / "results").glob("flow-work-*.nc"))


@pytest.fixture(scope="module")
def decay():
    """Depth one: every observed entry relaxes as exp(-t), the others stand still."""
    problem = matrix_completion(low_rank((5, 4), 2, seed=0), 12, seed=0)
    start = initialise("gaussian", (4, 5), [0.3], [0])
    begin, horizon = start.end_to_end()[0], 1.5
    exact = begin + (1 - np.exp(-horizon)) * (problem.values - begin) * problem.mask
    return problem, start, horizon, exact.flatten()


@pytest.mark.parametrize("name", SOLVERS)
def test_a_solver_agrees_with_the_closed_form_and_its_evaluations_are_counted(decay, name):
    if name == "dopri5" and not has_torchdiffeq():
        pytest.skip("NOT TESTED: torchdiffeq is not installed")
    problem, start, horizon, exact = decay
    errors, counts = [], []
    for rtol in (1e-3, 1e-5, 1e-7):
        field = CountedField(problem, start.widths)
        found = SOLVERS[name](field, start.state[0], horizon, rtol)
        errors.append(float((found - exact).norm() / exact.norm()))
        counts.append(field.n_evaluations)
    assert errors[0] >= errors[1] >= errors[2]  # DOP853 covers this one in the same few steps at 1e-3 and 1e-5
    assert errors[2] < 2e-6
    assert 0 < counts[0] <= counts[2]


def test_the_heun_pair_is_of_order_two(decay):
    # Its step is accepted by an estimate of order h^2, so the global error of order h^2 is proportional to rtol.
    problem, start, horizon, exact = decay
    rtols = np.array([1e-4, 1e-5, 1e-6, 1e-7])
    counts, errors = [], []
    for rtol in rtols:
        field = CountedField(problem, start.widths)
        errors.append(float((SOLVERS["Heun pair"](field, start.state[0], horizon, rtol) - exact).norm()))
        counts.append(field.n_evaluations)
    assert -np.polyfit(np.log(counts), np.log(errors), 1)[0] == pytest.approx(2.0, abs=0.25)


def test_a_start_at_rest_stays():
    problem = matrix_completion(low_rank((4, 4), 1, seed=0), 8, seed=0)
    rest = torch.zeros(3 * 16, dtype=torch.float64)
    field = CountedField(problem, (4, 4, 4, 4))
    assert SOLVERS["Heun pair"](field, rest, 2.0, 1e-3).abs().max() == 0


def test_without_torchdiffeq_one_sentence_says_so(decay, monkeypatch):
    monkeypatch.setattr("dmfkit.experiments.ode_solvers.has_torchdiffeq", lambda: False)
    problem, start, horizon, _ = decay
    with pytest.raises(InputError, match="pip install torchdiffeq"):
        dopri5(CountedField(problem, start.widths), start.state[0], horizon, 1e-3)


def test_the_steps_are_those_of_the_flow(small_completion, small_start):
    one = type(small_start)(small_start.state[:1], small_start.widths)
    settings = Flow(rtol=1e-3, stop=1e-4)
    steps, run = flow_steps(small_completion, one, settings), gradient_flow(small_completion, one, settings)
    assert steps.n_evaluations == int(run.n_evaluations[0])
    assert len(steps.times) == int(run.n_steps[0]) - 1  # the last one is cut
    assert steps.times[0] == 0
    np.testing.assert_allclose(np.cumsum(steps.sizes)[:-1], steps.times[1:], rtol=1e-12)
    assert steps.times[-1] + steps.sizes[-1] < float(run.time[0])
    # As many stages as stability needs, with the radius' margin of 1.2.
    assert (((steps.stages - 1) ** 2 - 1) / STAGE_FACTOR <= 1.2 * steps.spans + 2 * steps.stages / STAGE_FACTOR).all()
    assert (2 / 3 * (steps.stages**2 - 1) >= 1.2 * steps.spans).all()
    assert steps.stages.sum() < steps.n_evaluations
    with pytest.raises(InputError, match="one at a time"):
        flow_steps(small_completion, small_start, settings)


@pytest.fixture
def contest():
    return Contest(CompletionTask(d=6, rank=1, n_observed=26), Start(depth=2, init_scale=1e-2), (1e-2, 1e-4), (0.5,))


def test_every_solver_ends_near_the_reference_and_the_result_is_kept(contest, tmp_path):
    store = Store(tmp_path)
    runs = work_precision(contest, store=store)
    assert set(runs["solver"].values) == {CHEBYSHEV, DESCENT, *SOLVERS}
    assert float(runs["reference_error"]) < 1e-9
    done = runs.dropna("run")
    assert done.sizes["run"] >= 9
    assert bool((done["seconds"] > 0).all())
    tight = done.where((done["setting"] == 1e-4) & (done["solver"] != DESCENT), drop=True)
    assert float(tight["error"].max()) < 1e-2
    again = work_precision(contest, store=store)
    assert again.attrs["loaded_from_store"] == int(has_torchdiffeq())
    assert again["n_evaluations"].equals(runs["n_evaluations"])
    assert contest_of(runs) == contest


def test_without_torchdiffeq_its_runs_are_missing_and_nothing_is_kept(contest, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "has_torchdiffeq", lambda: False)
    runs = work_precision(contest, store=Store(tmp_path))
    assert bool((runs["error"].isnull() == (runs["solver"] == "dopri5")).all())
    assert list(tmp_path.glob("*.nc")) == []


def test_a_solver_that_gives_up_leaves_its_run_open(contest, monkeypatch):
    def fails(*_):
        raise SolverError("no")

    monkeypatch.setitem(SOLVERS, "LSODA", fails)
    runs = work_precision(contest)
    assert bool(runs["error"].where(runs["solver"] == "LSODA", drop=True).isnull().all())


def test_a_dense_jacobian_is_only_asked_for_where_it_is_small(contest):
    large = Contest(CompletionTask(d=100), Start(), (1e-3,), (0.5,))
    assert "LSODA" in contest.solvers
    assert "LSODA" not in large.solvers


def test_there_are_stored_comparisons():
    assert len(RESULTS) == 2


@pytest.mark.parametrize("path", RESULTS[:1], ids=lambda path: path.stem)
def test_a_stored_comparison_can_be_made_again(path):
    stored = read(path)
    contest = contest_of(stored)
    problem = contest.task.problem()
    start = contest.start.begin(problem).factorization
    horizon, stable_lr = horizon_of(contest, problem, start)
    assert horizon == pytest.approx(float(stored["flow_time"]), rel=1e-6)
    reference, _ = reference_end(problem, start, horizon, 1e-12)
    for solver in (CHEBYSHEV, "Heun pair", "DOP853", DESCENT):
        one = stored.where(stored["solver"] == solver, drop=True).isel(run=0)
        end, evaluations = runner(problem, start, horizon, stable_lr, solver, float(one["setting"]))()
        assert evaluations == pytest.approx(int(one["n_evaluations"]), rel=0.02)
        assert float((end - reference).norm() / reference.norm()) == pytest.approx(float(one["error"]), rel=0.05)
    assert json.loads(stored.attrs["specification"])["work_precision"]["solvers"] == list(contest.solvers)
