"""What the sources import is declared: in pyproject.toml for an installation, in requirements.txt for the tests."""

import ast
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
BUILD = tomllib.loads((ROOT / "bookbuild" / "pyproject.toml").read_text(encoding="utf-8"))
# The extras that a folder's optional parts may need, beside what is always installed, and whether it comes with the
# tool that builds the book.
FOLDERS = {
    "dmfkit": (("cluster", "files", "ode"), False),
    "bookbuild": ((), True),
    "benchmarks": (("benchmarks", "cluster"), True),
}
OURS = {"dmfkit", "bookbuild", "benchmarks", "tests", "tools"}
# What a test imports to see what happens where it is missing.
ABSENT = {"absent_here"}


def names(requirements):
    return {canonicalize_name(Requirement(text).name) for text in requirements}


def pins():
    lines = (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    requirements = [Requirement(line) for line in lines if line and not line.startswith("#")]
    return {canonicalize_name(one.name): one.specifier for one in requirements}


def declared(extras, build):
    optional = PROJECT["project"]["optional-dependencies"]
    required = [*PROJECT["project"]["dependencies"], *(BUILD["project"]["dependencies"] if build else ())]
    return names([*required, *(text for extra in extras for text in optional[extra])])


def imported(folder):
    """Distribution -> the files that import it, for what is neither Python's own nor this project's."""
    distributions = packages_distributions()
    own = OURS | {path.stem for path in (ROOT / folder).rglob("*.py")} if folder == "tests" else OURS
    found = {}
    for path in (ROOT / folder).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and not node.level:
                modules = [node.module]
            for top in {module.partition(".")[0] for module in modules} - own - ABSENT - sys.stdlib_module_names:
                # What is not installed here, such as an extra's library, is called as it is imported.
                name = canonicalize_name(distributions.get(top, [top])[0])
                found.setdefault(name, set()).add(path.relative_to(ROOT).as_posix())
    return found


@pytest.mark.parametrize("folder", FOLDERS)
def test_whoever_installs_a_folder_gets_what_it_imports(folder):
    missing = imported(folder).keys() - declared(*FOLDERS[folder])
    # On failure, add the distribution to pyproject.toml: to the dependencies, or to an extra that the folder may need.
    assert {name: sorted(imported(folder)[name]) for name in missing} == {}


def test_what_the_tests_import_is_pinned():
    missing = imported("tests").keys() - pins().keys()
    # On failure, add its exact version to requirements.txt.
    assert {name: sorted(imported("tests")[name]) for name in missing} == {}


def test_pins_are_exact_and_within_the_ranges_that_are_promised():
    ranges = [Requirement(text) for project in (PROJECT, BUILD) for text in project["project"]["dependencies"]]
    for extra in PROJECT["project"]["optional-dependencies"].values():
        ranges += map(Requirement, extra)
    for name, specifier in pins().items():
        assert [one.operator for one in specifier] == ["=="], name
    outside = {
        str(one): str(pins()[name])
        for one in ranges
        if (name := canonicalize_name(one.name)) in pins()
        and not one.specifier.contains(next(iter(pins()[name])).version, prereleases=True)
    }
    assert outside == {}


def test_commits_are_checked_by_the_pinned_tools():
    hooks = [
        hook
        for repository in yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))["repos"]
        for hook in repository["hooks"]
    ]
    scripts = {
        "check-merge-conflict": "pre-commit-hooks",
        "check-toml": "pre-commit-hooks",
        "check-yaml": "pre-commit-hooks",
        "end-of-file-fixer": "pre-commit-hooks",
        "trailing-whitespace-fixer": "pre-commit-hooks",
    }
    for hook in hooks:
        folder, _, program = hook["entry"].split()[0].rpartition("/")
        # Of the project's own environment, so that there is one version of each, the one in requirements.txt.
        assert folder == ".venv/bin", hook["id"]
        assert scripts.get(program, program) in pins(), hook["id"]
