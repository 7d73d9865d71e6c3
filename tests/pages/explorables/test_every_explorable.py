"""What holds for every explorable of the book, whatever it shows."""

import json
import re

import pytest

from dmfkit.interactive import BUDGET

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


def test_a_chapter_shows_what_it_should_and_leaves_it_alone_until_it_is_touched(chapters, open_explorable):
    # One load serves all that changes nothing.
    found = {}
    for path in chapters:
        page = open_explorable(path.stem, "").page
        found[path.stem] = set(names(page))
        assert still(page), path.stem
        assert follows_the_theme(page, "light"), path.stem
        assert pictures_stand_in_on_paper(page), path.stem
    assert {chapter: found.get(chapter, set()) & expected for chapter, expected in EXPECTED.items()} == EXPECTED


def still(page):
    """Whether nothing moves for a while."""
    every = "[...document.querySelectorAll('[data-explorable]')].map((root) => root.innerHTML)"
    before = page.evaluate(every)
    page.wait_for_timeout(300)
    return page.evaluate(every) == before


def follows_the_theme(page, theme):
    """Whether all have this theme, and the other one after it was changed; the page has its own again afterwards."""
    other = "dark" if theme == "light" else "light"
    found = [set(page.evaluate(DARK))]
    for chosen in (other, theme):
        page.evaluate("theme => (document.documentElement.dataset.theme = theme)", chosen)
        # Their scripts hear of the change before the next picture is drawn.
        page.evaluate("new Promise(requestAnimationFrame)")
        found.append(set(page.evaluate(DARK)))
    return found == [{one == "dark"} for one in (theme, other, theme)]


def pictures_stand_in_on_paper(page):
    """Whether pictures show on paper instead of the explorables, and only there."""
    pictures, explorables = page.locator(PICTURE), page.locator("[data-explorable]")
    assert pictures.count() > 0
    on_screen = any_visible(pictures)
    page.emulate_media(media="print")
    on_paper = all_visible(pictures) and not any_visible(explorables)
    page.emulate_media(media="null")
    return on_paper and not on_screen


def all_visible(locator):
    return all(one.is_visible() for one in locator.all())


def any_visible(locator):
    return any(one.is_visible() for one in locator.all())


def test_they_follow_the_theme_of_a_dark_page_too(chapters, open_explorable):
    for path in chapters:
        assert follows_the_theme(open_explorable(path.stem, "", theme="dark").page, "dark"), path.stem


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
            shown = root.locator(".dmfkit-x-text").text_content()
            # On a busy machine it may rest between the two keys; what is said in the end is where it came to rest.
            spoken.filter(has_text=shown).wait_for(state="attached")
            assert spoken.text_content() == shown


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
        assert page.locator(PICTURE).count() > 0, path.stem
        assert all_visible(page.locator(PICTURE)), path.stem
    context.close()
