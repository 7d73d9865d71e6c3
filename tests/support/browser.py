"""A browser for the tests: found, fetched by ``python -m tests.support.browser``, or missed in a run's last line.

Looked for are a Chromium or Chrome on the PATH and the one that Playwright installs; fetched are Playwright's, and as
root the system's package. As a plugin of pytest it gives the fixture `browser` and marks the tests that need it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
MISSING = (
    "NOT TESTED IN A BROWSER: none of " + ", ".join(NAMES) + " is on the PATH and Playwright has none; "
    "install one, for example by 'apt-get install chromium' or '.venv/bin/python -m playwright install chromium'."
)
# A download of some 150 MB over a slow line; without a network it fails within seconds.
DOWNLOAD_SECONDS = 900


def on_the_path() -> str | None:
    """The system's browser."""
    return next((found for name in NAMES if (found := shutil.which(name)) and starts(found)), None)


def of_playwright() -> str | None:
    """The browser that Playwright has installed for this version of itself."""
    place = place_of_playwright()
    return place if place and Path(place).exists() and starts(place) else None


def place_of_playwright() -> str:
    """Where Playwright would install its browser; empty without Playwright."""
    # In a process of its own: where a page is open already, in this one, Playwright cannot be started again.
    code = "from playwright.sync_api import sync_playwright\n"
    code += "with sync_playwright() as playwright: print(playwright.chromium.executable_path)"
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False).stdout.strip()


def starts(path: str) -> bool:
    """Whether the program runs at all: a downloaded one may miss libraries, a package may be an empty shell."""
    try:
        return subprocess.run([path, "--version"], capture_output=True, check=False, timeout=120).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


def find(places: Sequence[Callable[[], str | None]] = (on_the_path, of_playwright)) -> str | None:
    """Path of a browser that starts, or None."""
    return next((found for place in places if (found := place()) is not None), None)


def from_playwright() -> None:
    """Let Playwright download its own."""
    command = [sys.executable, "-m", "playwright", "install", "--no-shell", "chromium"]
    quietly(command, PLAYWRIGHT_DOWNLOAD_CONNECTION_TIMEOUT="10000")


def from_the_system() -> None:
    """Install the system's package, where there is apt and we are root or may be without a password."""
    if shutil.which("apt-get") is None:
        return
    as_root = [] if os.geteuid() == 0 else ["sudo", "-n"]
    for command in (
        ["apt-get", "update", "-qq"],
        ["apt-get", "install", "-y", "-qq", "--no-install-recommends", "chromium"],
    ):
        quietly([*as_root, *command], DEBIAN_FRONTEND="noninteractive")


def quietly(command: Sequence[str], **variables: str) -> None:
    """Run a command that may fail, for whatever reason; whether it helped is seen by what is there afterwards."""
    try:
        subprocess.run(
            command,
            env={**os.environ, **variables},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
            timeout=DOWNLOAD_SECONDS,
        )
    except (OSError, subprocess.TimeoutExpired):
        return


def find_or_fetch(
    look: Callable[[], str | None] = find,
    sources: Sequence[Callable[[], None]] = (from_playwright, from_the_system),
) -> str | None:
    """Path of a browser, fetched if need be, or None where none can be had."""
    found = look()
    for source in sources:
        if found is None:
            source()
            found = look()
    return found


# A plugin of pytest.

_WAS_MISSED = pytest.StashKey[bool]()


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """A browser of Playwright's kind; skips the test where there is none."""
    path = find()
    if path is None:
        pytest.skip(MISSING)
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=path, args=list(FLAGS))
        yield opened
        opened.close()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what needs a browser, by its fixtures."""
    for item in items:
        if "browser" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.browser)


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Note whether a test was skipped for want of a browser."""
    skipped = terminalreporter.stats.get("skipped", ())
    config.stash[_WAS_MISSED] = any(MISSING in str(report.longrepr) for report in skipped)


@pytest.hookimpl(trylast=True)
def pytest_unconfigure(config: pytest.Config) -> None:
    """Say in the last line of all what could not be tested; the exit status stays."""
    if config.stash.get(_WAS_MISSED, False):
        print(f"*** {MISSING} ***", flush=True)


if __name__ == "__main__":
    print(find_or_fetch() or MISSING)
