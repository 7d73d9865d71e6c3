"""Numbers and references in the built chapters: statements have proofs, and every mention is a link."""

import re

import pytest
from bs4 import BeautifulSoup

from bookbuild.generated import concordances, labels_for
from bookbuild.sphinx_links import MENTION

pytestmark = pytest.mark.book

# Where words are not running text: links, titles, code, formulas, and boxes that name the paper's own numbers.
BARRED = "a, h1, h2, h3, h4, code, pre, script, style, .math, .admonition-title, .dmfkit-verdict, .dmfkit-origin"
TO_PROVE = ("theorem", "lemma", "proposition", "corollary")
# Statements whose proof does not follow at once: where it is.
PROVED_AT = {
    "thm-norms-shallow": ("02_norms_in_theory", "depth-2-with-one-matrix-or-two"),
    "thm-norms-deep": ("02_norms_in_theory", "the-proof-for-depth-3-and-more-step-by-step"),
    "thm-growth": ("04_dynamics_in_theory", "thm-singular-values"),
}


@pytest.fixture(scope="module")
def chapters(layout):
    """The articles of the chapters by name."""
    return {
        path.stem: BeautifulSoup(path.read_text(encoding="utf-8"), "html.parser").find("article")
        for path in sorted((layout.html / "notebooks").glob("*.html"))
    }


def test_a_chapter_has_the_number_of_its_file(chapters):
    titles = {name: article.h1.get_text() for name, article in chapters.items()}
    assert {name: title for name, title in titles.items() if not title.startswith(f"{int(name[:2])}. ")} == {}
    # Sections have none: the chapter's, once more, would look like one of their own.
    numbered = {
        name: [h.get_text() for h in article.select("h2, h3") if h.select(".section-number")]
        for name, article in chapters.items()
    }
    assert not any(numbered.values()), numbered


def test_what_is_numbered_has_the_chapters_number(chapters):
    for name, article in chapters.items():
        shown = [found.get_text() for found in article.select(".caption-number, .eqno")]
        numbers = [re.search(r"(\d+)\.\d+", text) for text in shown]
        assert len(numbers) > 5, name
        assert [text for text, number in zip(shown, numbers, strict=True) if int(number[1]) != int(name[:2])] == []


def test_every_mention_of_what_the_book_has_is_a_link(chapters):
    bare, linked = [], 0
    for name, article in chapters.items():
        labels = labels_for(name)
        linked += sum(MENTION.fullmatch(link.get_text()) is not None for link in article.select("a.reference.internal"))
        for inside in article.select(BARRED):
            inside.extract()
        for text in article.find_all(string=MENTION):
            for match in MENTION.finditer(text):
                numbers = [int(number) for number in re.findall(r"\d+", match[0])]
                kind = {"Eq": "Equation"}.get(match["word"], match["word"])
                known = {labels.get(kind, {}).get(number) for number in numbers} - {None}
                own = {box["id"] for box in text.find_parents(id=True)}
                if match["chapter"] or known - own - {f"equation-{label}" for label in own}:
                    bare.append((name, match[0], text.strip()[:80]))
    assert bare == []
    assert linked > 200


def test_every_statement_is_proved(chapters):
    open_ones, proved = [], 0
    for name, article in chapters.items():
        for box in article.select("div.proof"):
            if not set(box["class"]) & set(TO_PROVE):
                continue
            following = box.find_next("div", class_="proof")
            is_proof = following is not None and following["class"] == ["proof", "admonition"]
            if not is_proof:
                page, place = PROVED_AT.get(box["id"], (name, "nowhere"))
                is_proof = chapters[page].find(id=place) is not None
            proved += is_proof
            open_ones += [] if is_proof else [(name, box["id"])]
    assert open_ones == []
    assert proved > 30


def test_the_concordance_lists_every_number_once(layout):
    page = BeautifulSoup((layout.html / "book" / "concordance.html").read_text(encoding="utf-8"), "html.parser")
    rows = [cells[0].get_text() for row in page.select("tbody tr") if (cells := row.find_all("td"))]
    listed = [number for row in rows for number in re.findall(r"\d+", row)]
    assert len(listed) == sum(len(numbers) for one in concordances() for numbers in one.labels.values())
