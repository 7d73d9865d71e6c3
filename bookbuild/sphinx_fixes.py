"""A small Sphinx extension that corrects markup which screen readers, or links, cannot use."""

from __future__ import annotations

import re
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx_proof.nodes import depart_unenumerable_node, unenumerable_node

# docutils marks the entries of a list of citations by a role that ARIA deprecates and no list may hold.
_OLD_ROLE = 'role="doc-biblioentry"'
_NEW_ROLE = 'role="listitem"'
# Sphinx writes the parameters of a long signature as the answers of a list that asks nothing, which no list may be.
_PARAMETERS = re.compile(r'(<span class="sig-paren">\(</span>\s*)<dl>(.*?)</dl>', re.DOTALL)
_TOGGLE = "Show or hide the pages below"
# After the theme has put its functions into the context.
_AFTER_THEME = 600
_SHARED_IDS = ("exercise-content", "solution-content", "proof-content")


def _as_lines(signature: re.Match[str]) -> str:
    """Return the parameters of a long signature as lines instead of a list."""
    lines = signature[2].replace("<dd>", '<span class="dmfkit-parameter">').replace("</dd>", "</span>")
    return f"{signature[1]}{lines}"


def correct_markup(
    app: Sphinx,  # noqa: ARG001
    page: str,  # noqa: ARG001
    template: str,  # noqa: ARG001
    context: dict[str, Any],
    doctree: object,  # noqa: ARG001
) -> None:
    """Correct roles and signatures in the body of a page; Sphinx calls this for each page."""
    if "body" in context:
        context["body"] = _PARAMETERS.sub(_as_lines, context["body"].replace(_OLD_ROLE, _NEW_ROLE))


def name_toggles(
    app: Sphinx,  # noqa: ARG001
    page: str,  # noqa: ARG001
    template: str,  # noqa: ARG001
    context: dict[str, Any],
    doctree: object,  # noqa: ARG001
) -> None:
    """Name what folds pages below another one in the side bar, which is a picture only in the theme."""
    if (contents := context.get("generate_toctree_html")) is not None:
        context["generate_toctree_html"] = lambda *arguments, **options: _named(contents(*arguments, **options))


def _named(contents: Any) -> Any:
    """Return the theme's tree of the side bar with a name for each toggle."""
    for toggle in contents.find_all("summary"):
        toggle["aria-label"] = _TOGGLE
    return contents


def drop_repeated_ids(app: Sphinx, doctree: nodes.document, page: str) -> None:  # noqa: ARG001
    """Take away the ids that sphinx-exercise and sphinx-proof give to all bodies of one kind alike, and to all proofs.

    Nothing links to them: references go to the labels of exercises and statements.
    """
    for section in doctree.findall(nodes.section):
        section["ids"] = [name for name in section["ids"] if name not in _SHARED_IDS]
    for box in doctree.findall(nodes.admonition):
        if "proof" in box["classes"]:
            box["ids"] = [name for name in box["ids"] if name != "proof"]


def visit_statement_without_number(translator: Any, node: nodes.Element) -> None:
    """Open the box of a statement that has no number, leaving its label as an id to its title.

    sphinx-proof writes the label on both, and finds the title by it when it closes the box.
    """
    box = node.copy()
    box["ids"] = []
    translator.body.append(translator.starttag(box, "div", CLASS="admonition"))


def setup(app: Sphinx) -> dict[str, bool]:
    """Connect the extension to Sphinx."""
    # Its node is replaced below, which asks that it be known already, whatever the order in the settings.
    app.setup_extension("sphinx_proof")
    app.add_node(unenumerable_node, override=True, html=(visit_statement_without_number, depart_unenumerable_node))
    app.connect("html-page-context", correct_markup)
    app.connect("html-page-context", name_toggles, priority=_AFTER_THEME)
    app.connect("doctree-resolved", drop_repeated_ids)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
