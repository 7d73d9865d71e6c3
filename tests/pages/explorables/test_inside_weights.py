"""The layers that a page trains are those of the package, in both bases, and break where the theorem does."""

import numpy as np
import pytest
import torch
import yaml

import dmfkit as dm
from dmfkit import theory
from dmfkit.chapters.settings import paper_settings

pytestmark = pytest.mark.book
CHAPTER, NAME = "08_invariant_subspaces", "inside-weights"
WAYS = ("keyboard", "mouse", "touch")


@pytest.fixture(scope="module")
def chapter(layout):
    """The parameters of the built chapter."""
    quick = yaml.safe_load((layout.notebooks / "presets" / "quick.yml").read_text(encoding="utf-8"))
    return paper_settings(CHAPTER) | quick[CHAPTER]


@pytest.fixture
def inside(open_explorable):
    return open_explorable(CHAPTER, NAME)


def settle(shown):
    """Wait until the moment that was asked for is there."""
    shown.page.wait_for_function(
        "root => root.values.step === root.values.wanted || root.values.complete",
        arg=shown.root.element_handle(),
    )
    return shown.values


def trained(chapter, now):
    """What the package has to say about the page's run: weights, their blocks, the numbers of Equation 4."""
    d, rank, seed = chapter["d"], chapter["rank"], chapter["data_seed"]
    task = dm.FullObservationTask(d=d, rank=rank, data_seed=seed, target="truncated")
    known = task.problem()
    problem = known
    if now["masked"]:
        n = round(chapter["observed_share"] * d * d)
        problem = dm.CompletionTask(d=d, rank=rank, n_observed=n, data_seed=seed, target="truncated").problem()
    start = dm.OrthogonalStart(now["depth"], tuple(now["scales"]), chapter["seeds"][0]).full(known)
    method = dm.Descent(lr=now["lr"], stop=0.0, max_steps=now["step"], weight_decay=now["decay"])
    weights = torch.cat(dm.gradient_descent(problem, start, method).factorization.factors)
    # Bases within the learned and the inert space are arbitrary: the chapter takes those of a start of scale 1.
    units = dm.OrthogonalStart(now["depth"], 1.0, chapter["seeds"][0]).full(known)
    initial = [factor[0] for factor in units.factors]
    frames = theory.carried_frames(initial, theory.inert_space(initial, known.values))
    structure = theory.block_structure(weights[None], frames, 2 * rank)
    rho = theory.middle_scales(now["scales"], now["lr"], now["step"], now["decay"])[-1]
    return weights, structure, rho


def compare(chapter, now):
    weights, structure, rho = trained(chapter, now)
    layer = now["layer"] - 1
    expected = structure.blocks[0, layer] if now["in_frames"] else weights[layer]
    np.testing.assert_allclose(np.reshape(now["matrix"], expected.shape), expected, atol=1e-9)
    np.testing.assert_allclose(now["singular_values"], torch.linalg.svdvals(weights[layer]), rtol=1e-6)
    np.testing.assert_allclose(now["rho_predicted"], float(rho[layer]), rtol=1e-6)
    np.testing.assert_allclose(now["off_in_frames"], float(structure.off[0, layer]), rtol=1e-6, atol=1e-12)
    size = structure.size
    diagonal = structure.blocks[0, layer].diagonal()[size:]
    np.testing.assert_allclose(now["rho_measured"], float(diagonal.mean()), rtol=1e-6)
    if not now["masked"]:
        assert now["off_in_frames"] < 1e-12
        assert now["rest"] < 1e-12


@pytest.mark.parametrize("by", WAYS)
def test_every_moment_and_layer_is_the_packages_in_both_bases(inside, chapter, by):
    before = inside.text
    for step, decay, layer, basis in (
        (12, 0, "2", "invariant frames"),
        (-1, -1, "3", "standard basis"),
        (-6, 1, "1", "invariant frames"),
    ):
        inside.slide("weight decay", decay, by=by)
        inside.slide("step t", step, by=by)
        inside.choose("layer", layer, by=by)
        inside.choose("look at it in the", basis, by=by)
        now = settle(inside)
        assert (now["layer"], now["in_frames"]) == (int(layer), basis == "invariant frames")
        compare(chapter, now)
        assert inside.text != before
        before = inside.text


@pytest.mark.parametrize("start", ["a tenth", "unequal"])
def test_other_depths_starts_and_steps_are_the_packages(inside, chapter, start):
    inside.choose("look at it in the", "invariant frames", by="mouse")
    inside.choose("scales of the start", start)
    inside.slide("step t", -4)
    for depth, rate in ((0, 0), (1, 1), (-1, 2)):
        inside.slide("depth", depth)
        inside.slide("step size", rate)
        compare(chapter, settle(inside))


def test_the_switch_shows_what_is_not_to_be_seen_otherwise(inside):
    raw = inside.values
    assert raw["share_moved"] == 1
    assert "no structure to be seen" in inside.text
    inside.choose("look at it in the", "invariant frames", by="touch")
    framed = inside.values
    assert framed["off_in_standard_basis"] == raw["off_in_standard_basis"] > 0.1
    assert framed["off_in_frames"] < 1e-13
    assert "Off the blocks no entry is larger than" in inside.text
    assert inside.text.endswith("2 singular values are above it and 2 below.")


def test_too_large_a_step_blows_up_and_leaves_only_rounding_off_the_blocks(inside):
    inside.choose("look at it in the", "invariant frames", by="mouse")
    inside.slide("step size", -1)
    inside.slide("step t", -1)
    now = settle(inside)
    assert now["lost"]
    assert "blows up" in inside.text
    most = np.abs(now["matrix"]).max()
    assert most > 10
    assert now["off_in_frames"] < 1e-12 * most


def test_a_share_of_the_entries_fills_the_zeros_at_the_first_step(inside, chapter):
    inside.choose("look at it in the", "invariant frames", by="mouse")
    d = chapter["d"]
    inside.choose("entries seen", f"{100 * round(chapter['observed_share'] * d * d) / d**2:.3g} %")
    inside.slide("step t", 1)
    now = settle(inside)
    assert now["step"] == 1
    assert now["off_in_frames"] > 1e-6
    assert "the theorem says nothing" in inside.text
    compare(chapter, now)


def test_nothing_is_trained_or_played_before_it_is_asked_for(inside, chapter):
    assert inside.values["trained"] == chapter["n_steps"]
    inside.page.wait_for_timeout(300)
    assert inside.values["trained"] == chapter["n_steps"]
    assert not inside.values["playing"]


def test_play_goes_through_the_moments_and_pauses(inside, chapter):
    button = inside.root.get_by_role("button")
    inside.slide("step t", 0)
    button.press("Enter")
    inside.page.wait_for_function("root => root.values.step > 3", arg=inside.root.element_handle())
    assert button.text_content() == "Pause"
    button.tap()
    assert button.text_content() == "Play"
    stopped = inside.values["step"]
    inside.page.wait_for_timeout(500)
    assert inside.values["step"] == stopped
    assert stopped < chapter["long_n_steps"]
    inside.slide("step t", -3)
    settle(inside)
    button.click()
    inside.page.wait_for_function("root => !root.values.playing", arg=inside.root.element_handle())
    assert inside.values["step"] == chapter["long_n_steps"]
    assert button.text_content() == "Play"


def test_a_layer_that_is_not_there_cannot_be_chosen(inside):
    inside.choose("layer", "3")
    inside.slide("depth", 0)
    assert inside.values["depth"] == 1
    assert inside.values["layer"] == 1
    assert inside.root.get_by_label("3", exact=True).is_disabled()
    inside.slide("depth", -1)
    assert inside.root.get_by_label("3", exact=True).is_enabled()
