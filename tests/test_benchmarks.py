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

from benchmarks import growth, products, recovery
from benchmarks.__main__ import app
from benchmarks.compression import _crossing
from benchmarks.rows import Row, compared, table
from benchmarks.soft_impute import soft_impute
from dmfkit.errors import InputError
from dmfkit.sampled_products import HostProducts
from dmfkit.sparse_tasks import SparseCompletionTask

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
    done = run("compression", "--d", "5")
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    done = run("compression", "--d", "20", "--rank", "12")
    assert done.returncode == 2
    assert "rank_bound = 12 is not allowed" in done.stderr
    done = run("nonsense")
    assert done.returncode == 2
    assert "Traceback" not in done.stderr


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


def small_problem():
    return SparseCompletionTask(d=60, rank=1, n_observed=900, n_held_out=200, target_norm=15.0).problem()


def test_growth_is_measured_at_every_point_and_fitted(monkeypatch):
    monkeypatch.setattr(growth, "LEAST_SECONDS", 1e-4)
    monkeypatch.setattr(growth, "peak_bytes", lambda point, _: [2.0 * point.entries_and_factors()] * 3)
    base = growth.Point(d=100, n_observed=1000, width=2)
    found = {row.name: row for row in growth.rows(base, rank=1, repeats=1)}
    assert all(row.value > 0 for name, row in found.items() if "exponent" not in name)
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
    made, descent, flow = growth.peak_bytes(point, rank=2)
    assert made >= 16 * point.n_observed
    assert min(descent, flow) >= point.entries_and_factors()
    assert max(made, descent, flow) < 1e9  # a matrix in full would take 3.2


def test_all_ways_to_the_products_are_measured():
    problem = small_problem()
    names = [row.name for row in products.rows(problem, 3, 1)]
    assert {name.split(":")[0] for name in names} == {"residual", "product", "transposed product"}
    left, right = (torch.randn(60, 3, generator=torch.Generator().manual_seed(s)).double() for s in (0, 1))
    ours = HostProducts(problem.rows, problem.columns, problem.values, problem.size).residual(left, right)
    theirs = products._gathered(left, right, problem.rows.long(), problem.columns.long(), problem.values, 64)
    assert torch.allclose(ours, theirs, rtol=1e-12, atol=1e-13)


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
    threshold = 0.1 * np.linalg.svd(problem.observed_matrix().toarray(), compute_uv=False)[0]
    matrix = (found.left[0] @ found.right[0].mT).numpy()
    u, s, vt = np.linalg.svd(matrix)
    rank = int((s > 1e-8 * s[0]).sum())
    mask = np.zeros(matrix.shape)
    mask[problem.rows, problem.columns] = 1.0
    rest = mask * (problem.observed_matrix().toarray() - matrix)
    # The residual is the threshold times a subgradient of the nuclear norm.
    assert 0 < rank < 6
    assert np.allclose(u[:, :rank].T @ rest @ vt[:rank].T, threshold * np.eye(rank), atol=1e-4 * threshold)
    assert np.linalg.norm(rest, 2) < threshold * (1 + 1e-4)
