"""The glossary: first uses are links, and their definitions show by mouse, keyboard and touch."""

import json
import re

import pytest
from bs4 import BeautifulSoup

pytestmark = pytest.mark.book

CHAPTER = "notebooks/10_compressed_completion.html"
TERMS = 'a[href*="glossary.html#term-"]'
TIP = ".dmfkit-tip"
NARROW = 320
COLOURS = "tip => [getComputedStyle(tip).color, getComputedStyle(tip).backgroundColor]"


@pytest.fixture(scope="module")
def glossary(layout):
    """Anchor of each term -> the first paragraph of its definition."""
    page = BeautifulSoup((layout.html / "book" / "glossary.html").read_text(encoding="utf-8"), "html.parser")
    terms = page.select("dl.glossary dt")
    return {term["id"]: " ".join(term.find_next("dd").find("p").get_text().split()) for term in terms}


@pytest.fixture(scope="module")
def chapters(layout):
    files = sorted((layout.html / "notebooks").glob("*.html"))
    return {path.stem: BeautifulSoup(path.read_text(encoding="utf-8"), "html.parser") for path in files}


def test_definitions_are_plain_sentences(glossary):
    assert len(glossary) > 30
    # A formula would show as its source.
    assert [text for text in glossary.values() if re.search(r"[\\$]|\\\(", text) or not text.endswith(".")] == []


def test_every_chapter_links_the_first_use_of_its_terms_and_carries_their_definitions(chapters, glossary):
    used = set()
    for name, page in chapters.items():
        anchors = [link["href"].partition("#")[2] for link in page.select(f"article {TERMS}")]
        assert len(anchors) >= 4, name
        assert len(set(anchors)) == len(anchors), name
        data = json.loads(page.find(id="dmfkit-glossary").string)
        assert {anchor: text for anchor, (_, text) in data.items()} == {anchor: glossary[anchor] for anchor in anchors}
        used |= set(anchors)
    # Words that no chapter uses do not belong on the page; these two belong to the field.
    assert set(glossary) - used <= {"term-implicit-regularization", "term-observed-fraction"}


@pytest.fixture
def page(browser, address):
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    page.goto(address + CHAPTER, wait_until="load")
    yield page
    page.close()


def test_by_keyboard_and_for_screen_readers(page, glossary):
    link = page.locator(TERMS).first
    expected = glossary[link.get_attribute("href").partition("#")[2]]
    link.focus()
    assert expected in page.locator(TIP).text_content()
    assert page.locator(TIP).is_visible()
    described = link.get_attribute("aria-describedby")
    assert page.locator(f"[id='{described}']").text_content() == expected
    page.keyboard.press("Escape")
    assert not page.locator(TIP).is_visible()
    link.evaluate("link => link.blur()")
    link.focus()
    page.keyboard.press("Tab")
    assert not page.locator(TIP).is_visible() or expected not in page.locator(TIP).text_content()


def test_by_mouse_it_stays_while_one_points_at_it(page):
    page.locator(TERMS).first.hover()
    page.wait_for_selector(TIP, state="visible")
    page.locator(TIP).hover()
    # Longer than the delay after which it would hide.
    page.wait_for_timeout(400)
    assert page.locator(TIP).is_visible()
    page.mouse.move(0, 0)
    page.wait_for_selector(TIP, state="hidden")


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_by_touch_on_a_narrow_phone(browser, address, theme):
    viewport = {"width": NARROW, "height": 640}
    context = browser.new_context(viewport=viewport, has_touch=True, is_mobile=True, color_scheme=theme)
    page = context.new_page()
    page.goto(address + CHAPTER, wait_until="load")
    page.evaluate("window.MathJax?.startup?.promise")
    for number in range(page.locator(TERMS).count()):
        page.locator(TERMS).nth(number).tap()
        box = page.locator(TIP).bounding_box()
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= NARROW
        assert page.evaluate("document.documentElement.scrollWidth") <= NARROW
        colours = page.locator(TIP).evaluate(COLOURS)
        page.locator(TIP).tap()
        assert not page.locator(TIP).is_visible()
    assert page.url.endswith(CHAPTER)
    dark_text, dark_ground = (sum(map(int, re.findall(r"\d+", colour)[:3])) < 3 * 128 for colour in colours)
    assert (dark_text, dark_ground) == (theme == "light", theme == "dark")
    page.locator(TERMS).first.tap()
    page.locator(TERMS).first.tap()
    page.wait_for_url("**/glossary.html#term-*")
    context.close()


def test_without_scripts_terms_are_plain_links(browser, address):
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(address + CHAPTER)
    page.locator(TERMS).first.click()
    assert "glossary.html#term-" in page.url
    context.close()
