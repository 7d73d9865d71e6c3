"""What several files say of the project is the same in all of them: its version, licence and supported Pythons."""

import tomllib
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[2]
SETTINGS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PROJECT = SETTINGS["project"]


def test_every_supported_python_is_named_and_tested():
    prefix = "Programming Language :: Python :: 3."
    supported = [f"3.{text.removeprefix(prefix)}" for text in PROJECT["classifiers"] if text.startswith(prefix)]
    lowest = supported[0]
    assert PROJECT["requires-python"] == f">={lowest}"
    assert SETTINGS["tool"]["ruff"]["target-version"] == f"py{lowest.replace('.', '')}"
    assert SETTINGS["tool"]["mypy"]["python_version"] == lowest
    assert f"Python {lowest} or newer" in (ROOT / "README.md").read_text(encoding="utf-8")
    jobs = yaml.safe_load((ROOT / ".github/workflows/book.yml").read_text(encoding="utf-8"))["jobs"]
    assert jobs["check"]["strategy"]["matrix"]["python"] == supported


def test_the_citation_and_the_changelog_have_the_version_and_the_licence():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert str(citation["version"]) == PROJECT["version"]
    assert citation["license"] == PROJECT["license"]
    assert [one["name"] for one in citation["authors"]] == [one["name"] for one in PROJECT["authors"]]
    assert f"## [{PROJECT['version']}]" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_the_citation_names_both_papers_as_the_bibliography_does():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    bibliography = (ROOT / "book/references.bib").read_text(encoding="utf-8")
    assert len(citation["references"]) == 2
    for reference in citation["references"]:
        names = " and ".join(f"{one['family-names']}, {one['given-names']}" for one in reference["authors"])
        assert f"author    = {{{names}}},\n  title     = {{{reference['title']}}}," in bibliography
