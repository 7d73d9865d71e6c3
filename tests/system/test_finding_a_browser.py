"""A test run finds a browser, or fetches one, or says in its last line that it had none."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import browser as finder
import pytest

TESTS = Path(finder.__file__).parent
NEEDS_ONE = """
def test_passes():
    pass

def test_needs_one(browser):
    assert browser.version
"""


def program(folder, name, code=0):
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_text(f"#!/bin/sh\nexit {code}\n")
    path.chmod(0o755)
    return str(path)


@pytest.mark.parametrize("name", finder.NAMES)
def test_each_name_on_the_path_is_found(name, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    assert finder.on_the_path() is None
    path = program(tmp_path / "bin", name)
    assert finder.on_the_path() == path


def test_one_that_does_not_start_is_passed_over(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    program(tmp_path / "bin", "chromium", code=1)
    path = program(tmp_path / "bin", "google-chrome")
    assert finder.on_the_path() == path


def test_that_of_playwright_is_found_where_it_installs_it(tmp_path, monkeypatch):
    monkeypatch.setenv("PLAYWRIGHT_BROWSERS_PATH", str(tmp_path))
    assert finder.of_playwright() is None
    path = Path(finder.place_of_playwright())
    path.parent.mkdir(parents=True)
    program(path.parent, path.name)
    assert finder.of_playwright() == str(path)


def test_sources_are_asked_in_turn_until_there_is_one():
    asked, there = [], []

    def look():
        return there[0] if there else None

    def fails():
        asked.append("first")

    def works():
        asked.append("second")
        there.append("/a/browser")

    def unneeded():
        asked.append("third")

    assert finder.find_or_fetch(look, (fails, works, unneeded)) == "/a/browser"
    assert asked == ["first", "second"]
    assert finder.find_or_fetch(look, (fails,)) == "/a/browser"
    assert asked == ["first", "second"]
    assert finder.find_or_fetch(lambda: None, (fails,)) is None


def test_a_source_that_fails_says_nothing(capfd, monkeypatch, tmp_path):
    finder.quietly(["/no/such/program"])
    finder.quietly([sys.executable, "-c", "import sys; sys.exit('much noise')"])
    # Neither Playwright's download nor apt.
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(finder.subprocess, "run", lambda *_, **__: pytest.fail("there is no apt-get"))
    finder.from_the_system()
    assert capfd.readouterr() == ("", "")


@pytest.mark.slow
@pytest.mark.parametrize("processes", ["0", "2"])
def test_without_a_browser_the_last_line_says_so_and_the_rest_passes(processes, tmp_path):
    (tmp_path / "test_it.py").write_text(NEEDS_ONE)
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers =\n    browser: needs a browser\n")
    environment = {
        **os.environ,
        "PATH": str(tmp_path / "nothing"),
        "PLAYWRIGHT_BROWSERS_PATH": str(tmp_path / "nothing"),
        "PYTHONPATH": str(TESTS),
    }
    command = [sys.executable, "-m", "pytest", "-p", "browser", "-q", "-n", processes, "test_it.py"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 passed, 1 skipped" in done.stdout
    assert done.stdout.splitlines()[-1] == f"*** {finder.MISSING} ***"
    chosen = subprocess.run(
        [*command, "-m", "not browser"], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert chosen.returncode == 0
    assert "NOT TESTED" not in chosen.stdout
