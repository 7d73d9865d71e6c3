"""The record of the execution, as a generated text.

Where the book has what the papers number: their statements, equations and figures.

Two pages made from the verdicts: the errata, and where a paper's text and its released code differ.

The README's figure, drawn from the stored results of chapter 1.

The scoreboard: every claim of the ledger with what the chapters found.
"""

from __future__ import annotations

import io
import platform
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from html import escape
from importlib import metadata, resources
from pathlib import Path
from typing import Any

import matplotlib as mpl
import nbformat
import yaml

from bookbuild.outputs import collect_origins
from bookbuild.project import Layout
from dmfkit.chapters import plotting
from dmfkit.chapters.claims import LedgerEntry, ledger
from dmfkit.errors import InputError
from dmfkit.experiments.store import read

# The packages whose version can change a number or a figure.
PACKAGES = (
    "torch",
    "numpy",
    "scipy",
    "xarray",
    "cvxpy",
    "clarabel",
    "scs",
    "matplotlib",
    "papermill",
    "jupyter-book",
)


def execution_record(notebooks: Sequence[Path], preset: str) -> str:
    """Return the tables of wall times, results and package versions."""
    times = ["| chapter | preset | wall time (s) | finished (UTC) |", "|:--|:--|--:|:--|"]
    results = [
        "| chapter | result | device | computed or stored | computation took (s) |",
        "|:--|:--|:--|:--|--:|",
    ]
    for path in notebooks:
        run = nbformat.read(path, as_version=4).metadata.papermill
        link = f"[](../notebooks/{path.stem})"
        end = run.end_time[:16].replace("T", " ")
        times.append(f"| {link} | {preset} | {run.duration:.1f} | {end} |")
        for origin in collect_origins(path):
            how = "stored" if origin["stored"] else "computed in this build"
            what, device = _cell(origin["what"]), _cell(origin["device"])
            results.append(f"| {link} | {what} | {device} | {how} | {origin['wall_seconds']:.1f} |")
    versions = ["| package | version |", "|:--|:--|"]
    versions += [f"| {name} | {metadata.version(name)} |" for name in PACKAGES]
    machine = f"The chapters ran on {platform.system()} ({platform.machine()}), Python {platform.python_version()}."
    parts = ["## Chapters", machine, "\n".join(times), "## Results", "\n".join(results)]
    return "\n\n".join([*parts, "## Packages", "\n".join(versions)])


def _cell(text: str) -> str:
    """Return a chapter's text as plain text in a cell of a table."""
    return escape(text).replace("|", "\\|")


_ROLES = {"fig": "numref", "eq": "eq"}


@dataclass(frozen=True)
class Concordance:
    """The numbers of one paper: kind ("Theorem", "Figure", ...) -> number -> label in the book.

    `chapters` are those about this paper: in them, "Theorem 3" without more means the paper's.
    """

    paper: str
    title: str
    chapters: tuple[str, ...]
    labels: Mapping[str, Mapping[int, str]]


@cache
def concordances() -> tuple[Concordance, ...]:
    """Return the concordance of each paper, in the book's order."""
    text = resources.files("bookbuild").joinpath("concordance.yml").read_text(encoding="utf-8")
    return tuple(
        Concordance(paper, entry["title"], tuple(entry["chapters"]), entry["labels"])
        for paper, entry in yaml.safe_load(text).items()
    )


def labels_for(chapter: str) -> Mapping[str, Mapping[int, str]]:
    """Return the labels of the paper that a chapter is about; none for other pages."""
    return next((one.labels for one in concordances() if chapter in one.chapters), {})


def concordance_tables(places: Mapping[str, str]) -> str:
    """Return a table for each paper: its numbers, and where the book has them.

    Parameters
    ----------
    places
        Each label of the build and the chapter that defines it; what has no place is left out.
    """
    parts = []
    for one in concordances():
        rows = [f"## {one.title}", "", "| in the paper | in this book | chapter |", "|:--|:--|:--|"]
        for kind, numbers in one.labels.items():
            for label, names in _grouped(numbers).items():
                if label in places:
                    name = f"{kind}s {', '.join(names)}" if len(names) > 1 else f"{kind} {names[0]}"
                    rows.append(f"| {name} | {_reference(label)} | [](../notebooks/{places[label]}) |")
        parts.append("\n".join(rows))
    return "\n\n".join(parts)


def _grouped(numbers: Mapping[int, str]) -> dict[str, list[str]]:
    groups: dict[str, list[str]] = {}
    for number, label in numbers.items():
        groups.setdefault(label, []).append(str(number))
    return groups


def _reference(label: str) -> str:
    return f"{{{_ROLES.get(label.split('-')[0], 'prf:ref')}}}`{label}`"


NOT_EXAMINED = "not yet examined"
PAPERS = {"arora": "Arora, Cohen, Hu and Luo (2019)", "yaras": "Yaras et al. (2023)"}
KINDS = {
    "theorem": "Theorems",
    "lemma": "Lemmas",
    "proposition": "Propositions",
    "corollary": "Corollaries",
    "equation": "Equations",
    "figure": "Figures",
    "empirical-claim": "Statements from experience",
    "implementation-detail": "How it was done",
}
OUTCOMES = (
    "reproduced",
    "reproduced with a correction",
    "partly",
    "not reproduced",
    "not testable",
    NOT_EXAMINED,
)


def scoreboard(claims: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the scoreboard's tables as MyST, from the collected claims (id -> verdict and place)."""
    sections = [_summary(claims), _filter(claims)]
    for paper, title in PAPERS.items():
        sections.append(f"## {title}")
        for kind, heading in KINDS.items():
            entries = [entry for entry in ledger().values() if (entry.paper, entry.kind) == (paper, kind)]
            if entries:
                caption = f"{heading}, {title}"
                sections += [f"### {heading}", _table(caption, entries, claims)]
    return "\n\n".join(sections)


def _summary(claims: Mapping[str, Mapping[str, Any]]) -> str:
    def outcome(entry: LedgerEntry) -> str:
        found = claims.get(entry.id)
        # Under other parameters a verdict settles nothing, so it does not count.
        return NOT_EXAMINED if found is None or found["changed_parameters"] else str(found["verdict"])

    rows = [
        "| verdict under the papers' own settings | " + " | ".join(PAPERS.values()) + " |",
        "|:--|--:|--:|",
    ]
    counts = {paper: Counter(outcome(entry) for entry in ledger().values() if entry.paper == paper) for paper in PAPERS}
    rows += [f"| {name} | " + " | ".join(str(counts[paper][name]) for paper in PAPERS) + " |" for name in OUTCOMES]
    totals = [str(counts[paper].total()) for paper in PAPERS]
    return "\n".join([*rows, f"| **all claims** | {' | '.join(totals)} |"])


def _filter(claims: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the form that `scoreboard.js` shows and answers; without scripts every row stays visible."""
    chapters = sorted({str(found["notebook"]) for found in claims.values()})
    choices = {
        "paper": {paper: f"Part {'I' * part}: {title}" for part, (paper, title) in enumerate(PAPERS.items(), start=1)},
        "chapter": {chapter: chapter.replace("_", " ") for chapter in chapters},
        "kind": KINDS,
        "verdict": {_slug(outcome): outcome for outcome in OUTCOMES},
    }
    selects = "\n".join(
        f'<label>{name.capitalize()} <select name="{name}"><option value="">all</option>'
        + "".join(f'<option value="{escape(value)}">{escape(text)}</option>' for value, text in options.items())
        + "</select></label>"
        for name, options in choices.items()
    )
    return (
        '``````{raw} html\n<form class="dmfkit-filter" role="search" aria-label="Filter the claims" hidden>\n'
        f"{selects}\n"
        '<label>Words <input type="search" name="words" autocomplete="off"></label>\n'
        '<button type="reset">Show all</button>\n'
        '<p class="dmfkit-shown" role="status"></p>\n</form>\n``````'
    )


def _slug(outcome: str) -> str:
    return outcome.replace(" ", "-")


def _table(caption: str, entries: list[LedgerEntry], claims: Mapping[str, Mapping[str, Any]]) -> str:
    head = "".join(f'<th scope="col">{name}</th>' for name in ("Claim", "Verdict", "Measured"))
    body = "\n".join(_row(entry, claims.get(entry.id)) for entry in entries)
    return (
        "``````{raw} html\n"
        f'<table class="dmfkit-scoreboard"><caption>{escape(caption)}</caption>\n'
        f"<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody></table>\n``````"
    )


def _row(entry: LedgerEntry, found: Mapping[str, Any] | None) -> str:
    identifier = escape(entry.id)
    outcome = found["verdict"] if found else NOT_EXAMINED
    settled = found is not None and not found["changed_parameters"]
    colour = _slug(outcome) if settled else _slug(NOT_EXAMINED)
    data = {"paper": entry.paper, "kind": entry.kind, "verdict": colour, "chapter": found["notebook"] if found else ""}
    attributes = " ".join(f'data-{name}="{escape(str(value))}"' for name, value in data.items())
    if found and not settled:
        outcome = f"with other parameters: {outcome}"
    measured = _measured(entry.id, found) if found else ""
    return (
        f'<tr id="{identifier}" {attributes}><td><code>{identifier}</code> '
        f'<span class="dmfkit-locus">{escape(entry.locus)}</span>'
        f"<p>{escape(entry.statement)}</p></td>"
        f'<td class="dmfkit-{colour}"><strong class="dmfkit-outcome">{escape(outcome)}</strong></td>'
        f"<td>{measured}</td></tr>"
    )


def _measured(identifier: str, found: Mapping[str, Any]) -> str:
    texts = [found["measured"]]
    texts += [f"{label}: {found[label.lower()]}" for label in ("Correction", "Reason") if found[label.lower()]]
    if found["changed_parameters"]:
        texts.append(f"Run with the preset {found['preset']}, not with the paper's own settings: settles nothing.")
    paragraphs = "".join(f"<p>{escape(text)}</p>" for text in texts if text)
    href = f"../notebooks/{found['notebook']}.html#claim-{identifier}"
    return f'{paragraphs}<p><a href="{escape(href)}">the cell for {escape(identifier)}</a></p>'


Claims = Mapping[str, Mapping[str, Any]]


def errata(claims: Claims) -> str:
    """Return the errata as MyST: what is printed, what it should be, and how far off it is."""
    return _entries(claims, "erratum", {"printed": "As printed", "corrected": "Corrected", "evidence": "Evidence"})


def differences(claims: Claims) -> str:
    """Return the differences between text and released code as MyST, and what each of them changes."""
    labels = {"paper": "The paper's text", "code": "The released code or output", "effect": "What it changes"}
    return _entries(claims, "difference", labels)


def _entries(claims: Claims, kind: str, labels: Mapping[str, str]) -> str:
    parts = []
    for paper, title in PAPERS.items():
        found = [(entry, claims[entry.id]) for entry in ledger().values() if entry.paper == paper if entry.id in claims]
        texts = [_entry(entry, verdict, kind, labels) for entry, verdict in found if verdict.get(kind)]
        parts += [f"## {title}", *texts] if texts else []
    return "\n\n".join(parts) if parts else "No chapter of this build found any."


def _entry(entry: LedgerEntry, verdict: Mapping[str, Any], kind: str, labels: Mapping[str, str]) -> str:
    items = [f"{label}\n: {_one_line(verdict[kind][name])}" for name, label in labels.items()]
    # An HTML link, because Sphinx knows nothing of the place of a verdict inside a chapter's outputs.
    link = f'<a href="../notebooks/{verdict["notebook"]}.html#claim-{entry.id}">the cell for {entry.id}</a>'
    shown = f"{verdict['verdict'].capitalize()}; {link}."
    if verdict["changed_parameters"]:
        shown += f" Measured with the preset {verdict['preset']}, not with the paper's own settings."
    # Several claims can stand in one place of the paper.
    heading = f"### {_literal(entry.locus)}: {entry.id.partition('-')[2]}"
    return "\n\n".join([heading, _literal(entry.statement), "\n\n".join(items), shown])


def _literal(text: str) -> str:
    """Plain text as MyST that shows it unchanged."""
    return re.sub(r"([\\`*_{}\[\]<>$#|~^])", r"\\\1", text)


def _one_line(text: str) -> str:
    """Text of a definition has to stand in one paragraph."""
    return " ".join(text.split())


FIGURE = Path("book", "_static", "figure-1.png")


def draw_readme_figure(layout: Layout) -> bytes:
    """Return Figure 1 as PNG bytes, the same bytes for the same stored results.

    Raises
    ------
    InputError
        If there is not exactly one stored result for each half of the figure.
    """
    runs = []
    for name in ("fig1-descent", "fig1-flow"):
        found = list((layout.notebooks / "results").glob(f"{name}-*.nc"))
        if len(found) != 1:
            raise InputError(f"There are {len(found)} stored results {name}, but one is needed: publish results first.")
        runs.append(read(found[0]))
    with mpl.rc_context():
        plotting.use_style()
        figure = plotting.error_panels(*runs)
        buffer = io.BytesIO()
        # Without the version of matplotlib, which would change the bytes and nothing else.
        figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()
