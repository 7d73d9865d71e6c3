"""The benchmarks run and write what they promise; how fast anything is, is not tested."""

import json
import math
import subprocess
import sys
from pathlib import Path

import torch

from benchmarks.compression import _crossing
from benchmarks.rows import Row, compared, table

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
