"""Errors at the cursor are those of the package's runs; what should fail fails and says why."""

import base64
import json

import numpy as np
import pytest
import torch
import yaml

import dmfkit as dm
from bookbuild.pages import STATE
from dmfkit.chapters.settings import paper_settings

pytestmark = pytest.mark.book
CHAPTER, NAME = "10_compressed_completion", "compress-it"
WAYS = ("keyboard", "mouse", "touch")


@pytest.fixture(scope="module")
def chapter(layout):
    """The parameters of the built chapter."""
    quick = yaml.safe_load((layout.notebooks / "presets" / "quick.yml").read_text(encoding="utf-8"))
    return paper_settings(CHAPTER) | quick[CHAPTER]


@pytest.fixture(scope="module")
def stored(layout):
    """Settings and arrays that the chapter gave its explorable."""
    notebook = json.loads(layout.executed_notebook(CHAPTER).read_text(encoding="utf-8"))
    models = notebook["metadata"]["widgets"][STATE]["state"].values()
    model = next(one for one in models if NAME in one["state"].get("_esm", ""))
    content, arrays = model["state"]["content"], {}
    for buffer in model["buffers"]:
        *_, name, _ = buffer["path"]
        arrays[name] = np.frombuffer(base64.b64decode(buffer["data"]), content["arrays"][name]["type"])
    return content["settings"], arrays


@pytest.fixture
def shown(open_explorable):
    return open_explorable(CHAPTER, NAME)


def curves(stored, number=0):
    """Of one race, by kind, rate and bound: times, errors and the rest."""
    settings, arrays = stored
    found = {}
    for one in settings["races"][number]["curves"]:
        part = slice(one["from"], one["from"] + one["count"])
        found[one["kind"], one["rate"], one["bound"]] = (
            arrays[f"times{number}"][part],
            arrays[f"errors{number}"][part],
        )
    return found


def part_task(chapter, race):
    """The smaller problem of the chapter."""
    n = round(race["share"] * race["d"] ** 2)
    return dm.CompletionTask(
        d=race["d"], rank=chapter["rank"], n_observed=n, data_seed=chapter["data_seed"], target="truncated"
    )


def read_off(curve, t):
    times, errors = (np.asarray(values, dtype=np.float64) for values in curve)
    return float(np.exp(np.interp(t, times, np.log(errors))))


def test_the_stored_curves_are_those_of_the_package(stored, chapter):
    race = stored[0]["races"][0]
    task = part_task(chapter, race)
    stop = 2 * chapter["tolerance"] * race["d"] ** 2 / task.n_observed
    wide = dm.OrthogonalStart(chapter["depth"], chapter["layer_scale"])
    wanted = {("wide", 0.0, 0): wide}
    for rate in (0.0, chapter["discrepant_rate"]):
        key = ("compressed", rate, chapter["rank_bound"])
        wanted[key] = dm.CompressedStart(chapter["depth"], chapter["layer_scale"], 0, chapter["rank_bound"], rate)
    known = curves(stored)
    for key, start in wanted.items():
        times, errors = known[key]
        # A run that fails ends at the horizon, which all but the wide one have in common.
        horizon = chapter["smaller_horizon"] if key[0] == "wide" else float(known["compressed", 0.0, key[2]][0][-1])
        flow = dm.Flow(rtol=chapter["flow_rtol"], stop=float(f"{stop:.6g}"), horizon=horizon)
        run = dm.sweep(task, start, flow, record=(dm.RelativeError(),), record_at=times[:-1], seed=chapter["seeds"])
        run = run.isel(seed=0)
        np.testing.assert_allclose(errors[:-1], run["relative_error"], rtol=1e-6)
        np.testing.assert_allclose(errors[-1], float(run["final_relative_error"]), rtol=1e-6)


@pytest.mark.parametrize("by", WAYS)
def test_the_cursor_reads_both_runs_at_equal_iterations_and_at_equal_time(shown, stored, by):
    race, known = stored[0]["races"][0], curves(stored)
    cost = {(one["kind"], one["rate"], one["bound"]): one["seconds"] for one in race["curves"]}
    before = shown.text
    for rate, bound, cursor in ((0, 1, 40), (1, -1, 120), (-1, 0, 199), (1, 1, 100)):
        shown.slide("rate of the frames", rate, by=by)
        shown.slide("bound", bound, by=by)
        shown.slide("cursor", cursor, by=by)
        now = shown.values
        key = ("compressed", now["rate"], now["rank_bound"])
        t = now["iterations"] * race["lr"]
        later = now["seconds"] / cost[key] * race["lr"]
        np.testing.assert_allclose(now["seconds"], now["iterations"] * cost["wide", 0, 0], rtol=1e-9)
        np.testing.assert_allclose(now["error_wide"], read_off(known["wide", 0, 0], t), rtol=1e-6)
        np.testing.assert_allclose(now["error_compressed"], read_off(known[key], t), rtol=1e-6)
        np.testing.assert_allclose(now["error_compressed_at_equal_time"], read_off(known[key], later), rtol=1e-6)
        assert shown.text != before
        before = shown.text


def test_a_change_of_axis_keeps_the_cursor_where_it_is(shown):
    shown.slide("cursor", 70)
    first = shown.values
    shown.choose("against", "time")
    second = shown.values
    assert second["against_time"]
    assert second["iterations"] == pytest.approx(first["iterations"], rel=1e-6)
    assert second["error_wide"] == pytest.approx(first["error_wide"], rel=1e-6)


def test_fixed_frames_fail_and_a_small_rate_recovers(shown, stored, chapter):
    race = stored[0]["races"][0]
    shown.slide("rate of the frames", 0)
    now = shown.values
    assert not now["compressed_met"]
    assert "It fails. With γ = 0 the frames never turn" in shown.text
    truth, problem = part_task(chapter, race).ground_truth(), part_task(chapter, race).problem()
    begun = dm.OrthogonalStart(chapter["depth"], chapter["layer_scale"], chapter["seeds"][0]).full(problem)
    frames = dm.invariant_frames(begun, problem.values, chapter["rank_bound"])
    U, V = frames.left[0], frames.right[0]
    missed = float((truth - U @ (U.mT @ truth @ V) @ V.mT).square().sum() / truth.square().sum())
    assert now["floor"] == pytest.approx(missed, rel=1e-6)
    assert now["end_error_compressed"] > missed
    shown.slide("rate of the frames", 1)
    assert shown.values["rate"] == chapter["discrepant_rate"]
    assert shown.values["compressed_met"]
    assert shown.values["floor"] is None
    assert "meets the stopping rule after" in shown.text


def test_a_bound_below_the_rank_fails(shown, chapter):
    shown.slide("bound", 0)
    now = shown.values
    assert now["rank_bound"] < chapter["rank"]
    assert not now["compressed_met"]
    assert f"is below the rank {chapter['rank']}" in shown.text
    assert now["end_error_compressed"] > 0.1


def test_too_large_a_rate_is_said_to_have_no_stable_step(shown):
    assert "largest stable one" not in shown.text
    shown.slide("rate of the frames", -1)
    assert "is above the largest stable one along this run" in shown.text


def test_the_larger_size_has_its_own_curves_and_disables_what_it_lacks(shown, stored, chapter):
    shown.root.get_by_label(f"d = {chapter['d']},").check()
    now = shown.values
    key = ("compressed", now["rate"], now["rank_bound"])
    assert now["d"] == chapter["d"]
    t = now["iterations"] * chapter["lr"]
    assert now["error_compressed"] == pytest.approx(read_off(curves(stored, 1)[key], t), rel=1e-6)
    assert shown.slider("bound").is_disabled()
    assert shown.root.get_by_label("narrow", exact=True).is_disabled()
    assert f"only r̂ = {chapter['rank_bound']} was run" in shown.text
    shown.root.get_by_label(f"d = {stored[0]['races'][0]['d']},").check()
    assert shown.slider("bound").is_enabled()


def test_curves_can_be_hidden_and_the_narrow_one_shown(shown, chapter):
    assert shown.values["shown"] == ["wide", "compressed"]
    shown.root.get_by_label("narrow", exact=True).tap()
    assert f"A narrow factorization of hidden width {2 * chapter['rank_bound']}" in shown.text
    shown.root.get_by_label("wide", exact=True).click()
    assert shown.values["shown"] == ["compressed", "narrow"]


def test_least_errors_of_low_rank_are_eckart_and_youngs(stored, chapter):
    race = stored[0]["races"][0]
    squares = torch.linalg.svdvals(part_task(chapter, race).ground_truth()).square()
    expected = [float(squares[2 * bound :].sum() / squares.sum()) for bound in race["bounds"]]
    np.testing.assert_allclose(race["beyond"], expected, atol=1e-12)
