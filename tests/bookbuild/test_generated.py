"""The prose pages agree with the code that they describe."""

import re
from html import escape
from pathlib import Path

import pytest
import yaml
from markdown_it import MarkdownIt

from bookbuild.generated import KINDS, NOT_EXAMINED, PAPERS, differences, errata, scoreboard
from dmfkit.chapters.claims import ledger

ROOT = Path(__file__).parents[2]
CODE = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "dmfkit").rglob("*.py"))


def test_every_name_of_the_notation_page_is_a_name_of_the_code():
    rows = [line.split(" | ") for line in (ROOT / "book/notation.md").read_text(encoding="utf-8").splitlines()]
    names = {name for row in rows if len(row) > 2 for name in re.findall(r"`([^`]+)`", row[1])}
    assert len(names) > 15
    assert [name for name in sorted(names) if not re.search(rf"\b{re.escape(name)}\b", CODE)] == []


def test_the_table_of_contents_lists_every_page_and_chapter_once():
    contents = yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf-8"))
    entries = [entry for part in contents["parts"] for entry in part["chapters"]]
    listed = [contents["root"], *(one["file"] for entry in entries for one in [entry, *entry.get("sections", [])])]
    pages = [f"book/{path.stem}" for path in (ROOT / "book").glob("*.md")]
    chapters = [f"notebooks/{path.stem}" for path in (ROOT / "notebooks").glob("*.ipynb")]
    assert sorted(listed) == sorted(pages + chapters)


def test_the_licence_files_are_there():
    assert "BSD 3-Clause" in (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert "Apache License" in (ROOT / "book/vendor/mathjax/LICENSE").read_text(encoding="utf-8")


def test_the_scoreboard_knows_every_paper_and_kind_of_the_ledger():
    assert {entry.paper for entry in ledger().values()} == set(PAPERS)
    assert {entry.kind for entry in ledger().values()} == set(KINDS)


@pytest.fixture
def found():
    return {
        "verdict": "partly",
        "measured": "x < 1",
        "correction": "",
        "reason": "a reason",
        "changed_parameters": {},
        "notebook": "01_first",
        "cell": "c",
        "preset": "paper",
    }


def test_the_scoreboard_shows_a_verdict_its_reason_and_its_place(found):
    page = scoreboard({"arora-eq1": found})
    row = next(line for line in page.splitlines() if 'id="arora-eq1"' in line)
    assert 'class="dmfkit-partly"' in row
    assert "x &lt; 1" in row
    assert "Reason: a reason" in row
    assert 'href="../notebooks/01_first.html#claim-arora-eq1"' in row
    assert "| partly | 1 | 0 |" in page
    assert page.count(f">{NOT_EXAMINED}</strong>") == len(ledger()) - 1


def test_a_verdict_under_other_parameters_does_not_count(found):
    page = scoreboard({"arora-eq1": {**found, "changed_parameters": {"d": "40"}, "preset": "quick"}})
    row = next(line for line in page.splitlines() if 'id="arora-eq1"' in line)
    assert "with other parameters: partly" in row
    assert "settles nothing" in row
    assert "| partly | 0 | 0 |" in page


def test_the_page_of_errata_has_what_is_printed_what_is_right_and_the_evidence(found):
    erratum = {"printed": "$a_{1}$", "corrected": "$a_{2}$", "evidence": "off by 3"}
    page = errata({"arora-eq17": {**found, "erratum": erratum}, "arora-eq1": {**found, "erratum": None}})
    assert "As printed\n: $a_{1}$" in page
    assert "Corrected\n: $a_{2}$" in page
    assert "Evidence\n: off by 3" in page
    assert 'href="../notebooks/01_first.html#claim-arora-eq17"' in page
    assert "arora-eq1<" not in page


def test_what_the_ledger_says_is_shown_as_it_stands(found):
    difference = {"paper": "a", "code": "b", "effect": "c"}
    page = differences({"arora-eq17": {**found, "difference": difference}})
    statement = ledger()["arora-eq17"].statement
    assert "_" in statement
    assert "^" in statement
    assert MarkdownIt().render(page).count(escape(statement)) == 1


def test_a_difference_measured_with_other_parameters_says_so(found):
    difference = {"paper": "a", "code": "b", "effect": "c"}
    changed = {**found, "difference": difference, "changed_parameters": {"d": "40"}, "preset": "quick"}
    assert "with the preset quick" in differences({"arora-eq17": changed})
    assert "with the preset" not in differences({"arora-eq17": {**found, "difference": difference}})
