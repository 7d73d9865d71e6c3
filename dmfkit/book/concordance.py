"""Where the book has what the papers number: their statements, equations and figures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources

import yaml

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
    text = resources.files("dmfkit.book").joinpath("concordance.yml").read_text(encoding="utf-8")
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
