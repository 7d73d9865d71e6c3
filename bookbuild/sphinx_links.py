"""A small Sphinx extension: "Theorem 3", "(Eq 8)", "Figure 2" and "chapter 6" in a chapter link to the book's own.

Turn words of running text into links, leaving titles, formulas, code and what is a link already as they are.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from docutils import nodes
from sphinx.application import Sphinx

from bookbuild.generated import labels_for
from bookbuild.numbering import chapter_number, chapters_by_number

# Inside of these, words are not running text.
_BARRED = (nodes.title, nodes.reference, nodes.literal, nodes.literal_block, nodes.math, nodes.math_block, nodes.raw)


def link_in_text(
    doctree: nodes.document,
    pattern: re.Pattern[str],
    replace: Callable[[re.Match[str], nodes.Text], list[nodes.Node]],
) -> None:
    """Replace matches of a pattern in running text by links.

    Parameters
    ----------
    doctree
        A resolved page; it is changed in place.
    pattern
        What to look for, within one text node; a match may run over the end of a line.
    replace
        Gets each match and the text in which it stands; returns what to put there, nothing to leave the words.
    """
    for text in list(doctree.findall(nodes.Text)):
        if any(isinstance(parent, _BARRED) for parent in ancestors(text)):
            continue
        pieces: list[nodes.Node] = []
        end = 0
        for match in pattern.finditer(text):
            if found := replace(match, text):
                pieces += [nodes.Text(text[end : match.start()]), *found]
                end = match.end()
        if pieces and text.parent is not None:
            text.parent.replace(text, [*pieces, nodes.Text(text[end:])])


def ancestors(node: nodes.Node) -> list[nodes.Element]:
    """Return the nodes around a node, the nearest first."""
    found = []
    while (parent := node.parent) is not None:
        found.append(parent)
        node = parent
    return found


def stands_in(node: nodes.Node, identifier: str) -> bool:
    """Whether a node lies inside the element with an id, where a link to that id would lead nowhere."""
    return any(identifier in parent.get("ids", ()) for parent in ancestors(node))


_WORDS = "Theorem|Lemma|Proposition|Corollary|Conjecture|Figure|Equation|Eq"
_NUMBER = r"(?:\(\d+\)|\d+)"
# A number with a dot is the book's own, and the book's references are links already.
MENTION = re.compile(
    rf"\b(?:(?P<word>{_WORDS})(?:\s+{_NUMBER}|s\s+{_NUMBER}(?:(?:,|,?\s+and|\s+to)\s+{_NUMBER})*)"
    r"|[Cc]hapter\s+(?P<chapter>\d+))(?!\.?\d)"
)


def link_mentions(app: Sphinx, doctree: nodes.document, page: str) -> None:
    """Link the mentions on a page; Sphinx calls this for each page when all numbers are known."""
    if chapter_number(page) is None:
        return
    labels = labels_for(page.removeprefix("notebooks/"))
    chapters = chapters_by_number(app.env.found_docs)

    def replace(match: re.Match[str], text: nodes.Text) -> list[nodes.Node]:
        if match["chapter"]:
            target = chapters.get(int(match["chapter"]), page)
            return [] if target == page else [_link(app, page, target, "", match[0])]
        kind = "Equation" if match["word"] == "Eq" else match["word"]
        found: list[nodes.Node] = []
        start = 0
        for position, number in enumerate(re.finditer(_NUMBER, match[0])):
            place = find(app, labels.get(kind, {}).get(int(number[0].strip("()")), ""))
            # The first link begins with the word, the next ones are numbers only.
            begin = number.start() if position else 0
            if place is not None and not stands_in(text, place[1]):
                found += [nodes.Text(match[0][start:begin]), _link(app, page, *place, match[0][begin : number.end()])]
                start = number.end()
        return [*found, nodes.Text(match[0][start:])] if found else []

    link_in_text(doctree, MENTION, replace)


def find(app: Sphinx, label: str) -> tuple[str, str] | None:
    """Return the page and the id of a statement, an equation, a figure or a place in the text."""
    if (statement := getattr(app.env, "proof_list", {}).get(label)) is not None:
        return statement["docname"], label
    if label in (equations := app.env.get_domain("math").equations):  # type: ignore[attr-defined]
        return equations[label][0], f"equation-{label}"
    result: tuple[str, str] | None = app.env.get_domain("std").anonlabels.get(label)  # type: ignore[attr-defined]
    return result


def _link(app: Sphinx, page: str, target: str, identifier: str, words: str) -> nodes.reference:
    address = app.builder.get_relative_uri(page, target) if target != page else ""
    address += f"#{identifier}" if identifier else ""
    return nodes.reference("", words, refuri=address, internal=True)


def setup(app: Sphinx) -> dict[str, bool]:
    """Connect the extension to Sphinx."""
    app.connect("doctree-resolved", link_mentions)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
