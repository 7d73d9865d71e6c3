"""The ledger, and the verdicts that chapters reach."""

import re
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import nbformat
import numpy as np
import pytest
from nbformat import v4

from bookbuild.outputs import collect_claims
from dmfkit.chapters.claims import CLAIM_TYPE, claim, ledger, not_testable
from dmfkit.errors import InputError

SOME_ID = "arora-eq1"


@dataclass(frozen=True)
class Parameters:
    changed: dict = field(default_factory=dict)


PAPER = Parameters()
OTHER = Parameters({"d": 40})


def test_the_ledger_has_every_claim_once_and_complete():
    entries = list(ledger().values())
    assert len(entries) == 179
    assert {entry.paper for entry in entries} == {"arora", "yaras"}
    assert all(entry.id and entry.statement and entry.how_to_check and entry.locus for entry in entries)


@pytest.mark.parametrize(
    ("holds", "correction", "outcome"),
    [
        (True, "", "reproduced"),
        (np.True_, "the factor is 2", "reproduced with a correction"),
        ({"a": True, "b": np.bool_(True)}, "", "reproduced"),
        ({"a": True, "b": False}, "", "partly"),
        ({"a": False, "b": False}, "", "not reproduced"),
        (np.False_, "the factor is 2", "not reproduced"),
    ],
)
def test_the_outcome_follows_from_the_checks(holds, correction, outcome):
    verdict = claim(SOME_ID, holds, "x = 1", parameters=PAPER, correction=correction, reason="a reason")
    assert verdict.outcome == outcome


def test_a_reason_is_needed_for_a_failure_with_the_papers_parameters_only():
    with pytest.raises(InputError, match=f"{SOME_ID}.*reason"):
        claim(SOME_ID, False, "x = 1", parameters=PAPER)
    verdict = claim(SOME_ID, {"a": True, "b": False}, "x = 1", parameters=OTHER)
    assert verdict.reason == "no reason was written for these parameters"
    assert claim(SOME_ID, True, "x = 1", parameters=PAPER, reason="written beforehand").reason == ""


@pytest.mark.parametrize("holds", [0.3, None, "yes", 1, [True], {}, {"a": 1.0}, np.array([True, False])])
def test_only_truth_values_settle_a_claim(holds):
    with pytest.raises(InputError, match=SOME_ID):
        claim(SOME_ID, holds, "x = 1", parameters=PAPER)


def test_an_unknown_id_is_answered_with_the_nearest():
    with pytest.raises(InputError, match="arora-fig1-top-gap"):
        claim("arora-fig1-top-gapp", True, "x = 1", parameters=PAPER)
    with pytest.raises(InputError, match=r"claims\.yml"):
        not_testable("%%%", "because", parameters=PAPER)


def test_wrong_texts_and_parameters_are_refused():
    with pytest.raises(InputError, match="measured"):
        claim(SOME_ID, True, "  ", parameters=PAPER)
    with pytest.raises(InputError, match="cannot be tested"):
        not_testable(SOME_ID, "", parameters=PAPER)
    with pytest.raises(InputError, match="changed"):
        claim(SOME_ID, True, "x = 1", parameters={"d": 40})


def test_the_box_is_escaped_says_the_verdict_in_words_and_the_caveat():
    holds = {"<script>check</script>": True, "other": False}
    verdict = claim(SOME_ID, holds, "x < 1 & y", parameters=Parameters({"d": "<40>"}), reason="<b>why</b>")
    bundle = verdict._repr_mimebundle_()
    html = bundle["text/html"]
    assert "<script>" not in html
    assert "<b>" not in html
    assert "x &lt; 1 &amp; y" in html
    assert ">Partly<" in html
    assert ">yes<" in html
    assert ">no<" in html
    assert "settles nothing" in html
    assert "settles nothing" in bundle["text/plain"]
    assert "settles nothing" not in claim(SOME_ID, True, "x", parameters=PAPER)._repr_mimebundle_()["text/html"]


def notebook_with(folder, name, *verdicts):
    cells = []
    for number, verdict in enumerate(verdicts):
        output = v4.new_output("display_data", data={CLAIM_TYPE: verdict.to_json(), "text/plain": str(verdict)})
        cells.append(v4.new_code_cell("claim(...)", id=f"cell-{name}-{number}", outputs=[output]))
    path = folder / f"{name}.ipynb"
    nbformat.write(v4.new_notebook(cells=cells), path)
    return path


def test_verdicts_are_collected_with_the_place_where_they_were_reached(tmp_path):
    first = claim(SOME_ID, {"a": True}, "x = 1", parameters=OTHER)
    second = not_testable("arora-conj1", "it is vague", parameters=PAPER)
    notebook = notebook_with(tmp_path, "one", first, second)
    collected = collect_claims([notebook], "quick")
    assert list(collected) == [SOME_ID, "arora-conj1"]
    assert collected[SOME_ID]["changed_parameters"] == {"d": "40"}
    assert collected[SOME_ID]["checks"] == {"a": True}
    place = {key: collected["arora-conj1"][key] for key in ("verdict", "reason", "notebook", "cell", "preset")}
    assert place == {
        "verdict": "not testable",
        "reason": "it is vague",
        "notebook": "one",
        "cell": "cell-one-1",
        "preset": "quick",
    }


def test_a_claim_settled_twice_is_an_error_that_names_both_cells(tmp_path):
    verdict = claim(SOME_ID, True, "x = 1", parameters=PAPER)
    notebooks = [notebook_with(tmp_path, name, verdict) for name in ("one", "two")]
    with pytest.raises(InputError, match=r"one .*cell-one-0.* two .*cell-two-0"):
        collect_claims(notebooks, "paper")


def test_every_claim_of_both_papers_is_settled_by_a_chapter():
    settled = Counter()
    for path in (Path(__file__).parents[2] / "notebooks").glob("*.ipynb"):
        source = "\n".join(cell.source for cell in nbformat.read(path, 4).cells if cell.cell_type == "code")
        for name in re.findall(r"(?:arora|yaras)-[\w.{}-]+", source):
            # A name made in a loop, as in f"arora-fig3-bottom-d{depth}", stands for every claim that it fits.
            pattern = re.compile(re.sub(r"\\\{.*?\\\}", r"(?:\\d+|[A-D])", re.escape(name)))
            settled.update(identifier for identifier in ledger() if pattern.fullmatch(identifier))
    assert set(ledger()) - set(settled) == set()
