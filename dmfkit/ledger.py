"""The ledger of the papers' checkable claims, in our own words."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib import resources

import yaml


@dataclass(frozen=True)
class LedgerEntry:
    """One checkable claim of one of the two papers, in our own words.

    `paper` is "arora" or "yaras", `kind` says what the claim is (theorem, figure, ...), `locus` where the
    paper makes it, `setting` under which conditions, and `how_to_check` what would confirm or falsify it.
    """

    id: str
    paper: str
    kind: str
    locus: str
    statement: str
    setting: str
    how_to_check: str
    notes: str = ""


@cache
def ledger() -> dict[str, LedgerEntry]:
    """Return every claim of the ledger by its id, in the ledger's order."""
    text = resources.files("dmfkit").joinpath("claims.yml").read_text(encoding="utf-8")
    entries = [LedgerEntry(**row) for row in yaml.safe_load(text)]
    return {entry.id: entry for entry in entries}
