"""The built pages in a browser: no other host, no error, no sideways scrolling, accessible."""

import json

import pytest

from dmfkit.ledger import ledger

pytestmark = pytest.mark.book

WIDTHS = (390, 1280)
THEMES = ("light", "dark")
# Every width and every theme once: axe takes many seconds for a long page, and its rules look at one or at the other.
CHECKED_BY_AXE = ((390, "dark"), (1280, "light"))


@pytest.mark.parametrize("theme", THEMES)
@pytest.mark.parametrize("width", WIDTHS)
def test_every_page(browser, address, layout, pages, width, theme):
    from axe_playwright_python.sync_playwright import Axe

    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=theme)
    problems = []
    for path in pages:
        name = path.relative_to(layout.html).as_posix()
        if name == "index.html":  # only a redirection to the first page
            continue
        page = context.new_page()
        found = watch(page, address)
        page.goto(address + name, wait_until="load")
        settle(page)
        # axe itself asks for style sheets at wrong addresses, so what was noted until here counts.
        problems += [(name, problem) for problem in found]
        scroll, visible = page.evaluate("[document.documentElement.scrollWidth, window.innerWidth]")
        if scroll > visible:
            problems.append((name, f"{scroll} pixels wide"))
        if (width, theme) in CHECKED_BY_AXE:
            problems += [
                (name, violation["id"], [node["html"][:200] for node in violation["nodes"][:3]])
                for violation in Axe().run(page).response["violations"]
                if violation["impact"] in ("serious", "critical")
            ]
        page.close()
    context.close()
    assert problems == []


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
