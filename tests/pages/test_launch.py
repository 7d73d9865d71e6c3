"""The buttons that open a chapter elsewhere: on chapters only, leading there, and loading nothing from there."""

import functools
import re
import shutil
import threading
from http.server import ThreadingHTTPServer

import pytest

from bookbuild import Layout
from bookbuild.build import render
from bookbuild.pages import stage
from bookbuild.repository import Repository, choose_repository, first_cell

from .conftest import Quiet
from .test_browser import serious_violations, settle, watch
from .test_html import Page

pytestmark = pytest.mark.book

CHAPTER = "06_one_measurement"
PLACEHOLDER = re.compile(r"^% generated: (.+)$", re.MULTILINE)
COLAB = "https://colab.research.google.com/github/{owner}/{name}/blob/{branch}/notebooks/{chapter}.ipynb"
BINDER = "https://mybinder.org/v2/gh/{owner}/{name}/{branch}?urlpath=lab/tree/notebooks/{chapter}.ipynb"


@pytest.fixture(scope="module")
def published(layout, tmp_path_factory):
    """One executed chapter of the book, and the pages around it, rendered with a repository."""
    target = Layout(layout.root, tmp_path_factory.mktemp("published"))
    target.executed.mkdir()
    target.logs.mkdir()
    shutil.copy(layout.executed_notebook(CHAPTER), target.executed)
    pages = (layout.root / "book").glob("*.md")
    texts = {name for page in pages for name in PLACEHOLDER.findall(page.read_text(encoding="utf-8"))}
    stage(target, [CHAPTER], "quick", dict.fromkeys(texts, ""), Repository("example", "book", "drafts"))
    render(target)
    return target


def launches(path):
    """The links of a page to the places where a chapter can be run."""
    page = Page()
    page.feed(path.read_text(encoding="utf-8"))
    return {link for link in page.links if link.startswith(("https://colab.", "https://mybinder."))}


def expected(repository, chapter):
    names = {"owner": repository.owner, "name": repository.name, "branch": repository.branch, "chapter": chapter}
    return {COLAB.format(**names), BINDER.format(**names)}


def test_a_chapter_of_a_published_book_has_the_buttons_and_no_other_page_has(published):
    assert launches(published.html / "notebooks" / f"{CHAPTER}.html") == expected(
        Repository("example", "book", "drafts"), CHAPTER
    )
    others = [path for path in (published.html / "book").glob("*.html") if launches(path)]
    assert others == []


def test_the_buttons_bring_no_script_that_starts_a_kernel(published):
    page = (published.html / "notebooks" / f"{CHAPTER}.html").read_text(encoding="utf-8")
    assert "thebe" not in page.lower()


def test_opening_the_buttons_asks_no_other_host_and_both_can_be_reached(browser, published):
    with ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(published.html))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}/"
        page = browser.new_page(viewport={"width": 390, "height": 900})
        found = watch(page, address)
        page.goto(f"{address}notebooks/{CHAPTER}.html", wait_until="load")
        settle(page)
        page.get_by_role("button", name="Launch interactive content").click()
        for name in ("Binder", "Colab"):
            page.get_by_role("link", name=name, exact=False).wait_for(state="visible")
        page.get_by_role("button", name="Launch interactive content").click()
        page.get_by_text("Show the cell that installs the package").click()
        assert found == []
        assert serious_violations(page) == []
        page.close()
        server.shutdown()


def test_the_pages_own_notebook_installs_from_that_repository(published):
    source = (published.html / "_sources" / "notebooks" / f"{CHAPTER}.ipynb").read_text(encoding="utf-8")
    assert "git+https://github.com/example/book@drafts" in source
    assert first_cell("").splitlines()[-2].strip() not in source


def test_the_book_has_buttons_exactly_if_the_setting_names_a_repository(layout):
    repository = choose_repository(layout.root)
    for path in (layout.html / "notebooks").glob("*.html"):
        assert launches(path) == (expected(repository, path.stem) if repository else set()), path.name
