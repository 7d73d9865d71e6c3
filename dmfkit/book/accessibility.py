"""A small Sphinx extension that corrects markup which screen readers, or links, cannot use."""

from __future__ import annotations

from typing import Any

from docutils import nodes
from sphinx.application import Sphinx

# docutils marks the entries of a list of citations by a role that ARIA deprecates and no list may hold.
_OLD_ROLE = 'role="doc-biblioentry"'
_NEW_ROLE = 'role="listitem"'
_SHARED_IDS = ("exercise-content", "solution-content")


def correct_roles(
    app: Sphinx,  # noqa: ARG001
    page: str,  # noqa: ARG001
    template: str,  # noqa: ARG001
    context: dict[str, Any],
    doctree: object,  # noqa: ARG001
) -> None:
    """Correct the roles in the body of a page; Sphinx calls this for each page."""
    if "body" in context:
        context["body"] = context["body"].replace(_OLD_ROLE, _NEW_ROLE)


def drop_repeated_ids(app: Sphinx, doctree: nodes.document, page: str) -> None:  # noqa: ARG001
    """Take away the ids that sphinx-exercise gives to the bodies of all exercises and solutions alike.

    Nothing links to them: references go to the labels of the exercises.
    """
    for section in doctree.findall(nodes.section):
        section["ids"] = [name for name in section["ids"] if name not in _SHARED_IDS]


def setup(app: Sphinx) -> dict[str, bool]:
    """Connect the extension to Sphinx."""
    app.connect("html-page-context", correct_roles)
    app.connect("doctree-resolved", drop_repeated_ids)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
