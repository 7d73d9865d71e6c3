"""Two pages made from the verdicts: the errata, and where a paper's text and its released code differ."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from dmfkit.book.scoreboard import PAPERS
from dmfkit.chapters.claims import LedgerEntry, ledger

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
