"""A small Sphinx extension: entries of the API reference, made from docstrings, and links from code to them.

A list of names, one a line, becomes a table of their first sentences and, below it, an entry for each::

    ```{api} dmfkit
    Descent
    gradient_descent
    ```

Code on the pages then leads there, ``dm.Descent`` to the entry of ``dmfkit.Descent``. That is done here and not by
sphinx-codeautolink, because its release 0.20 stops at the sections without a title that sphinx-exercise makes, and
writes every page anew by another HTML parser.
"""

from __future__ import annotations

import importlib
import inspect
import re
from typing import Any

from docutils import nodes
from docutils.statemachine import StringList
from sphinx.application import Sphinx
from sphinx.domains.python import PyObject
from sphinx.util.docutils import SphinxDirective

# What the chapters call the modules whose names have entries.
MODULES = {"dm": "dmfkit", "theory": "dmfkit.theory", "interactive": "dmfkit.interactive"}
# As Pygments writes ``dm.Descent``.
_USE = re.compile(rf'<span class="n">({"|".join(MODULES)})</span><span class="o">\.</span><span class="n">(\w+)</span>')


class ApiEntries(SphinxDirective):
    """Show the entries of some public names of a module, in the order in which they are listed."""

    has_content = True
    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        module, names = self.arguments[0], [name.strip() for name in self.content if name.strip()]
        known = importlib.import_module(module)
        for name in names:
            if name.startswith("_") or not callable(getattr(known, name, None)):
                raise self.error(f"{module} has no public class or function {name!r}.")
        table = [".. autosummary::", "   :nosignatures:", "", *(f"   {name}" for name in names), ""]
        entries = [line for name in names for line in (f".. {_directive(getattr(known, name))}:: {name}", "")]
        # autodoc writes reStructuredText, and the pages are MyST.
        text = ["```{eval-rst}", f".. currentmodule:: {module}", "", *table, *entries, "```"]
        parent = nodes.Element()
        self.state.nested_parse(StringList(text, self.get_source_info()[0]), self.content_offset, parent)
        result: list[nodes.Node] = parent.children
        return result


def _directive(documented: object) -> str:
    """Return the directive of autodoc for a class or a function; a constant has no docstring of its own."""
    return "autoclass" if inspect.isclass(documented) else "autofunction"


def link_code(
    app: Sphinx,
    page: str,
    template: str,  # noqa: ARG001
    context: dict[str, Any],
    doctree: nodes.document | None,
) -> None:
    """Link the names in a page's code to their entries; Sphinx calls this for each page."""
    if doctree is None or "body" not in context:
        return
    entries = app.env.get_domain("py").objects  # type: ignore[attr-defined]

    def link(match: re.Match[str]) -> str:
        entry = entries.get(f"{MODULES[match[1]]}.{match[2]}")
        if entry is None:
            return match[0]
        address = f"{app.builder.get_relative_uri(page, entry.docname)}#{entry.node_id}"
        return f'<a class="dmfkit-entry" href="{address}">{match[0]}</a>'

    context["body"] = _USE.sub(link, context["body"])


def setup(app: Sphinx) -> dict[str, bool]:
    """Connect the extension to Sphinx."""
    app.add_directive("api", ApiEntries)
    # Sphinx calls "variables" what the docstrings call attributes.
    next(field for field in PyObject.doc_field_types if field.name == "variable").label = "Attributes"
    app.connect("html-page-context", link_code)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
