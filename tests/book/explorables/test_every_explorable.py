"""What holds for every explorable of the book, whatever it shows."""

import json
import re

import pytest

from dmfkit.explorables import BUDGET

pytestmark = pytest.mark.book

EXPECTED = {
    "01_matrix_completion": {"pick-a-panel"},
    "02_norms_in_theory": {"schatten-corner"},
    "03_norms_in_experiments": {"pick-a-panel"},
    "05_dynamics_in_experiments": {"depth-race"},
    "06_one_measurement": {"depth-gap"},
    "08_invariant_subspaces": {"inside-weights"},
    "10_compressed_completion": {"compress-it"},
}
NARROW, SMALLEST_TARGET = 320, 44
STATE = re.compile(r'<script type="application/vnd.jupyter.widget-state\+json">(.*?)</script>', re.DOTALL)

# Text or class of each element that is not within its explorable, drawings' inner parts aside.
REACHES_OUT = """root => [...root.querySelectorAll("*:not(svg *)")]
  .filter((element) => element.getBoundingClientRect().right > root.getBoundingClientRect().right + 1)
  .map((element) => element.className || element.textContent)"""
# The text beside a radio button or a check box belongs to what can be touched.
TARGET_HEIGHT = """control =>
  (["radio", "checkbox"].includes(control.type) ? control.closest("label") : control).getBoundingClientRect().height"""
PICTURE = ".tag_explorable figure img"
DARK = """[...document.querySelectorAll("[data-explorable]")]
  .map((root) => root.classList.contains("dmfkit-x-dark"))"""


@pytest.fixture(scope="module")
def chapters(layout):
    """The pages with explorables."""
    return sorted(path for path in (layout.html / "notebooks").glob("*.html") if "tag_explorable-view" in read(path))


def read(path):
    return path.read_text(encoding="utf-8")


def names(page):
    return page.locator("[data-explorable]").evaluate_all("roots => roots.map((root) => root.dataset.explorable)")


def test_each_is_where_it_should_be(chapters, open_explorable):
    found = {path.stem: set(names(open_explorable(path.stem, "").page)) for path in chapters}
    assert {chapter: found.get(chapter, set()) & expected for chapter, expected in EXPECTED.items()} == EXPECTED


@pytest.mark.parametrize("by", ["keyboard", "mouse", "touch"])
def test_every_control_changes_what_is_said(chapters, open_explorable, by):
    dead, moved = [], 0
    for path in chapters:
        opened = open_explorable(path.stem, "")
        for name in names(opened.page):
            shown = opened.beside(name)
            for number in range(shown.root.locator("input").count()):
                # What has no effect now is disabled, and stays so until another control is moved.
                if shown.root.locator("input").nth(number).is_disabled():
                    continue
                moved += 1
                if not answers(shown, shown.root.locator("input").nth(number), by):
                    label = shown.root.locator("input").nth(number).evaluate("input => input.labels[0]?.textContent")
                    dead.append((path.stem, name, label))
    assert dead == []
    assert moved >= 2 * len(chapters)


def answers(shown, control, by):
    """Whether moving this control changes the text or the numbers; a chosen radio button has nothing to change."""
    before = shown.text, json.dumps(shown.values, default=str)
    if control.get_attribute("type") == "range":
        last, now = int(control.get_attribute("max")), int(control.input_value())
        label = control.evaluate("input => input.labels[0].textContent")
        target = 0 if now > last / 2 else last
        assert last > 0, f"the slider {label!r} has one value only"
        shown.slide(label, target, by=by)
        assert int(control.input_value()) == target
    elif control.is_checked() and control.get_attribute("type") == "radio":
        return True
    elif by == "keyboard":
        control.focus()
        control.press("Space")
    elif by == "touch":
        control.tap()
    else:
        control.click()
    return (shown.text, json.dumps(shown.values, default=str)) != before


def test_they_are_narrow_labelled_and_large_enough_to_touch(chapters, open_explorable):
    problems = []
    for path in chapters:
        page = open_explorable(path.stem, "", width=NARROW).page
        for name in names(page):
            root = page.locator(f"[data-explorable={name}]")
            over = root.evaluate(REACHES_OUT)
            problems += [(path.stem, name, over, "reaches out")] if over else []
            for control in root.locator("input, button").all():
                label = control.evaluate("c => c.labels?.[0]?.textContent ?? c.textContent")
                target = control.evaluate(TARGET_HEIGHT)
                problems += [] if label else [(path.stem, name, "a control without label")]
                problems += [] if target >= SMALLEST_TARGET else [(path.stem, name, label, f"{target} px high")]
            assert root.get_attribute("role") == "group"
            title = root.get_attribute("aria-labelledby")
            assert page.locator(f"#{title}").text_content()
            for picture in root.locator("[role=img]").all():
                assert picture.get_attribute("aria-label")
    assert problems == []


def test_a_change_is_announced_once_it_rests(chapters, open_explorable):
    for path in chapters:
        page = open_explorable(path.stem, "").page
        for name in names(page):
            root = page.locator(f"[data-explorable={name}]")
            spoken = root.locator("[role=status]")
            assert spoken.text_content() == ""
            slider = root.locator("input[type=range]").first
            slider.focus()
            slider.press("Home")
            slider.press("End")
            spoken.filter(has_text=re.compile(".")).wait_for(state="attached")
            assert spoken.text_content() == root.locator(".dmfkit-x-text").text_content()


def test_nothing_moves_before_it_is_touched(chapters, open_explorable):
    for path in chapters:
        page = open_explorable(path.stem, "").page
        every = "[...document.querySelectorAll('[data-explorable]')].map((root) => root.innerHTML)"
        before = page.evaluate(every)
        page.wait_for_timeout(300)
        assert page.evaluate(every) == before


def test_each_keeps_to_its_budget(chapters):
    for path in chapters:
        (state,) = STATE.findall(read(path))
        state = state.replace("<\\/", "</")
        for model in json.loads(state)["state"].values():
            assert len(json.dumps(model)) <= BUDGET, path.stem


def test_a_picture_stands_in_where_no_script_runs(chapters, browser):
    context = browser.new_context(java_script_enabled=False, offline=True)
    page = context.new_page()
    for path in chapters:
        page.goto(path.as_uri())
        pictures = page.locator(PICTURE).all()
        assert pictures, path.stem
        assert all(image.is_visible() for image in pictures), path.stem
    context.close()


def test_a_picture_stands_in_in_print(chapters, open_explorable):
    for path in chapters:
        page = open_explorable(path.stem, "").page
        assert not any(image.is_visible() for image in page.locator(PICTURE).all()), path.stem
        page.emulate_media(media="print")
        assert all(image.is_visible() for image in page.locator(PICTURE).all()), path.stem
        assert not any(root.is_visible() for root in page.locator("[data-explorable]").all()), path.stem
        page.emulate_media(media="null")


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_they_follow_the_theme(chapters, open_explorable, theme):
    for path in chapters:
        page = open_explorable(path.stem, "", theme=theme).page
        assert set(page.evaluate(DARK)) == {theme == "dark"}, path.stem
        page.evaluate(
            "theme => (document.documentElement.dataset.theme = theme)", "dark" if theme == "light" else "light"
        )
        # The script hears of the change before the next picture is drawn.
        page.evaluate("new Promise(requestAnimationFrame)")
        assert set(page.evaluate(DARK)) == {theme != "dark"}, path.stem
