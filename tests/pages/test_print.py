"""The pages on paper: the article alone, black on white, with everything open and nothing cut."""

import pytest

pytestmark = pytest.mark.book

# The text's width on A4, in CSS pixels.
PAPER = 672
AROUND = ".bd-sidebar-primary, .bd-sidebar-secondary, .bd-header-article, .prev-next-footer, .headerlink, .copybtn"
# What reaches over the right edge.
CUT = """width => [...document.querySelectorAll(".bd-article :is(mjx-container, mjx-math, table, pre, img)")]
  .filter((element) => element.getBoundingClientRect().right > width + 1)
  .map((element) => element.tagName + " " + element.textContent.slice(0, 60))"""
BOXES = "body, .bd-main, .bd-article, .highlight, .highlight pre, .admonition, .dmfkit-verdict"
GROUNDS = """boxes => [...document.querySelectorAll(boxes)]
  .map((element) => getComputedStyle(element).backgroundColor)
  .filter((colour) => !["rgb(255, 255, 255)", "rgba(0, 0, 0, 0)"].includes(colour))"""
CODE = """() => [...document.querySelectorAll(".highlight span")].map((element) => getComputedStyle(element).color)
  .filter((colour) => colour !== "rgb(0, 0, 0)")"""
CLASSES = "all => all.map((element) => element.getAttribute('class'))"


@pytest.fixture(scope="module")
def context(browser):
    context = browser.new_context(viewport={"width": PAPER, "height": 900}, color_scheme="dark")
    yield context
    context.close()


def on_paper(context, address, name):
    page = context.new_page()
    page.goto(address + name, wait_until="load")
    page.evaluate("window.MathJax?.startup?.promise")
    put_on_paper(page)
    return page


def put_on_paper(page):
    page.set_viewport_size({"width": PAPER, "height": 900})
    page.emulate_media(media="print", color_scheme="dark")
    # Printing says so to the page; emulation does not.
    page.evaluate("window.dispatchEvent(new Event('beforeprint'))")


def wrong_on_paper(page):
    """What is cut, stands around the article or costs ink. Every page is asked for this where it has been loaded."""
    problems = [("cut", text) for text in page.evaluate(CUT, PAPER)]
    problems += [("shown", name) for name in page.locator(AROUND).filter(visible=True).evaluate_all(CLASSES)]
    problems += [("ground", colour) for colour in set(page.evaluate(GROUNDS, BOXES))]
    problems += [("code", colour) for colour in set(page.evaluate(CODE))]
    problems += [] if page.locator("article h1").first.is_visible() else [("no title",)]
    return problems


def test_solutions_and_what_is_folded_are_open_and_folded_again_afterwards(context, address):
    page = on_paper(context, address, "notebooks/09_compression.html")
    solutions, details = page.locator("div.solution .cell_output"), page.locator("details:not(.hide)")
    assert solutions.count() >= 3
    assert details.count() > 3
    assert all(one.is_visible() for one in solutions.all())
    assert all(one.get_attribute("open") is not None for one in details.all())
    # Folded code stays folded and says so.
    assert not page.locator("details.hide .highlight").first.is_visible()
    page.emulate_media(media="screen")
    page.evaluate("window.dispatchEvent(new Event('afterprint'))")
    assert not solutions.first.is_visible()
    assert details.first.get_attribute("open") is None
    page.close()


def test_a_solution_is_printed_even_where_the_page_is_not_told(context, address):
    page = context.new_page()
    page.goto(address + "notebooks/09_compression.html", wait_until="load")
    page.emulate_media(media="print")
    assert page.locator("div.solution .cell_output").first.is_visible()
    page.close()


def test_a_figure_is_never_split(context, address):
    page = on_paper(context, address, "notebooks/09_compression.html")
    rules = page.locator("figure img").evaluate_all(
        "images => images.map((image) => getComputedStyle(image).breakInside)"
    )
    assert rules
    assert set(rules) == {"avoid"}
    # 257 mm minus room for a caption.
    heights = page.locator("figure").evaluate_all("figures => figures.map((figure) => figure.offsetHeight)")
    assert max(heights) < 257 / 25.4 * 96
    page.close()
