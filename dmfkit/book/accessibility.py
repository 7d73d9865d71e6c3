"""A small Sphinx extension that corrects markup which screen readers cannot use."""

from __future__ import annotations

from typing import Any

from sphinx.application import Sphinx

# docutils marks the entries of a list of citations by a role that ARIA deprecates and no list may hold.
_OLD_ROLE = 'role="doc-biblioentry"'
_NEW_ROLE = 'role="listitem"'


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


def setup(app: Sphinx) -> dict[str, bool]:
    """Connect the extension to Sphinx."""
    app.connect("html-page-context", correct_roles)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
