"""The marked code blocks of a page, which tests run as they stand."""

from __future__ import annotations

import re
from pathlib import Path

_BLOCK = re.compile(r"<!-- tested: (\S+) -->\n```(\w+)\n(.*?)```", re.DOTALL)


def recipes(page: Path) -> dict[str, tuple[str, str]]:
    """Return the language and the text of every block marked `<!-- tested: NAME -->`, by name, in the page's order."""
    found = _BLOCK.findall(page.read_text(encoding="utf-8"))
    blocks = {name: (language, text) for name, language, text in found}
    assert len(blocks) == len(found), "two blocks have the same name"
    return blocks
