"""The race of depths, driven as a reader drives it, gives the numbers of dmfkit's own gradient descent."""

import math

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from torch.autograd.functional import hessian

import dmfkit as dm
from dmfkit.interactive import DepthRace
from dmfkit.interactive.explorable import script

pytestmark = pytest.mark.book
CHAPTER = "05_dynamics_in_experiments"
WAYS = ("keyboard", "mouse", "touch")
TASK = {"d": 20, "rank": 3}


@pytest.fixture
def race(open_explorable):
    return open_explorable(CHAPTER, "depth-race")


def set_to(race, label, value, name, by="keyboard"):
    """Move the slider until the values say that `name` is `value`."""
    last = int(race.slider(label).get_attribute("max"))
    for index in range(last + 1):
        race.slide(label, index, by=by)
        if math.isclose(race.values[name], value):
            return
    raise AssertionError(f"{label} has no {value}")


def run_to(race, n_steps):
    choices = (500, 1000, 2000, 5000, 10_000, 20_000)
    race.slide("run to step", choices.index(n_steps))
    race.press("Run", by="mouse")
    race.page.wait_for_function("document.querySelector('[data-explorable]').values.ended", timeout=120_000)
    return race.values


def descend(values, depth, n_steps, stop=0.0):
    """Run the same by dmfkit; returns the problem and the result."""
    task = dm.CompletionTask(**TASK, n_observed=values["n_observed"], data_seed=values["data_seed"])
    widths = dm.full_widths(task.shape, depth)
    start = dm.initialise("gaussian", widths, [values["init_scale"]], [values["seed"]])
    settings = dm.Descent(lr=values["lr"], stop=stop, max_steps=n_steps)
    return task.problem(), dm.gradient_descent(task.problem(), start, settings)


def assert_agreement(race, n_steps):
    for number, depth in enumerate((1, 2, 3, 4)):
        race.choose("depth", str(depth))
        now = race.values
        run = now["runs"][number]
        assert (now["step"], now["depth"], run["depth"]) == (n_steps, depth, depth)
        problem, result = descend(now, depth, n_steps)
        product = result.factorization.end_to_end()
        size = float(product.abs().max())
        np.testing.assert_allclose(now["product"], product.flatten(), atol=1e-6 * size)
        values = dm.singular_values(product)[0]
        np.testing.assert_allclose(run["singular_values"], values, atol=1e-6 * float(values[0]))
        np.testing.assert_allclose(run["mean_square"], float(problem.loss(product, "mean")), rtol=1e-6, atol=1e-12)
        unseen = 1 - problem.mask
        held_out = float(dm.relative_error(product * unseen, problem.ground_truth * unseen))
        np.testing.assert_allclose(run["held_out"], held_out, rtol=1e-6, atol=1e-12)
        np.testing.assert_allclose(run["effective_rank"], float(dm.effective_rank(values)), rtol=1e-6)
        threshold = float(dm.singular_values(problem.ground_truth)[TASK["rank"] - 1]) / 10
        assert run["grown"] == int((values >= threshold).sum())
        _, stopped = descend(now, depth, n_steps, stop=1e-6)
        fitted = stopped.status[0] == dm.Status.CONVERGED
        np.testing.assert_equal(run["fitted"], float(stopped.n_steps[0]) if fitted else math.nan)


def test_it_agrees_with_dmfkit_at_every_depth(race):
    race.press("+100 steps", by="mouse")
    race.press("+100 steps", by="mouse")
    assert_agreement(race, 200)
    run_to(race, 2000)
    assert_agreement(race, 2000)


def test_it_agrees_with_dmfkit_after_every_setting_was_changed(race):
    set_to(race, "observed entries", 240, "n_observed")
    set_to(race, "initial scale", 0.03, "init_scale")
    set_to(race, "learning rate", 3e-3, "lr")
    race.choose("matrix", "2")
    race.choose("random start", "3")
    assert (race.values["data_seed"], race.values["seed"]) == (1, 2)
    race.press("+1 step", by="mouse")
    assert_agreement(race, 1)
    run_to(race, 2000)
    assert_agreement(race, 2000)


def largest_curvature(problem, state, widths):
    def loss(state):
        product = dm.Factorization(state.view(1, -1), widths).end_to_end()
        return 0.5 * ((product - problem.values) * problem.mask).square().sum()

    return float(torch.linalg.eigvalsh(hessian(loss, state))[-1])


def balanced(matrix, depth):
    """Balanced factors of a matrix, as one vector."""
    left, values, right = torch.linalg.svd(matrix)
    root = torch.diag(torch.where(values > 1e-9 * values[0], values, 0) ** (1 / depth))
    middle = [root] * (depth - 2)
    factors = [root @ right, *middle, left @ root] if depth > 1 else [matrix]
    return torch.cat([factor.flatten() for factor in factors])


def test_the_stable_rate_is_two_over_the_largest_curvature_at_the_target(race):
    now = run_to(race, 5000)
    for run in now["runs"]:
        problem, result = descend(now, run["depth"], 5000)
        widths = result.factorization.widths
        there = largest_curvature(problem, balanced(problem.ground_truth, run["depth"]), widths)
        np.testing.assert_allclose(run["stable_lr"], 2 / there, rtol=1e-3)
        # Where depth finds the target, descent has in fact come there.
        if run["held_out"] < 1e-3:
            here = largest_curvature(problem, result.factorization.state[0], widths)
            np.testing.assert_allclose(run["stable_lr"], 2 / here, rtol=1e-2)


def test_singular_values_are_those_of_numpy(browser):
    page = browser.new_page()
    random = np.random.default_rng(0)
    d = 20
    graded = np.linalg.qr(random.standard_normal((d, d)))[0] * 10.0 ** -np.arange(d)
    matrices = {
        "random": random.standard_normal((d, d)),
        "of rank three": random.standard_normal((d, 3)) @ random.standard_normal((3, d)),
        "graded": graded @ np.linalg.qr(random.standard_normal((d, d)))[0],
        "tiny": 1e-150 * random.standard_normal((d, d)),
        "identity": np.eye(d),
        "zero": np.zeros((d, d)),
    }
    code = script(("matrix.js",)).replace("export default { render };", "")
    work = "([code, m, d]) => new Function('m', 'd', code + `; const v = new Float64Array(d);"
    work += " singularValues(v, Float64Array.from(m), new Float64Array(d * d), d); return [...v];`)(m, d)"
    for name, matrix in matrices.items():
        expected = np.linalg.svd(matrix, compute_uv=False)
        found = page.evaluate(work, [code, matrix.flatten().tolist(), d])
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-9 * expected[0], err_msg=name)
    page.close()


@pytest.mark.parametrize("by", WAYS)
def test_every_control_changes_text_and_values(race, by):
    race.press("+100 steps", by=by)
    for label, index, name in (
        ("observed entries", 2, "n_observed"),
        ("initial scale", -1, "init_scale"),
        ("learning rate", 1, "lr"),
    ):
        race.press("+1 step", by=by)
        before = race.values, race.text
        race.slide(label, index, by=by)
        assert race.values[name] != before[0][name]
        assert race.values["step"] == 0
        assert race.text != before[1]
    for group, option, name in (("matrix", "3", "data_seed"), ("random start", "2", "seed")):
        race.press("+1 step", by=by)
        before = race.values, race.text
        race.choose(group, option, by=by)
        assert race.values[name] != before[0][name]
        assert race.values["runs"] != before[0]["runs"]
        assert race.text != before[1]
    race.press("+1 step", by=by)
    before = race.text
    race.choose("depth", "4", by=by)
    assert race.values["depth"] == 4
    assert race.text != before


def test_choices_of_pictures_change_the_pictures(race):
    race.press("+100 steps", by="mouse")
    small = race.root.locator(".dmfkit-x-multiples svg").first
    curves = race.root.locator(".dmfkit-x-pictures > .dmfkit-x-place > svg")
    before = small.inner_html()
    race.choose("singular values", "log")
    assert small.inner_html() != before
    shown = {curves.inner_html()}
    for quantity in ("training loss", "effective rank"):
        race.choose("curves", quantity)
        assert quantity in curves.text_content()
        shown.add(curves.inner_html())
    assert len(shown) == 3


def frames(race, count):
    race.page.evaluate(
        """count => new Promise(done => {
            const next = () => (count-- > 0 ? requestAnimationFrame(next) : done());
            next();
        })""",
        count,
    )


def test_nothing_moves_before_run_or_after_pause(race):
    frames(race, 10)
    assert race.values["step"] == 0
    race.press("Run", by="mouse")
    race.page.wait_for_function("document.querySelector('[data-explorable=depth-race]').values.step > 50")
    assert race.values["running"]
    race.press("Pause", by="mouse")
    stopped = race.values
    assert not stopped["running"]
    assert not stopped["ended"]
    frames(race, 10)
    assert race.values == stopped
    assert_agreement(race, stopped["step"])


def test_reset_returns_exactly_to_the_start(race):
    state = "root => JSON.stringify(root.values)"
    begin = race.root.evaluate(state), race.text
    run_to(race, 1000)
    assert race.root.evaluate(state) != begin[0]
    race.slide("run to step", 3)
    race.press("Reset", by="mouse")
    assert (race.root.evaluate(state), race.text) == begin
    # What was run is not lost: it is listed, and a second run gives the same.
    first = race.root.locator(".dmfkit-x-earlier li").first.text_content()
    assert "1000 steps" in first
    run_to(race, 1000)
    race.press("Reset", by="mouse")
    assert race.root.locator(".dmfkit-x-earlier li").first.text_content() == first


def test_divergence_is_said_and_ends_the_run_of_that_depth_as_in_dmfkit(race):
    set_to(race, "learning rate", 24e-3, "lr")
    # Just above its limit a run is chaotic and rounding decides when it diverges; far above it diverges at once.
    now = run_to(race, 2000)
    lost = [run["depth"] for run in now["runs"] if run["diverged"]]
    assert lost == [4]
    for run in now["runs"]:
        _, result = descend(now, run["depth"], 2000)
        assert (result.status[0] == dm.Status.DIVERGED) == run["diverged"]
        assert int(result.n_steps[0]) == run["n_steps"]
    assert "too large for depth 3 and 4 to settle" in race.text
    assert f"Depth 4 diverged at step {now['runs'][3]['n_steps']}" in race.text
    assert "take a smaller one" in race.text
    assert now["runs"][3]["stable_lr"] < now["lr"]


def small_race(depths, settings=(), **changes):
    """Make a race of small matrices, with some of the settings that the script sees replaced."""
    task = dm.CompletionTask(d=7, rank=2, n_observed=30)
    options = {"init_scale": 0.1, "lr": 1e-3, "n_steps": 500, "seeds": [0], **changes}
    made = DepthRace(plt.figure(), tasks=[task], depths=depths, **options)
    made.content = made.content | {"settings": made.content["settings"] | dict(settings)}
    return made


def assert_over(race):
    for name in ("Run", "+1 step", "+100 steps"):
        assert race.root.get_by_role("button", name=name, exact=True).is_disabled()
    assert "The race is over" in race.text
    race.press("Reset", by="mouse")
    assert race.values["step"] == 0
    assert race.root.get_by_role("button", name="Run").is_enabled()


def test_the_last_step_ends_the_race(mount):
    race = mount(small_race((1, 2), {"n_steps_choices": [130]}))
    race.press("+100 steps", by="mouse")
    race.press("+100 steps", by="mouse")
    assert race.values["step"] == 130
    assert_over(race)


def test_a_race_that_all_have_left_is_over(mount):
    race = mount(small_race((2, 3), lr=10.0))
    race.press("Run", by="mouse")
    race.page.wait_for_function("document.querySelector('[data-explorable]').values.ended")
    assert all(run["diverged"] for run in race.values["runs"])
    assert race.values["step"] < 500
    assert_over(race)


def test_what_the_chapter_promises_happens(race):
    now = run_to(race, 5000)
    arrivals = [[step for step in run["arrivals"] if not math.isnan(step)] for run in now["runs"]]
    assert arrivals[1][0] < arrivals[2][0] < arrivals[3][0]
    assert len(arrivals[2]) == len(arrivals[3]) == 3
    errors = [run["held_out"] for run in now["runs"]]
    assert errors[2] < errors[1] / 10
    assert f"10 times below at step {now['tenfold_at']}" in race.text
    set_to(race, "observed entries", 160, "n_observed")
    errors = [run["held_out"] for run in run_to(race, 5000)["runs"]]
    assert errors[2] > errors[1]
    assert "times above that of depth 2" in race.text


def test_it_is_drawn_anew_for_another_theme(race):
    race.press("+100 steps", by="mouse")
    look = """root => [root.querySelector('.dmfkit-x-multiples path').getAttribute('stroke'),
        ...root.querySelectorAll('canvas')[3].getContext('2d').getImageData(0, 0, 20, 20).data].join()"""
    drawn = {}
    for theme in ("light", "dark", "light"):
        race.page.evaluate("theme => (document.documentElement.dataset.theme = theme)", theme)
        frames(race, 2)
        drawn.setdefault(theme, race.root.evaluate(look))
        assert drawn[theme] == race.root.evaluate(look)
    assert drawn["light"] != drawn["dark"]


@pytest.mark.parametrize("width", [320, 390, 1280])
def test_it_fits_its_page(open_explorable, width):
    race = open_explorable(CHAPTER, "depth-race", width=width)
    assert race.root.bounding_box()["width"] <= width
    # Whatever is inside ends before the frame's padding does, and text in a drawing before the drawing does.
    outside = """root => {
        const end = root.querySelector('.dmfkit-x-help').getBoundingClientRect();
        const box = (e) => e.getBoundingClientRect();
        const all = [...root.querySelectorAll('.dmfkit-x > *, .dmfkit-x div *:not(svg *)')];
        const parts = all.filter((e) => box(e).width).map((e) => [e, end]);
        const texts = [...root.querySelectorAll('svg text')].map((e) => [e, box(e.closest('svg'))]);
        const leaves = ([e, frame]) => box(e).right > frame.right + 1 || box(e).left < frame.left - 1;
        return [...parts, ...texts].filter(leaves).map(([e]) => e.outerHTML.slice(0, 120));
    }"""
    assert race.root.evaluate(outside) == []
    race.slide("learning rate", -1)
    race.press("+100 steps", by="mouse")
    assert race.values["runs"][2]["diverged"]
    # The list of earlier runs shows after this; titles say what diverged, and rules have labels.
    assert race.root.evaluate(outside) == []
    race.slide("learning rate", 3)
    assert race.root.locator(".dmfkit-x-earlier li").count() == 1
    assert race.root.evaluate(outside) == []
