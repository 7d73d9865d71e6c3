"""The markup of statements, proofs and exercises: every label is one id, and no id occurs twice."""

import re
from collections import Counter

import pytest
from sphinx.application import Sphinx

PAGE = """
# Proof

```{prf:theorem} First
:label: thm-first
:nonumber:
One.
```

```{prf:proof}
Two.
```

```{prf:lemma} Second
:label: lem-second
Three.
```

```{prf:proof}
Four.
```

```{prf:remark}
:nonumber:
Five.
```

```{exercise}
:label: ex-third
Six.
```

```{exercise}
:label: ex-fourth
Seven.
```

{prf:ref}`First <thm-first>`, {prf:ref}`lem-second`, {ref}`ex-third`
"""
EXTENSIONS = ["myst_parser", "sphinx_proof", "sphinx_exercise", "bookbuild.sphinx_fixes"]


# Once in a process: a second Sphinx in it would warn that the nodes of sphinx-proof are known already.
@pytest.fixture(scope="session")
def html(tmp_path_factory):
    folder = tmp_path_factory.mktemp("page")
    (folder / "index.md").write_text(PAGE, encoding="utf-8")
    out = folder / "out"
    settings = {"extensions": EXTENSIONS, "html_theme": "basic"}
    Sphinx(folder, None, out, out, "html", confoverrides=settings, status=None, warningiserror=True).build()
    return (out / "index.html").read_text(encoding="utf-8")


def test_every_label_is_one_id_and_no_id_occurs_twice(html):
    ids = Counter(re.findall(r' id="([^"]+)"', html))
    assert {name for name, n in ids.items() if n > 1} == set()
    assert {"thm-first", "lem-second", "ex-third", "ex-fourth"} <= set(ids)
    assert set(re.findall(r'href="#((?:thm|lem|ex)-[^"]+)"', html)) == {"thm-first", "lem-second", "ex-third"}


def test_a_heading_keeps_its_id_and_a_statement_its_word(html):
    assert '<section id="proof">' in html
    assert re.search(r'<span class="caption-number">Theorem </span> \(First\)', html)
    assert html.count('class="proof theorem admonition"') == 1
