"""The built pages in a browser: no other host, no error, no sideways scrolling, accessible."""

import json
from dataclasses import dataclass

import pytest

from dmfkit.chapters.claims import ledger

from .conftest import serve
from .test_print import put_on_paper, wrong_on_paper

pytestmark = pytest.mark.book


@dataclass(frozen=True)
class Visit:
    """How pages are opened and what is then done with each."""

    opened: str
    width: int
    themes: tuple[str, ...]
    by_axe: bool = False
    printed: bool = False

    def __str__(self):
        return f"{self.opened}, {self.width}, {self.themes[0]}"


# How the book is opened, at which width and in which themes it is looked at: 320 pixels are the narrowest phone, and a
# page that is 1280 pixels wide shows as that when magnified to 400 %. A long chapter takes seconds to load, so axe,
# another theme and paper find it loaded. Axe has every width and every theme once, because its rules look at one or at
# the other.
VISITS = (
    Visit("site", 390, ("dark", "light"), by_axe=True),
    Visit("site", 1280, ("light", "dark"), by_axe=True),
    Visit("disk", 320, ("light",)),
    Visit("below a path", 320, ("dark",), printed=True),
)
# The pages are visited in several parts, which run side by side.
PARTS = 4
# The colours of code are those of one style sheet, and a chapter has ten thousand pieces of it: one has them checked.
CODE_CHECKED, CODE = "notebooks/01_matrix_completion.html", ".highlight pre"
# Takes the pieces away and leaves the text; and puts them back.
WITHOUT_PIECES = """code => document.querySelectorAll(code).forEach((pre) => {
  pre.pieces = [...pre.childNodes];
  pre.textContent = pre.textContent;
})"""
WITH_PIECES = "code => document.querySelectorAll(code).forEach((pre) => pre.replaceChildren(...pre.pieces))"
# Only what is found is told at length; and axe would ask for style sheets at addresses where they are not.
AXE = {"resultTypes": ["violations"], "preload": {"assets": ["media"]}}
THEME = "document.documentElement.dataset.theme"
# Formulas that are not set, and whether the book's own style sheet has come.
UNSET = "[...document.querySelectorAll('.math')].filter(math => !math.querySelector('mjx-container')).length"
# How large a pixel of each figure shows. Labels have 12 points, those of legends 11, at 144 dots to the inch.
SHARES = """[...document.querySelectorAll(".cell_output figure img")].filter((image) => image.offsetParent)
  .map((image) => (image.clientWidth - 2 * parseFloat(getComputedStyle(image).paddingLeft)) / image.naturalWidth)"""
LEGEND, SMALLEST = 11 / 72 * 144, 8.0
STYLED = "getComputedStyle(document.documentElement).getPropertyValue('--dmfkit-panel').trim() !== ''"


@pytest.fixture(scope="module")
def addresses(address, layout, tmp_path_factory):
    """The address of the built book, by how it is opened."""
    root = tmp_path_factory.mktemp("site")
    (root / "some" / "where").mkdir(parents=True)
    (root / "some" / "where" / "book").symlink_to(layout.html)
    with serve(root) as below:
        yield {"site": address, "disk": layout.html.as_uri() + "/", "below a path": below + "some/where/book/"}


@pytest.fixture(scope="module")
def names(layout, pages):
    """The pages below the book's folder, long ones first, so that every part has its share of them."""
    # The first one is only a redirection.
    shown = [path for path in pages if path != layout.html / "index.html"]
    names = [path.relative_to(layout.html).as_posix() for path in sorted(shown, key=lambda p: -p.stat().st_size)]
    # The pages of source code differ in that code only: the longest and the shortest stand for them, and their list.
    sources = [name for name in names if name.startswith("_modules/")]
    return [name for name in names if name not in sources or name in (sources[0], sources[-1], "_modules/index.html")]


@pytest.mark.parametrize("part", range(PARTS))
@pytest.mark.parametrize("visit", VISITS, ids=str)
def test_every_page(browser, addresses, names, visit, part):
    context = browser.new_context(viewport=viewport(visit.width), color_scheme=visit.themes[0])
    # One tab for all: a new one would start a process and compile all scripts for every page.
    page = context.new_page()
    found = watch(page, addresses[visit.opened])
    problems = []
    for name in names[part::PARTS]:
        page.goto(addresses[visit.opened] + name, wait_until="load")
        settle(page)
        problems += [(name, *problem) for problem in seen(page, name, visit)]
        leave(page, visit)
        # Only now: whatever is looked at, and however often, nothing is asked for elsewhere.
        problems += [(name, problem) for problem in found]
        found.clear()
    context.close()
    # All of them: one is often the cause of another.
    assert problems == [], "\n".join(map(str, problems))


def viewport(width):
    return {"width": width, "height": 900}


def seen(page, name, visit):
    """What is wrong with a page that has been loaded: in its first theme, for axe, in other themes, on paper."""
    problems = looked_at(page, visit.width, visit.themes[0])
    if visit.by_axe:
        problems += [(visit.width, visit.themes[0], *violation) for violation in violations(page, name)]
    for theme in visit.themes[1:]:
        page.emulate_media(color_scheme=theme)
        settle(page)
        problems += looked_at(page, visit.width, theme)
    # Paper is for what is read: not for the search, nor for an index.
    if visit.printed and name.startswith(("book/", "notebooks/")):
        put_on_paper(page)
        problems += [("on paper", *problem) for problem in wrong_on_paper(page)]
    return problems


def leave(page, visit):
    """Leave a page and be ready to load the next."""
    page.goto("about:blank")
    page.set_viewport_size(viewport(visit.width))
    page.emulate_media(media="null", color_scheme=visit.themes[0])


def looked_at(page, width, theme):
    """What is wrong at a first look."""
    problems = []
    scroll, visible = page.evaluate("[document.documentElement.scrollWidth, window.innerWidth]")
    if scroll > visible:
        problems.append(f"{scroll} pixels wide")
    sizes = [share * LEGEND for share in page.evaluate(SHARES)]
    problems += [f"labels of {size:.1f} pixels" for size in sizes if size < SMALLEST]
    if page.evaluate(UNSET) or page.locator("mjx-merror").count():
        problems.append("formulas that are not set")
    if not page.evaluate(STYLED):
        problems.append("no style sheet")
    if visible != width or page.evaluate(THEME) != theme:
        problems.append(f"{visible} pixels in {page.evaluate(THEME)} are not what was asked for")
    return [(width, theme, problem) for problem in problems]


def violations(page, name):
    """What axe finds on a page of the book; the colours of its code are checked on one page only."""
    if name == CODE_CHECKED:
        return serious_violations(page)
    # Axe looks at all that is there, also at what it is not to check.
    page.evaluate(WITHOUT_PIECES, CODE)
    found = serious_violations(page, {"exclude": [[CODE]]})
    page.evaluate(WITH_PIECES, CODE)
    return found


def serious_violations(page, checked=None):
    """What axe finds to be serious, with some of the places."""
    from axe_playwright_python.sync_playwright import Axe

    found = Axe().run(page, context=checked, options=AXE).response["violations"]
    return [
        (one["id"], [node["html"][:200] for node in one["nodes"][:3]])
        for one in found
        if one["impact"] in ("serious", "critical")
    ]


@pytest.mark.parametrize("opened", ["site", "disk", "below a path"])
def test_the_first_page_leads_to_the_others_and_the_search_finds_them(browser, addresses, opened):
    page = browser.new_page(viewport={"width": 1280, "height": 800})
    found = watch(page, addresses[opened])
    page.goto(addresses[opened] + "index.html")
    page.wait_for_url("**/book/intro.html")
    page.get_by_role("link", name="Compressed matrix completion").last.click()
    page.wait_for_url("**/notebooks/10_compressed_completion.html")
    page.get_by_role("link", name="Next").click()
    page.wait_for_url("**/notebooks/11_width_and_depth.html")
    page.get_by_role("link", name="Previous").click()
    page.wait_for_url("**/notebooks/10_compressed_completion.html")
    page.get_by_role("button", name="Search").first.click()
    page.keyboard.type("discrepant rate")
    page.keyboard.press("Enter")
    page.wait_for_url("**/search.html?q=*")
    page.get_by_text("Search finished").wait_for()
    page.locator("#search-results").get_by_role("link", name="Glossary").first.click()
    page.wait_for_url("**/book/glossary.html*")
    assert found == []
    page.close()


@pytest.mark.parametrize(("width", "height"), [(390, 844), (1280, 800)])
def test_message_and_picture_of_the_first_page_are_seen_at_once(browser, address, width, height):
    page = browser.new_page(viewport={"width": width, "height": height})
    page.goto(address + "book/intro.html", wait_until="load")
    for part in (".dmfkit-message", ".dmfkit-frontispiece img"):
        box = page.locator(part).bounding_box()
        assert box["height"] > 20
        assert box["y"] + box["height"] <= height, part
    # Pictures further down wait until they come near.
    assert page.locator(".dmfkit-cards img").evaluate_all("all => all.every(one => one.loading === 'lazy')")
    page.close()


def test_formulas_are_drawn_with_the_books_own_fonts(browser, address, layout):
    page = browser.new_page()
    fonts = []
    page.on("response", lambda response: fonts.append(response) if response.url.endswith(".woff") else None)
    page.goto(address + "book/notation.html", wait_until="load")
    settle(page)
    assert page.locator("mjx-container").count() > 20
    assert page.locator("mjx-merror").count() == 0
    assert fonts
    assert all(response.ok and response.url.startswith(address) for response in fonts)
    page.close()


def watch(page, address):
    """Return a list that fills with what the page must not do."""
    found = []

    def on_request(request):
        if not request.url.startswith((address, "data:", "blob:")):
            found.append(f"request to {request.url}")

    page.on("request", on_request)
    page.on("response", lambda r: found.append(f"{r.status} for {r.url}") if r.status >= 400 else None)
    page.on("console", lambda m: found.append(f"console: {m.text}") if m.type == "error" else None)
    page.on("pageerror", lambda error: found.append(f"error: {error}"))
    return found


def settle(page):
    """Wait until the formulas are set and the page has been laid out once more."""
    page.evaluate("window.MathJax?.startup?.promise")
    page.evaluate("document.fonts.ready")
    page.evaluate("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")


def test_the_scoreboard_filters_without_a_kernel_and_remembers_it(browser, address, layout):
    claims = json.loads((layout.output / "claims.json").read_text(encoding="utf-8"))
    page = browser.new_page(viewport={"width": 390, "height": 900})
    page.goto(f"{address}book/scoreboard.html")
    visible = "[...document.querySelectorAll('.dmfkit-scoreboard tbody tr')].filter(r => r.offsetParent).map(r => r.id)"
    every = page.evaluate(visible)
    assert len(every) == len(ledger())
    page.get_by_label("Paper").select_option("arora")
    assert set(page.evaluate(visible)) == {entry.id for entry in ledger().values() if entry.paper == "arora"}
    chapter = sorted({found["notebook"] for found in claims.values()})[0]
    page.get_by_label("Chapter").select_option(chapter)
    expected = {identifier for identifier, found in claims.items() if found["notebook"] == chapter}
    assert set(page.evaluate(visible)) == expected
    assert page.get_by_role("status").text_content() == f"Showing {len(expected)} of {len(every)} claims."
    # The address brings the same rows back; a heading without rows is gone.
    page.reload()
    assert set(page.evaluate(visible)) == expected
    assert not page.get_by_role("heading", name="Yaras").first.is_visible()
    page.get_by_label("Words").fill("no such words anywhere")
    assert page.evaluate(visible) == []
    page.get_by_role("button", name="Show all").click()
    page.wait_for_function("new URL(location.href).search === ''")
    assert page.evaluate(visible) == every
    page.get_by_label("Verdict").select_option("not-yet-examined")
    rows = page.evaluate(visible)
    assert set(rows) >= set(ledger()) - set(claims)
    page.close()


def test_the_scoreboard_shows_every_claim_without_scripts(browser, address):
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(f"{address}book/scoreboard.html")
    assert page.locator(".dmfkit-scoreboard tbody tr").count() == len(ledger())
    assert page.locator(".dmfkit-scoreboard tbody tr:visible").count() == len(ledger())
    assert not page.locator("form.dmfkit-filter").is_visible()
    context.close()
