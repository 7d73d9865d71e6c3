"""The markup of statements, proofs, exercises and signatures: labels are ids, no id occurs twice, lists are lists."""

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

```{eval-rst}
.. py:function:: long_name(first, second)
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
    settings = {"extensions": EXTENSIONS, "html_theme": "basic", "maximum_signature_line_length": 10}
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


def test_the_parameters_of_a_long_signature_are_lines_and_no_list(html):
    shown = re.search(r'<dt class="sig.*?</dt>', html, re.DOTALL)[0]
    assert re.findall(r'<span class="dmfkit-parameter">.*?class="pre">(\w+)<.*?,</span>', shown) == ["first", "second"]
    assert "<dl>" not in shown
    assert "<dd>" not in shown
