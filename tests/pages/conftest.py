"""The built book that the tests of this folder look at."""

import fcntl
import functools
import subprocess
import sys
import threading
from contextlib import contextmanager
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from bookbuild import Layout

ROOT = Path(__file__).parents[2]
SOURCES = ("book", "bookbuild", "dmfkit", "notebooks", "_config.yml", "_toc.yml", "pyproject.toml")
LEFT_BY_RUNNING = ("__pycache__", ".ipynb_checkpoints")


@pytest.fixture(scope="session")
def layout():
    """The book under the quick preset, built where there is none or an older one than its sources."""
    layout = Layout(ROOT, ROOT / "_build" / "test")
    layout.output.mkdir(parents=True, exist_ok=True)
    # With several test processes the first one builds and the others wait for it.
    with (layout.output / ".test-lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not is_current(layout):
            command = [
                sys.executable,
                "-m",
                "bookbuild",
                "book",
                "--preset",
                "quick",
                "--output",
                str(layout.output),
            ]
            result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
            assert result.returncode == 0, result.stderr
    return layout


def is_current(layout):
    # Written last.
    result = layout.output / "claims.json"
    if not result.exists() or not layout.html.exists():
        return False
    built = result.stat().st_mtime
    paths = [path for name in SOURCES for path in [ROOT / name, *(ROOT / name).rglob("*")]]
    sources = [path for path in paths if path.is_file() and not set(path.parts) & set(LEFT_BY_RUNNING)]
    return all(path.stat().st_mtime < built for path in sources)


@pytest.fixture(scope="session")
def pages(layout):
    """The paths of all HTML pages."""
    return sorted(path for path in layout.html.rglob("*.html") if "_static" not in path.parts)


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *arguments):
        pass


@contextmanager
def serve(folder):
    """Serve a folder on this machine and give its address."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="session")
def address(layout):
    with serve(layout.html) as found:
        yield found
