"""A small Sphinx extension: the first use of each glossary term in a chapter is a link that carries the definition."""

from __future__ import annotations

import json
import re
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx

from bookbuild.sphinx_links import link_in_text

PAGE = "book/glossary"
_CHAPTERS = "notebooks/"


def pattern_of(term: str) -> str:
    """Return what to look for: the term, its plural, with spaces or hyphens between its words."""
    words = r"[\s-]+".join(map(re.escape, re.split(r"[\s-]", term)))
    return re.sub(r"matrix$", "matri(?:x|ces)", words) if term.endswith("matrix") else words + "s?"


def link_first_uses(app: Sphinx, doctree: nodes.document, page: str) -> None:
    """Link the first use of each term on a page; Sphinx calls this for each page."""
    if not page.startswith(_CHAPTERS):
        return
    anchors = {
        name: anchor for name, _, kind, _, anchor, _ in app.env.get_domain("std").get_objects() if kind == "term"
    }
    if not anchors:
        return
    used = {anchor for link in doctree.findall(nodes.reference) if (anchor := _anchor(link))}
    # The longest first, so that "compressed factorization" is not cut short by a part of it.
    terms = sorted(anchors, key=len, reverse=True)
    groups = "|".join(f"(?P<t{number}>{pattern_of(term)})" for number, term in enumerate(terms))

    def replace(match: re.Match[str], text: nodes.Text) -> list[nodes.Node]:  # noqa: ARG001
        anchor = anchors[terms[int(str(match.lastgroup)[1:])]]
        if anchor in used:
            return []
        used.add(anchor)
        address = f"{app.builder.get_relative_uri(page, PAGE)}#{anchor}"
        return [nodes.reference("", match[0], refuri=address, internal=True, classes=["dmfkit-term"])]

    link_in_text(doctree, re.compile(rf"\b(?:{groups})\b", re.IGNORECASE), replace)


def definitions(app: Sphinx) -> dict[str, tuple[str, str]]:
    """Return the glossary: anchor of a term -> its name and the first paragraph of its definition, as plain text."""
    found = {}
    for item in app.env.get_doctree(PAGE).findall(nodes.definition_list_item):
        paragraph = next(item.findall(nodes.paragraph))
        for term in item.findall(nodes.term):
            found[term["ids"][0]] = (term.astext(), " ".join(paragraph.astext().split()))
    return found


def add_definitions(
    app: Sphinx,
    page: str,  # noqa: ARG001
    template: str,  # noqa: ARG001
    context: dict[str, Any],
    doctree: nodes.document | None,
) -> None:
    """Write into a page the definitions of the terms that it links to, as JSON for the page's script."""
    if doctree is None or PAGE not in app.env.found_docs:
        return
    used = {anchor for link in doctree.findall(nodes.reference) if (anchor := _anchor(link))}
    if used:
        known = definitions(app)
        # In a script element only "</" could end the data early.
        data = json.dumps({anchor: known[anchor] for anchor in sorted(used)}, ensure_ascii=False).replace("</", "<\\/")
        context["body"] += f'<script type="application/json" id="dmfkit-glossary">{data}</script>'


def _anchor(link: nodes.reference) -> str:
    """Return the anchor of the glossary's term to which a link leads; empty for other links."""
    result: str = link.get("refuri", "").partition("glossary.html#")[2]
    return result


def setup(app: Sphinx) -> dict[str, bool]:
    """Connect the extension to Sphinx."""
    app.connect("doctree-resolved", link_first_uses)
    app.connect("html-page-context", add_definitions)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
