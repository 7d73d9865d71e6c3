"""Turn words of running text into links, leaving titles, formulas, code and what is a link already as they are."""

from __future__ import annotations

import re
from collections.abc import Callable

from docutils import nodes

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
