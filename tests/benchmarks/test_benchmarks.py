"""The benchmarks run and write what they promise; how fast anything is, is not tested."""

import json
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from benchmarks import autograd, compiled, figure1, growth, peak, products, recovery, steps, stop, workers
from benchmarks.__main__ import app
from benchmarks.compression import _crossing
from benchmarks.rows import Row, compared, table
from benchmarks.soft_impute import soft_impute
from dmfkit import CompletionTask, Descent, Start, full_observation, full_widths, gradient_descent, initialise
from dmfkit.errors import InputError
from dmfkit.experiments import step_timings as steady
from dmfkit.linalg.sampled_products import HostProducts
from dmfkit.problems.tasks import SparseCompletionTask

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]


def run(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "benchmarks", *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )


def test_the_compression_group_measures_every_row(tmp_path):
    done = run(
        *("compression", "--d", "40", "--rank", "1", "--observed-share", "0.4", "--repeats", "1"),
        *("--json", str(tmp_path / "rows.json")),
    )
    assert done.returncode == 0, done.stderr
    written = json.loads((tmp_path / "rows.json").read_text())
    names = {row["name"] for row in written["rows"]}
    assert {"masked step, full", "masked step, compressed", "masked step, narrow"} <= names
    assert {f"to error 1e-09, {label}" for label in ("full", "compressed", "narrow")} <= names
    assert all(name in done.stdout for name in names)
    assert all(row["value"] for row in written["rows"])
    assert set(written["rows"][0]) == {"name", "value", "unit", "against", "ratio"}
    assert written["machine"]["threads"] >= 1


def test_the_size_group_writes_what_it_measures(tmp_path):
    options = ["size", "--d", "100", "--rank", "1", "--per-row", "20", "--repeats", "1"]
    done = CliRunner().invoke(app, [*options, "--part", "products", "--json", str(tmp_path / "rows.json")])
    assert done.exit_code == 0, done.output
    written = json.loads((tmp_path / "rows.json").read_text())
    assert len(written["rows"]) > 8
    assert all(row["name"] in done.stdout for row in written["rows"])
    for wrong, words in (("nothing", "choose 'growth'"), ("growth", "too many here")):
        refused = CliRunner().invoke(app, [*options, "--part", wrong])
        assert isinstance(refused.exception, InputError)
        assert words in str(refused.exception)


def test_a_wrong_name_or_size_gets_a_sentence():
    refused = CliRunner().invoke(app, ["compression", "--d", "5"])
    assert refused.exit_code == 2
    assert "Traceback" not in refused.output
    refused = CliRunner().invoke(app, ["compression", "--d", "20", "--rank", "12"])
    assert isinstance(refused.exception, InputError)
    assert "rank_bound = 12 is not allowed" in str(refused.exception)
    # How a sentence ends the command, once as a process.
    done = run("nonsense")
    assert done.returncode == 2
    assert done.stderr.startswith("there is no group 'nonsense': choose one of ")
    assert done.stderr.count("\n") == 1


def test_the_crossing_is_interpolated_between_moments():
    records = {
        "relative_error": torch.tensor([[1.0, 1e-8, 1e-10, math.nan]]),
        "seconds": torch.tensor([[0.0, 2.0, 4.0, math.nan]]),
    }
    assert abs(_crossing(records) - 3.0) < 1e-6
    assert math.isnan(_crossing({name: values[:, :2] for name, values in records.items()}))


def test_a_ratio_says_how_much_less_a_row_needs():
    slow = Row("slow", 10.0, "s")
    fast = compared("fast", 2.0, "s", slow)
    assert fast.ratio == 5.0
    assert "5.00 x less than slow" in table([slow, fast])


TASK = CompletionTask(d=12, rank=1, n_observed=80, normalisation="mean")
CPU = torch.device("cpu")


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(steady, "LEAST_SECONDS", 0.01)


needs_jax = pytest.mark.skipif(not compiled.available(), reason=compiled.ABSENT)


def largest_difference(factors, others):
    return max(
        float((one.reshape(other.shape) - other).abs().max()) for one, other in zip(factors, others, strict=True)
    )


@pytest.mark.parametrize("depth", [1, 2, 3, 4])
@pytest.mark.parametrize("observed", ["some", "all"])
def test_the_reference_takes_the_same_steps_as_dmfkit(depth, observed):
    problem = TASK.problem() if observed == "some" else full_observation(TASK.ground_truth(), "mean")
    start = initialise("gaussian", full_widths(TASK.shape, depth), [0.5], [0])
    ours = gradient_descent(problem, start, Descent(lr=1e-2, rule="group_rmsprop", stop=0.0, max_steps=20))
    theirs, taken, below = autograd.train(problem, start, 1e-2, 20)
    assert taken == 20
    assert not below
    assert largest_difference(start.factors, ours.factorization.factors) > 1e-3
    assert largest_difference(theirs, ours.factorization.factors) < 1e-10


def test_the_reference_stops_at_the_same_step_as_dmfkit():
    start = Start(init_scale=0.5).begin(TASK.problem()).factorization
    ours = gradient_descent(TASK.problem(), start, Descent(lr=1e-2, rule="group_rmsprop", stop=1e-2))
    _, taken, below = autograd.train(TASK.problem(), start, 1e-2, 100_000, stop=1e-2)
    assert below
    assert taken == int(ours.n_steps[0])


@needs_jax
@pytest.mark.parametrize("rule", ["fixed", "group_rmsprop"])
@pytest.mark.parametrize("depth", [1, 2, 3, 4])
@pytest.mark.parametrize("runs", [1, 3])
def test_jax_takes_the_same_steps_as_dmfkit(rule, depth, runs):
    start = initialise("gaussian", full_widths(TASK.shape, depth), [0.5] * runs, range(runs))
    descent = Descent(lr=1e-2, rule=rule, stop=0.0, max_steps=20, factor_rates=tuple(1.0 + i for i in range(depth)))
    ours = gradient_descent(TASK.problem(), start, descent)
    train = compiled.trainer(TASK.problem(), start, 1e-2, rule=rule, factor_rates=descent.factor_rates)
    assert largest_difference(train(20), ours.factorization.factors) < 1e-10


def test_the_steps_group_has_every_row(quick):
    names = {row.name for row in steps.rows(TASK, [2], 2, ["float64", "float32"], CPU, repeats=1)}
    kinds = ["dmfkit", *(["JAX"] if compiled.available() else [])]
    for dtype in ("float64", "float32"):
        where = f"step, depth 2, {dtype}: "
        expected = {where + f"{kind}, {size}" for kind in kinds for size in ("1 run", "2 runs")}
        assert expected | {where + "autograd through nn.Linear, 1 run"} <= names
    wide = [row.name for row in steps.wide_rows(30, 1, 0.3, CPU, repeats=1)]
    assert [name for name in wide if name.endswith("dmfkit")] == [
        f"step, d = 30, {what}: dmfkit"
        for what in ("masked, full width", "masked, compressed", "fully observed, compressed")
    ]


def test_the_peak_group_gives_rates_and_shares_of_the_best(quick):
    values = {row.name: row.value for row in peak.rows(TASK, [3], 2, CPU, repeats=1)}
    for library in ("torch.bmm", "numpy.matmul on all cores"):
        best = next(value for name, value in values.items() if name.startswith(f"rate of {library}, 12 x 12"))
        for size in ("1 run", "2 runs"):
            share = values[f"share of the rate of {library}: descent, depth 3, {size}"]
            assert share == pytest.approx(100 * values[f"rate of descent, depth 3, {size}"] / best)


def test_the_stop_group_compares_and_says_when_the_reference_was_ended_early():
    task = CompletionTask(d=10, rank=1, n_observed=70, target_norm=10.0)
    found = stop.rows(task, Start(depth=2, init_scale=0.5), CPU, limit_seconds=60.0)
    assert [row.name for row in found if row.unit == "s"] == [
        "to the stop, depth 2: autograd through nn.Linear",
        "to the stop, depth 2: dmfkit flow",
        "to the stop, depth 2: dmfkit GroupRMSprop",
        "to the stop, depth 2: dmfkit fixed-step descent, half-sum",
    ]
    evaluations = {row.name: row.value for row in found if row.unit == ""}
    assert (
        evaluations["evaluations to the stop: autograd through nn.Linear"]
        == evaluations["evaluations to the stop: dmfkit GroupRMSprop"]
    )
    early = stop.rows(task, Start(depth=2, init_scale=0.5), CPU, limit_seconds=0.0)
    assert early[0].name.endswith("autograd through nn.Linear, ended early: at least")


def test_the_workers_group_runs_the_sweep_here_and_there():
    found = workers.rows(CompletionTask(d=10, rank=1, n_observed=70), [2], 2, counts=(1,))
    assert [row.name for row in found] == [
        "sweep of 2 flows: this process",
        "sweep of 2 flows: 1 worker, 1 thread each",
        "starting 1 worker",
    ]


def test_the_figure1_group_trains_the_chapters_grids():
    whole = figure1.settings()
    assert len(whole["n_observed"]) * len(whole["depths"]) * len(whole["init_scales"]) * len(whole["seeds"]) == 72
    small = {**whole, "d": 12, "rank": 1, "n_observed": [100], "depths": [2], "init_scales": [0.1], "lrs": [5e-3]}
    values = {row.name: row.value for row in figure1.rows({**small, "seeds": [0, 1]}, "cpu", workers=1)}
    assert values["Figure 1, flow grid: runs"] == values["Figure 1, descent grid: runs"] == 2
    assert values["Figure 1, flow grid: runs that reached the stop"] == 2


class Clock:
    """A clock that only the measured calls move."""

    def __init__(self):
        self.now = 0.0

    def perf_counter(self):
        return self.now

    def way(self, fixed, per_step):
        def take(steps):
            self.now += fixed + per_step * steps

        return take


def test_what_a_call_costs_beside_its_steps_is_not_counted(monkeypatch):
    fake = Clock()
    monkeypatch.setattr(steady, "time", fake)
    seconds = steady.step_seconds({"a": fake.way(0.7, 0.01), "b": fake.way(0.0, 1e-5)}, 3, "test")
    assert seconds["a"] == pytest.approx([0.01] * 3)
    assert seconds["b"] == pytest.approx([1e-5] * 3)


def small_problem():
    return SparseCompletionTask(d=60, rank=1, n_observed=900, n_held_out=200, target_norm=15.0).problem()


def test_growth_is_measured_at_every_point_and_fitted(monkeypatch):
    monkeypatch.setattr(growth, "LEAST_SECONDS", 1e-4)
    monkeypatch.setattr(growth, "peak_bytes", lambda point, _: [2.0 * point.entries_and_factors()] * 4)
    base = growth.Point(d=100, n_observed=1000, width=2)
    found = {row.name: row for row in growth.rows(base, rank=1, repeats=1)}
    # Not that times are above zero: differences of so short ones may have either sign on a busy machine.
    assert all(row.value > 0 for name, row in found.items() if "memory" in name and "exponent" not in name)
    for what, points in growth.series(base).items():
        assert f"step, exponent in {what}" in found
        assert len({point for _, point in points}) == len(points) >= 3
    # Entries and factors grow as d does, where entries per row are kept, and so does what is twice as much.
    assert found["peak memory, flow, exponent in d"].value == pytest.approx(1.0, abs=0.01)
    assert found["peak memory, flow, d = 800"].ratio == pytest.approx(0.5)
    assert growth.exponent([1, 2, 4], [3, 12, 48]) == pytest.approx(2.0)


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="memory is measured on Linux only")
def test_peak_memory_of_a_process_of_its_own_holds_at_least_what_it_needs():
    point = growth.Point(d=20_000, n_observed=400_000, width=4)
    made, *others = growth.peak_bytes(point, rank=2)
    assert made >= 16 * point.n_observed
    assert min(others) >= point.entries_and_factors()
    assert max(made, *others) < 1e9  # a matrix in full would take 3.2


def test_all_ways_to_the_hostare_measured():
    problem = small_problem()
    names = [row.name for row in products.rows(problem, 3, 1)]
    assert {name.split(":")[0] for name in names} == {"residual", "residual and both products"}
    left, right = (torch.randn(60, 3, generator=torch.Generator().manual_seed(s)).double() for s in (0, 1))
    parts = problem.observed.rows, problem.observed.columns, problem.observed.values
    places = problem.observed.index
    one, out, to_core = torch.eye(3).double(), torch.empty_like(left), torch.empty(3, 3).double()
    host = HostProducts(*parts, problem.shape)
    square, transposed = host.square_and_gradients(left, one, right, 1.0, out, to_core)
    gathered = products._gathered(left, right, *places, problem.observed.values, 64)
    assert torch.allclose(square, gathered.square().sum(), rtol=1e-12, atol=0)
    for mine, theirs in zip((out, transposed), products.by_scipy(left, right, problem), strict=True):
        assert torch.allclose(mine, torch.from_numpy(theirs), rtol=1e-12, atol=1e-13)


def test_every_method_recovers_a_small_matrix():
    problem = small_problem()
    found = {row.name: row.value for row in recovery.rows(problem, 1)}
    for label in ("compressed, bound 1", "compressed, bound 2", "narrow, width 2"):
        assert found[f"{label}: held-out error"] < 1e-8
        assert found[f"{label}: evaluations"] < recovery.MAX_EVALUATIONS
    assert found["soft-impute, best of its path: held-out error"] < 0.1


def test_alternating_least_squares_recovers_a_small_matrix():
    pytest.importorskip("cmfrec")
    problem = small_problem()
    # Without a penalty some random starts are led astray by a few rows of the wrong sign.
    assert recovery.held_out_error(problem, recovery.alternating(problem, 1, 1e-1).matrix) < 1e-2


def test_soft_impute_minimises_what_it_says():
    problem = small_problem()
    *_, found = soft_impute(problem, 6, (0.3, 0.1), steps=500, tolerance=1e-9)
    threshold = 0.1 * np.linalg.svd(problem.observed_matrix().numpy(), compute_uv=False)[0]
    matrix = (found.left[0] @ found.right[0].mT).numpy()
    u, s, vt = np.linalg.svd(matrix)
    rank = int((s > 1e-8 * s[0]).sum())
    mask = np.zeros(matrix.shape)
    mask[problem.observed.rows, problem.observed.columns] = 1.0
    rest = mask * (problem.observed_matrix().numpy() - matrix)
    # The residual is the threshold times a subgradient of the nuclear norm.
    assert 0 < rank < 6
    assert np.allclose(u[:, :rank].T @ rest @ vt[:rank].T, threshold * np.eye(rank), atol=1e-4 * threshold)
    assert np.linalg.norm(rest, 2) < threshold * (1 + 1e-4)
