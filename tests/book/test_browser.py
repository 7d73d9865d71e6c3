"""The built pages in a browser: no other host, no error, no sideways scrolling, accessible."""

import json

import pytest

from dmfkit.ledger import ledger

from .conftest import serve

pytestmark = pytest.mark.book

# How the book is opened, at which width and in which theme: 320 pixels are the narrowest phone, and a page that is 1280
# pixels wide shows as that when magnified to 400 %.
VISITS = (
    ("site", 390, "light"),
    ("site", 390, "dark"),
    ("site", 1280, "light"),
    ("site", 1280, "dark"),
    ("disk", 320, "light"),
    ("below a path", 320, "dark"),
)
# Every width and every theme once: axe takes many seconds for a long page, and its rules look at one or at the other.
CHECKED_BY_AXE = ((390, "dark"), (1280, "light"))
# The pages are checked in several parts, which run side by side.
PARTS = 5
# The colours of code are those of one style sheet, and a chapter has ten thousand pieces of it: one has them checked.
CODE_CHECKED, CODE = "notebooks/01_matrix_completion.html", ".highlight pre"
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


@pytest.mark.parametrize(("opened", "width", "theme"), VISITS)
def test_every_page(browser, addresses, layout, pages, opened, width, theme):
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=theme)
    problems = []
    for path in pages:
        name = path.relative_to(layout.html).as_posix()
        if name == "index.html":  # only a redirection to the first page
            continue
        page = context.new_page()
        found = watch(page, addresses[opened])
        page.goto(addresses[opened] + name, wait_until="load")
        settle(page)
        problems += [(name, problem) for problem in found]
        scroll, visible = page.evaluate("[document.documentElement.scrollWidth, window.innerWidth]")
        if scroll > visible:
            problems.append((name, f"{scroll} pixels wide"))
        sizes = [share * LEGEND for share in page.evaluate(SHARES)]
        problems += [(name, f"labels of {size:.1f} pixels") for size in sizes if size < SMALLEST]
        if page.evaluate(UNSET) or page.locator("mjx-merror").count():
            problems.append((name, "formulas that are not set"))
        if not page.evaluate(STYLED):
            problems.append((name, "no style sheet"))
        page.close()
    context.close()
    assert problems == []


@pytest.mark.parametrize("part", range(PARTS))
@pytest.mark.parametrize(("width", "theme"), CHECKED_BY_AXE)
def test_every_page_is_accessible(browser, address, layout, pages, width, theme, part):
    from axe_playwright_python.sync_playwright import Axe

    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=theme)
    problems = []
    for path in pages[part::PARTS]:
        name = path.relative_to(layout.html).as_posix()
        if name == "index.html":  # only a redirection to the first page
            continue
        page = context.new_page()
        page.goto(address + name, wait_until="load")
        settle(page)
        checked = None if name == CODE_CHECKED else {"exclude": [[CODE]]}
        problems += [
            (name, violation["id"], [node["html"][:200] for node in violation["nodes"][:3]])
            for violation in Axe().run(page, context=checked).response["violations"]
            if violation["impact"] in ("serious", "critical")
        ]
        page.close()
    context.close()
    assert problems == []


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
