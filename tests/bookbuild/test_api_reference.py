"""The API reference: every public name has one entry, and code on the pages leads to it."""

import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest
from docutils.frontend import get_default_settings
from docutils.parsers.rst import Parser
from docutils.utils import new_document
from sphinx.ext.autosummary import extract_summary

import dmfkit
from bookbuild.api_reference import MODULES
from dmfkit import interactive, theory

ROOT = Path(__file__).parents[2]
LIST = re.compile(r"^```\{api\} (\S+)\n(.*?)^```", re.MULTILINE | re.DOTALL)
PAGE = """
# Entries

```{api} dmfkit
Descent
sweep
```

```python
runs = dm.sweep(task, start, dm.Descent(lr=0.1))
np.sweep
dm.unknown
```
"""
SETTINGS = """
extensions = ["myst_parser", "sphinx.ext.autosummary", "sphinx.ext.napoleon", "bookbuild.api_reference"]
html_theme = "basic"
default_role = "py:obj"
autosummary_generate = False
napoleon_use_ivar = True
"""


@pytest.mark.parametrize("module", [dmfkit, theory, interactive], ids=lambda module: module.__name__)
def test_every_public_class_and_function_is_listed_once(module):
    texts = [path.read_text(encoding="utf-8") for path in sorted((ROOT / "book").glob("api*.md"))]
    lists = [names for text in texts for name, names in LIST.findall(text) if name == module.__name__]
    public = [name for name in module.__all__ if callable(getattr(module, name))]
    assert sorted(" ".join(lists).split()) == sorted(public)


@pytest.mark.parametrize("module", [dmfkit, theory, interactive], ids=lambda module: module.__name__)
def test_the_first_sentence_of_a_docstring_is_not_cut_in_a_formula(module):
    # The list of entries shows it, and takes a point and a space for its end.
    document = new_document("entry", get_default_settings(Parser()))
    for name in module.__all__:
        if callable(public := getattr(module, name)):
            sentence = extract_summary(inspect.getdoc(public).splitlines(), document)
            assert sentence.count("``") % 2 == 0, f"{name}: {sentence}"


def test_every_module_with_entries_has_a_name_in_code():
    assert set(MODULES.values()) == {module.__name__ for module in (dmfkit, theory, interactive)}


# In a process of its own: Sphinx warns of nodes that are known already, those of another test's Sphinx too.
@pytest.fixture(scope="module")
def html(tmp_path_factory):
    folder = tmp_path_factory.mktemp("page")
    (folder / "index.md").write_text(PAGE, encoding="utf-8")
    (folder / "conf.py").write_text(SETTINGS, encoding="utf-8")
    out = folder / "out"
    command = [sys.executable, "-m", "sphinx", "-W", "-q", str(folder), str(out)]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    return (out / "index.html").read_text(encoding="utf-8")


def test_an_entry_says_what_the_docstring_says(html):
    assert 'id="dmfkit.sweep"' in html
    assert " ".join(inspect.getdoc(dmfkit.sweep).splitlines()[0].split()) in html
    assert re.search(r"Attributes.*?<strong>lr</strong>", html, re.DOTALL)


def test_known_names_in_code_lead_to_their_entries(html):
    links = re.findall(r'<a class="dmfkit-entry" href="(#[^"]+)">(.*?)</a>', html)
    shown = [(target, re.sub("<.*?>", "", text)) for target, text in links]
    assert shown == [("#dmfkit.sweep", "dm.sweep"), ("#dmfkit.Descent", "dm.Descent")]
