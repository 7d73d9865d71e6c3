"""The scoreboard: every claim of the ledger with what the chapters found."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from html import escape
from typing import Any

from dmfkit.chapters.claims import LedgerEntry, ledger

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
