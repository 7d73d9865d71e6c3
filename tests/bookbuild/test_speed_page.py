"""The page of speeds shows what is stored, and what is stored is what the benchmarks write."""

import json
from pathlib import Path

import pytest

from bookbuild.speed_page import _table, reached, read_groups, read_targets, speeds, stored
from dmfkit.errors import InputError

ROOT = Path(__file__).parents[2]
STORED = ROOT / "benchmarks" / "stored"
GROUPS = read_groups(ROOT / "benchmarks")
TARGETS = read_targets(ROOT / "benchmarks")


def page_of(folder):
    return speeds(folder, GROUPS, TARGETS)


def made(group, rows, **machine):
    known = {"processor": "A chip", "device": "CPU (2 threads, x)", "cores": 2, "threads": 2, "date": "2026-01-02"}
    versions = json.dumps({"torch": "1.2"})
    machine = {**known, "jax": None, "commit": "abc", "versions": versions, **machine}
    keys = ("name", "value", "unit", "against", "ratio")
    return {"group": group, "machine": machine, "rows": [dict(zip(keys, row, strict=True)) for row in rows]}


def write(folder, **files):
    for name, content in files.items():
        (folder / f"{name}.json").write_text(json.dumps(content))


def test_stored_files_hold_rows_whose_ratios_agree_with_their_values():
    files = list(STORED.glob("*.json"))
    assert files
    for path in files:
        content = json.loads(path.read_text(encoding="utf-8"))
        assert content["group"] in GROUPS, path
        values = {row["name"]: row["value"] for row in content["rows"]}
        assert len(values) == len(content["rows"]), f"{path} has a name twice"
        for row in content["rows"]:
            assert set(row) == {"name", "value", "unit", "against", "ratio"}
            assert row["value"] is None or row["value"] > 0
            assert (row["ratio"] is None) == (row["against"] == "")
            if row["against"]:
                assert row["ratio"] == pytest.approx(values[row["against"]] / row["value"], rel=1e-12)


def test_the_page_shows_every_stored_row_and_its_machine():
    page = page_of(STORED).replace("\\_", "_")
    for one in stored(STORED):
        assert one["machine"]["date"] in page
        assert one["machine"]["processor"] in page
        for row in one["rows"]:
            line = row_that_says(page, row["name"], row["value"], row["unit"])
            if row["against"]:
                assert read_number(line.split("|")[3]) == pytest.approx(row["ratio"], rel=6e-3)
                assert " times as much: " in line
                assert line.removesuffix(" |").endswith(row["against"].rpartition(": ")[2])


def row_that_says(page, name, value, unit):
    """The row of this name with this value; in several tables rows have one name."""
    for line in page.splitlines():
        if line.startswith(f"| {name} | "):
            shown, _, shown_unit = line.split("|")[2].strip().partition(" ")
            scale = {("s", "us"): 1e6, ("ms", "us"): 1e3}.get((unit, shown_unit), 1.0)
            if read_number(shown) == pytest.approx(scale * value, rel=6e-4) and (scale > 1 or shown_unit == unit):
                return line
    raise AssertionError(f"no row says that {name} is {value} {unit}")


def read_number(text):
    return float(text.split()[0].replace(",", ""))


def test_long_and_short_numbers_are_written_out():
    rows = [
        {"name": "a", "value": 3_941_234, "unit": "", "against": "", "ratio": None},
        {"name": "b", "value": 2.211e-5, "unit": "s", "against": "c: d", "ratio": 3395.65},
    ]
    assert _table(rows).count("| a | 3,941,000 |") == 1
    assert "| b | 22.11 us | 3,400 times as much: c: d |" in _table(rows)


def test_the_page_says_what_is_missed_met_and_unmeasured(tmp_path):
    share = "share of the rate of numpy.matmul on all cores: descent, depth 3, 24 runs"
    flow, reference = "to the stop, depth 3: dmfkit flow", "to the stop, depth 3: autograd through nn.Linear"
    rows = [(reference, 70.0, "s", "", None), (flow, 1.0, "s", reference, 70.0)]
    write(tmp_path, peak=made("peak", [(share, 50.0, "%", "", None)]), stop=made("stop", rows))
    targets = {line.split(" | ")[0]: line for line in page_of(tmp_path).splitlines() if " | at " in line}
    assert len(targets) == len(TARGETS)
    assert "| 50, **missed** |" in targets["| Share of the rate of batched products, depth 3, in percent"]
    assert "| 70, met |" in targets["| Flow to the stop, against `nn.Linear` with GroupRMSprop"]
    assert sum("not measured" in line for line in targets.values()) == len(TARGETS) - 2


def test_of_a_device_and_a_group_only_the_latest_table_is_shown(tmp_path):
    old = made("peak", [("rate", 1.0, "GFLOP/s", "", None)])
    new = made("peak", [("rate", 2.0, "GFLOP/s", "", None), ("unreached", None, "s", "", None)], date="2026-02-01")
    elsewhere = made("peak", [("rate", 3.0, "GFLOP/s", "", None)], processor="Another", cores=8, threads=8)
    write(tmp_path, a=new, b=old, c=elsewhere)
    page = page_of(tmp_path)
    assert "| rate | 2 GFLOP/s |" in page
    assert "| rate | 1 GFLOP/s |" not in page
    assert "| unreached | not reached |" in page
    assert page.count("target on two cores") == 1
    assert "## Another" in page


def test_every_target_names_a_group_and_one_bound():
    for target in TARGETS:
        assert target.group in GROUPS
        assert (target.least is None) != (target.most is None)
        assert reached(target, {}) is None


def test_without_measurements_the_page_says_so_and_a_wrong_file_is_named(tmp_path):
    assert "Nothing has been measured" in page_of(tmp_path)
    (tmp_path / "broken.json").write_text('{"rows": []}')
    with pytest.raises(InputError, match=r"broken\.json is not a table of speeds"):
        page_of(tmp_path)


def test_the_page_says_how_far_the_products_allow(tmp_path):
    rate = (
        "rate of numpy.matmul on all cores, 100 x 100, float64, best of batches (here 24)",
        60.0,
        "GFLOP/s",
        "",
        None,
    )
    step = ("step, depth 3, float64: autograd through nn.Linear, 1 run", 500.0, "us/run", "", None)
    write(tmp_path, peak=made("peak", [rate]))
    assert "at most" not in page_of(tmp_path).partition("### ")[0].replace("| at most", "")
    write(tmp_path, steps=made("steps", [step]))
    # Twelve million operations at sixty thousand a microsecond.
    assert "take 200 µs a run" in page_of(tmp_path)
    assert "at most 2.5 times faster" in page_of(tmp_path)
