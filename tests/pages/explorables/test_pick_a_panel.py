"""Whatever run the reader picks, by whatever means, the numbers are those of the sweep."""

import ast
import random
import re
from pathlib import Path

import numpy as np
import papermill
import pytest
import yaml
from matplotlib.figure import Figure

import dmfkit as dm
from dmfkit import interactive

pytestmark = pytest.mark.book
ROOT = Path(__file__).parents[3]
NAME = "pick-a-panel"
CHAPTERS = ("01_matrix_completion", "03_norms_in_experiments")
SUMMED = ("relative_error", "nuclear_norm", "effective_rank", "mean_square")
# Clicks through all controls of an explorable and returns what it then says, for every combination.
EVERY_STATE = """root => {
  const choices = [...root.querySelectorAll(".dmfkit-x-controls fieldset")];
  const groups = choices.map((group) => [...group.querySelectorAll("input")]);
  const slider = root.querySelector("input[type=range]");
  const states = [];
  const through = ([first, ...rest]) => {
    if (first) return first.forEach((input) => (input.click(), through(rest)));
    for (let i = 0; i <= Number(slider.max); i += 1) {
      slider.value = i;
      slider.dispatchEvent(new Event("input"));
      states.push({ ...root.values, text: root.querySelector(".dmfkit-x-text").textContent });
    }
  };
  through(groups);
  return states;
}"""


def said(value):
    """A number as explorables write it."""
    rounded = float(f"{value:.3g}")
    if value == 0 or 1e-3 <= abs(value) < 1e5:
        return f"{rounded:.10f}".rstrip("0").rstrip(".").replace("-", "−")
    mantissa, exponent = f"{rounded:.2e}".split("e")
    return f"{mantissa.rstrip('0').rstrip('.')}e{int(exponent)}".replace("-", "−")


def times(ratio):
    """A ratio as this explorable writes it: without exponents."""
    return f"{float(f'{ratio:.3g}'):,.0f}" if ratio >= 10_000 else said(ratio)


@pytest.fixture(scope="module")
def quick():
    """The sweeps of chapter 1 under the quick preset, found where the book's build has left them."""
    chapter = papermill.inspect_notebook(str(ROOT / "notebooks" / f"{CHAPTERS[0]}.ipynb"))
    values = {name: ast.literal_eval(one["default"]) for name, one in chapter.items()}
    values |= yaml.safe_load((ROOT / "notebooks/presets/quick.yml").read_text(encoding="utf-8"))[CHAPTERS[0]]
    task = dm.CompletionTask(
        d=values["d"], rank=values["rank"], n_observed=min(values["n_observed"]), data_seed=values["data_seed"]
    )
    grid = {"n_observed": values["n_observed"], "depth": values["depths"], "init_scale": values["init_scales"]}
    seed, store = values["seeds"], dm.open_store()
    steps = dm.Descent(stop=values["stop"], max_steps=values["max_steps"])
    flow = dm.Flow(rtol=values["flow_rtol"], stop=values["stop"])
    return {
        "rank": values["rank"],
        "descent": dm.sweep(
            task, dm.Start(), steps, name="fig1-descent", **grid, lr=values["lrs"], seed=seed, store=store
        ),
        "flow": dm.sweep(task, dm.Start(), flow, name="fig1-flow", **grid, seed=seed, store=store),
        "convex": dm.nuclear_norm_solutions(
            task,
            dm.NuclearNorm(solver="SCS", tolerance=1e-8),
            name="fig2-nuclear",
            n_observed=values["n_observed"],
            store=store,
        ),
    }


def assert_from_sweep(now, data):
    """Check the numbers of an explorable's state against the sweeps that it stands for."""
    runs = data["flow"] if now["lr"] is None else data["descent"].sel(lr=now["lr"])
    runs = runs.sel({name: now[name] for name in ("n_observed", "depth", "init_scale")})
    runs = runs if now["seed"] is None else runs.sel(seed=[now["seed"]])
    good = runs["status"] == int(dm.Status.CONVERGED)
    assert (now["n_runs"], now["n_converged"]) == (good.size, int(good.sum()))
    used = runs.where(good) if now["seed"] is None else runs
    for name in SUMMED:
        np.testing.assert_allclose(now[name], float(used[f"final_{name}"].mean()), rtol=1e-6)
    for name in ("n_steps", "n_evaluations"):
        np.testing.assert_allclose(now[name], float(used[name].mean()), rtol=1e-6)
    values = used["final_singular_value"].mean("seed").values
    np.testing.assert_allclose(now["spectrum"], values[: len(now["spectrum"])], rtol=1e-6)
    np.testing.assert_allclose(now["value_after_rank"], values[data["rank"]], rtol=1e-6)
    assert f"Depth {now['depth']}, {now['n_observed']} entries, c = {said(now['init_scale'])}, " in now["text"]


@pytest.mark.parametrize("by", ["keyboard", "mouse", "touch"])
@pytest.mark.parametrize("chapter", CHAPTERS)
def test_a_picked_run_has_the_numbers_of_the_sweep(open_explorable, quick, chapter, by):
    shown = open_explorable(chapter, NAME)
    descent = quick["descent"]
    draw = random.Random(0)
    methods = [*(f"lr {lr:g}" for lr in descent["lr"].values), "flow"]
    seen = set()
    for _ in range(4):
        shown.choose("Known entries", str(draw.choice(descent["n_observed"].values)), by=by)
        shown.choose("Depth", str(draw.choice(descent["depth"].values)), by=by)
        shown.choose("Method", draw.choice(methods), by=by)
        shown.choose("Seed", draw.choice([*map(str, descent["seed"].values), "mean"]), by=by)
        shown.slide("Initial scale", draw.randrange(descent.sizes["init_scale"]), by=by)
        now = shown.values | {"text": shown.text}
        assert_from_sweep(now, quick)
        seen.add(now["text"])
        if now["n_converged"]:
            assert said(now["value_after_rank"]) in now["text"]
    assert len(seen) > 2


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_every_view_says_its_own_number(open_explorable, quick, chapter):
    shown = open_explorable(chapter, NAME)
    few = quick["convex"].sel(n_observed=min(quick["convex"]["n_observed"].values))
    now = shown.values
    expected = {"error": f"{times(now['relative_error'] / now['floor'])} times the stopping threshold"}
    if chapter == CHAPTERS[0]:
        expected["gradient evaluations"] = f"evaluations of the gradient go from {said(now['n_evaluations'])} at"
    else:
        gap = now["nuclear_norm"] / float(few["value"]) - 1
        expected["nuclear norm"] = f"this run {said(100 * gap)} %"
        expected["effective rank"] = f"{said(abs(now['effective_rank'] - float(few['effective_rank'])))} "
        expected["rank against norm"] = f"{said(100 * gap)} % more nuclear norm"
        np.testing.assert_allclose(now["convex"]["nuclear_norm"], float(few["value"]), rtol=1e-12)
    texts = set()
    for view, words in expected.items():
        shown.choose("Show", view)
        assert words in shown.text
        texts.add(shown.text)
    assert len(texts) == len(expected)


def test_every_run_of_the_paper_can_be_reached_and_says_how_it_ended(mount, figure_1_runs):
    shown = mount(interactive.PickAPanel(Figure(), **figure_1_runs))
    states = shown.root.evaluate(EVERY_STATE)
    assert len(states) == figure_1_runs["descent"]["status"].size + figure_1_runs["flow"]["status"].size + 2 * 3 * 4 * 3
    assert len({tuple(s[k] for k in ("n_observed", "depth", "init_scale", "lr", "seed")) for s in states}) == len(
        states
    )
    for state in states:
        assert_from_sweep(state, figure_1_runs)

    single = [s for s in states if s["seed"] is not None]
    for state in single:
        where = {name: state[name] for name in ("n_observed", "depth", "init_scale", "seed")}
        runs = figure_1_runs["flow"] if state["lr"] is None else figure_1_runs["descent"].sel(lr=state["lr"])
        status = dm.Status(int(runs["status"].sel(where)))
        words = {
            "CONVERGED": ": converged after",
            "LIMIT": ": ran out of steps after 200,000",
            "DIVERGED": ": diverged",
        }
        assert words[status.name] in state["text"]
    lost = [s for s in states if s["seed"] is None and s["n_converged"] == 0]
    assert lost
    for state in lost:
        assert "none converged" in state["text"]
        assert "no mean" in state["text"]
        assert np.isnan(state["relative_error"])
        assert np.isnan(state["spectrum"]).all()


def test_a_mean_of_some_of_the_seeds_says_which(mount, figure_1_runs):
    descent = figure_1_runs["descent"].copy(deep=True)
    descent["status"].loc[{"n_observed": 2000, "depth": 2, "init_scale": 1e-2, "lr": 1e-3, "seed": 1}] = 2
    shown = mount(interactive.PickAPanel(Figure(), **(figure_1_runs | {"descent": descent})))
    shown.choose("Method", "lr 0.001")
    shown.choose("Seed", "mean")
    assert "2 of 3 converged" in shown.text
    assert "1 diverged" in shown.text
    assert_from_sweep(shown.values | {"text": shown.text}, figure_1_runs | {"descent": descent})


def test_runs_that_left_the_finite_numbers_are_said(mount, figure_1_runs):
    descent = figure_1_runs["descent"].copy(deep=True)
    descent["status"][:] = int(dm.Status.DIVERGED)
    for name in ("final_singular_value", "final_relative_error", "final_nuclear_norm", "final_effective_rank"):
        descent[name][:] = np.nan
    flow = figure_1_runs["flow"].copy(deep=True)
    flow["status"][:] = int(dm.Status.LIMIT)
    shown = mount(interactive.PickAPanel(Figure(), **(figure_1_runs | {"descent": descent, "flow": flow})))
    assert "without converging" in shown.text
    shown.choose("Method", "lr 0.001")
    assert "no longer finite" in shown.text
    assert shown.root.locator("tbody td").first.text_content() == "none"
    for view in ("error", "nuclear norm", "effective rank"):
        shown.choose("Show", view)
        assert shown.root.locator("svg path[stroke-width='1.8']").count() >= 36
    assert "NaN" not in shown.root.inner_html()


@pytest.mark.parametrize("by", ["keyboard", "mouse", "touch"])
def test_a_pinned_run_is_compared(mount, figure_1_runs, by):
    shown = mount(interactive.PickAPanel(Figure(), **figure_1_runs))
    swap = shown.root.get_by_role("button", name="Swap the two")
    assert swap.is_disabled()
    shown.press("Pin this run", by=by)
    assert "This is the pinned run" in shown.text
    shown.choose("Depth", "3", by=by)
    now = shown.values
    assert now["pinned"]["depth"] == 2
    assert_from_sweep(now["pinned"] | {"text": "Depth 2, 2000 entries, c = 0.01, "}, figure_1_runs)
    ratio = now["pinned"]["value_after_rank"] / now["value_after_rank"]
    assert "Against the pinned run (depth 2):" in shown.text
    assert f"σ₆ {said(ratio)} times smaller" in shown.text
    headings = shown.root.locator("table th[scope=col]").all_text_contents()
    assert headings == ["this run", "pinned", "least norm", "truth"]
    shown.press("Swap the two", by=by)
    assert (shown.values["depth"], shown.values["pinned"]["depth"]) == (2, 3)
    assert f"σ₆ {said(ratio)} times as large" in shown.text
    shown.choose("Depth", "3", by=by)
    shown.press("Remove the pin", by=by)
    assert shown.values["pinned"] is None
    assert swap.is_disabled()


def test_the_table_agrees_with_the_values(mount, figure_1_runs):
    shown = mount(interactive.PickAPanel(Figure(), **figure_1_runs))
    for depth in ("2", "4"):
        shown.choose("Depth", depth)
        now = shown.values
        columns = [now, now["convex"], now["truth"]]
        rows = {
            row.locator("th").text_content(): row.locator("td").all_text_contents()
            for row in shown.root.locator("tbody tr").all()
        }
        assert rows["error"] == [said(one["relative_error"]) for one in columns]
        assert rows["effective rank"] == [said(one["effective_rank"]) for one in columns]
        np.testing.assert_allclose([float(x) for x in rows["nuclear norm"]], [c["nuclear_norm"] for c in columns], 1e-4)
        assert rows["σ₆"] == [said(now["spectrum"][5]), said(now["convex"]["spectrum"][5]), "0"]


@pytest.mark.parametrize("by", ["mouse", "touch"])
def test_a_touched_point_is_picked(mount, figure_1_runs, by):
    shown = mount(interactive.PickAPanel(Figure(), **(figure_1_runs | {"convex": None})), width=1280)
    picture = shown.root.locator("svg.dmfkit-x-pick")
    picture.scroll_into_view_if_needed()
    points = picture.evaluate(
        """svg => [...svg.querySelectorAll("polygon")].map((point) => point.getBoundingClientRect())
            .map((box) => [box.x + box.width / 2, box.y + box.height / 2])"""
    )
    # Depth 2, few entries: 4 scales, 3 methods and 3 seeds, all converged; the last is the flow at the largest c.
    assert len(points) == 36
    for position in (0, 17, -1):
        x, y = points[position]
        (shown.page.mouse.click if by == "mouse" else shown.page.touchscreen.tap)(x, y)
        now = shown.values | {"text": shown.text}
        assert_from_sweep(now, figure_1_runs)
        ring = picture.locator("circle[fill=none]").bounding_box()
        assert abs(ring["x"] + ring["width"] / 2 - x) < 12
        assert abs(ring["y"] + ring["height"] / 2 - y) < 12
    assert (now["init_scale"], now["lr"]) == (1e-2, None)


def test_one_value_is_text_and_no_dead_control(mount, figure_1_runs):
    one = {"n_observed": [2000], "depth": [3], "init_scale": [1e-3], "seed": [1]}
    few = {"descent": figure_1_runs["descent"].sel(one), "flow": figure_1_runs["flow"].sel(one), "convex": None}
    shown = mount(interactive.PickAPanel(Figure(), **(figure_1_runs | few)))
    assert shown.root.locator("input[type=range]").count() == 0
    fixed = shown.root.locator(".dmfkit-x-controls div.dmfkit-x-control").all_text_contents()
    assert fixed == ["Known entries2000", "Depth3", "Seed1", "Initial scale c0.001"]
    shown.choose("Method", "lr 0.001")
    assert_from_sweep(shown.values | {"text": shown.text}, figure_1_runs)
    assert re.search("with c it goes", shown.text) is None
