"""From the papers' numbers to the book's: complete, and every mention of one becomes a link."""

import re
from pathlib import Path

import nbformat
import pytest
from docutils import nodes
from docutils.utils import new_document

from bookbuild.generated import concordance_tables, concordances, labels_for
from bookbuild.pages import labels_of
from bookbuild.sphinx_links import MENTION, link_in_text
from dmfkit.chapters.claims import ledger

CHAPTERS = sorted((Path(__file__).parents[2] / "notebooks").glob("*.ipynb"))
# How the ledger abbreviates them.
KINDS = {
    "Theorem": "Theorem|Thm",
    "Lemma": "Lemma",
    "Proposition": "Proposition|Prop",
    "Corollary": "Corollary|Cor",
    "Conjecture": "Conjecture|Conj",
    "Equation": "Eq",
    "Figure": "Figure|Fig",
}


def test_every_label_is_defined_in_a_chapter_about_that_paper():
    labels = {path.stem: labels_of(nbformat.read(path, as_version=4)) for path in CHAPTERS}
    for one in concordances():
        defined = set().union(*(labels[chapter] for chapter in one.chapters))
        wanted = {label for numbers in one.labels.values() for label in numbers.values()}
        assert wanted - defined == set(), one.paper


def numbered_in(locus):
    """The statements, equations and figures that a locus of the ledger names: (kind, number)."""
    found = set()
    for kind, words in KINDS.items():
        for numbers in re.findall(rf"\b(?:{words})s? ([\d() ,and-]+)", locus):
            for first, last in re.findall(r"(\d+)\)?(?:-\(?(\d+))?", numbers):
                found |= {(kind, n) for n in range(int(first), int(last or first) + 1)}
    return found


def test_what_the_ledger_names_by_a_number_is_in_the_concordance():
    missing = []
    for one in concordances():
        entries = [entry for entry in ledger().values() if entry.paper == one.paper]
        loci = set().union(*(numbered_in(entry.locus) for entry in entries))
        assert len(loci) > 15
        missing += [(one.paper, kind, n) for kind, n in sorted(loci) if n not in one.labels.get(kind, {})]
    assert missing == []


def test_numbers_have_no_gaps():
    for one in concordances():
        for kind, numbers in one.labels.items():
            assert sorted(numbers) == list(range(1, len(numbers) + 1)), (one.paper, kind)


def test_a_chapter_is_about_one_paper_at_most_and_other_pages_about_none():
    chapters = [chapter for one in concordances() for chapter in one.chapters]
    assert len(set(chapters)) == len(chapters)
    assert set(chapters) <= {path.stem for path in CHAPTERS}
    assert labels_for("intro") == {}


def test_the_tables_group_what_has_one_place_and_leave_out_what_has_none():
    table = concordance_tables({"eq-norms-19": "02_norms", "fig-norms-figure-2": "03_norms"})
    assert "| Equations 18, 19, 20, 21 | {eq}`eq-norms-19` | [](../notebooks/02_norms) |" in table
    assert "| Figure 2 | {numref}`fig-norms-figure-2` | [](../notebooks/03_norms) |" in table
    assert "Theorem" not in table


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("By Theorem 3, and", ["Theorem 3"]),
        ("(Eq 8) holds", ["Eq 8"]),
        ("Equations (22) and (23) of", ["Equations (22) and (23)"]),
        ("Figures 4, 5 and 6. Then", ["Figures 4, 5 and 6"]),
        ("Figure 1 and 3 seeds", ["Figure 1"]),
        ("Equation\n33 with", ["Equation\n33"]),
        ("chapter 6 shows", ["chapter 6"]),
        ("Theorem 4.3 is ours, so is Fig. 2.1", []),
        ("Lemmata, a Figure of speech", []),
    ],
)
def test_what_counts_as_a_mention(text, found):
    assert [match[0] for match in MENTION.finditer(text)] == found


def test_links_are_put_into_running_text_only():
    document = new_document("page")
    paragraph = nodes.paragraph("", "", nodes.Text("See Lemma 1 and "), nodes.literal("", "Lemma 1"))
    document += nodes.section("", nodes.title("", "Lemma 1"), paragraph)
    link_in_text(document, MENTION, lambda match, _: [nodes.reference("", match[0], refuri="#x")])
    links = list(document.findall(nodes.reference))
    assert [link.astext() for link in links] == ["Lemma 1"]
    assert paragraph.astext() == "See Lemma 1 and Lemma 1"
