"""The benchmarks run and write what they promise; how fast anything is, is not tested."""

import json
import math
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from benchmarks import autograd, clock, compiled, figure1, peak, steps, stop, workers
from benchmarks.compression import _crossing
from benchmarks.rows import Row, compared, table
from dmfkit import (
    CompletionTask,
    Descent,
    Start,
    full_observation,
    full_widths,
    gradient_descent,
    initialise,
)

ROOT = Path(__file__).parents[1]


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


def test_a_wrong_name_or_size_gets_a_sentence():
    done = run("compression", "--d", "5")
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    done = run("compression", "--d", "20", "--rank", "12")
    assert done.returncode == 2
    assert "rank_bound = 12 is not allowed" in done.stderr
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
    monkeypatch.setattr(clock, "LEAST_SECONDS", 0.01)


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
    best = next(value for name, value in values.items() if name.startswith("rate of torch.bmm, 12 x 12"))
    for size in ("1 run", "2 runs"):
        share = values[f"share of the rate of torch.bmm: descent, depth 3, {size}"]
        assert share == pytest.approx(100 * values[f"rate of descent, depth 3, {size}"] / best)
    assert "rate of numpy.matmul, 12 x 12, float64" in values


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
    monkeypatch.setattr(clock, "time", fake)
    seconds = clock.step_seconds({"a": fake.way(0.7, 0.01), "b": fake.way(0.0, 1e-5)}, 3, "test")
    assert seconds == pytest.approx({"a": 0.01, "b": 1e-5})
