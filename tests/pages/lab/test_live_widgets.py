"""Every live widget and every explorable in a real JupyterLab, driven once as a reader would."""

import json
import os
import re
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import nbformat
import pytest
import yaml

ROOT = Path(__file__).parents[3]
PRESET = yaml.safe_load((ROOT / "notebooks" / "presets" / "quick.yml").read_text(encoding="utf-8"))
STARTS, ANSWERS = 300, 300  # seconds at most; a busy machine is slow
# What every chapter runs before anything else.
FIRST = ("setup", "parameters", "check")


def tagged(tag):
    """Name of each chapter with cells of this tag, with their ids."""
    found = {}
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        cells = [cell.id for cell in nbformat.read(path, as_version=4).cells if tag in cell.metadata.get("tags", [])]
        if cells:
            found[path.stem] = cells
    return found


PANELS = tagged("panel")


def test_completion_sensing_and_compression_have_a_panel():
    assert {"01_matrix_completion", "07_matrix_sensing", "10_compressed_completion"} <= set(PANELS)


def excerpt(chapter, cells):
    """A notebook of a chapter's first cells, with the quick parameters, and some further cells."""
    notebook = nbformat.read(ROOT / "notebooks" / f"{chapter}.ipynb", as_version=4)
    kept = []
    for cell in notebook.cells:
        if cell.id in (*FIRST, *cells):
            kept.append(cell)
        if cell.id == "parameters":
            lines = "\n".join(f"{name} = {value!r}" for name, value in PRESET[chapter].items())
            kept.append(nbformat.v4.new_code_cell(f"# Parameters\n{lines}"))
    notebook.cells = kept
    return notebook


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """Address and folder of a running JupyterLab without password; it is stopped afterwards."""
    folder = tmp_path_factory.mktemp("lab")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = {
        "ServerApp.token": "",
        "ServerApp.password": "",
        "ServerApp.root_dir": folder,
        "ServerApp.port": port,
        "ServerApp.port_retries": 0,
        "ServerApp.ip": "127.0.0.1",
        "LabApp.news_url": "",
        "LabApp.check_for_updates_class": "jupyterlab.NeverCheckForUpdate",
    }
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root"]
    command += [f"--{name}={value}" for name, value in options.items()]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    with (folder / "lab.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env=environment)
        try:
            wait_for(f"http://127.0.0.1:{port}/api", process, folder / "lab.log")
            yield f"http://127.0.0.1:{port}", folder
        finally:
            process.terminate()
            process.wait(timeout=STARTS)


def wait_for(address, process, log):
    for _ in range(2 * STARTS):
        assert process.poll() is None, log.read_text(encoding="utf-8")
        try:
            urllib.request.urlopen(address, timeout=5).close()
        except OSError:
            time.sleep(0.5)
        else:
            return
    pytest.fail(log.read_text(encoding="utf-8"))


@pytest.fixture
def run(browser, lab):
    """Return a function that opens a notebook in JupyterLab, runs all its cells and returns the page."""
    address, folder = lab
    contexts = []

    def run(notebook, name):
        nbformat.write(notebook, folder / f"{name}.ipynb")
        # High enough for the whole notebook: JupyterLab does not draw cells far outside the window.
        context = browser.new_context(viewport={"width": 1280, "height": 3000})
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(1000 * ANSWERS)
        page.goto(f"{address}/doc/tree/{name}.ipynb?reset")
        page.locator(".jp-NotebookPanel [data-status=idle]").wait_for()
        first = page.locator(".jp-InputPrompt").first
        # JupyterLab forgets a command that comes before its own connection to the kernel stands.
        for _ in range(ANSWERS):
            if first.text_content().strip() != "[ ]:":
                break
            page.locator(".jp-Notebook .jp-CodeCell .cm-content").first.click()
            page.get_by_role("menuitem", name="Run", exact=True).click()
            page.get_by_role("menuitem", name="Run All Cells", exact=True).click()
            page.wait_for_timeout(1000)
        return page

    yield run
    for context in contexts:
        context.close()


def reported(text):
    """Number of gradients that a panel's text tells of."""
    return int(re.search(r"(\d+) gradients", text)[1])


@pytest.mark.parametrize("chapter", PANELS)
def test_a_panel_trains_stops_and_changes(run, chapter):
    page = run(excerpt(chapter, PANELS[chapter]), chapter)
    text = page.locator(".jp-OutputArea-output [role=status]")
    train, stop = (page.get_by_role("button", name=name) for name in ("Train", "Stop"))
    text.filter(has_text="press Train").wait_for()
    train.click()
    text.filter(has_text="The training loss fell below the stopping value.").wait_for()
    first = text.text_content()
    assert page.locator(".jp-OutputArea-output img.widget-image").evaluate("image => image.naturalWidth") > 300
    # Every slider moves by keyboard, and what it sets is in the next run's text.
    slider = page.locator(".widget-hslider", has_text="depth").locator(".noUi-handle")
    slider.focus()
    slider.press("Home")
    lowest = page.locator(".widget-hslider", has_text="depth").locator(".widget-readout").text_content()
    # Descent at the smallest rate takes long enough to be stopped.
    page.get_by_label("method").select_option("gradient descent")
    rate = page.locator(".widget-hslider", has_text="lr").locator(".noUi-handle")
    rate.focus()
    rate.press("Home")
    train.click()
    text.filter(has_text=f"depth {lowest}").filter(has_text="Training.").wait_for()
    stop.click()
    text.filter(has_text="Stopped.").wait_for()
    stopped = text.text_content()
    page.wait_for_timeout(700)
    assert text.text_content() == stopped
    assert reported(stopped) > 0
    assert stopped != first
    assert train.is_enabled()


def test_explorables_answer_in_jupyterlab_too(run):
    notebook = excerpt("06_one_measurement", ["explore-gap"])
    notebook.cells.insert(
        -1,
        nbformat.v4.new_code_cell(
            "alpha, equal = p.strength_ratio, {'first_0': p.start_value, 'second_0': p.start_value}"
        ),
    )
    page = run(notebook, "explorable")
    root = page.locator("[data-explorable=depth-gap]")
    root.wait_for()
    before = root.evaluate("root => root.values")
    slider = root.get_by_label("depth N")
    slider.focus()
    slider.press("End")
    after = root.evaluate("root => root.values")
    assert json.dumps(after) != json.dumps(before)
    assert after["depth"] > before["depth"]
    assert after["level"] < before["level"]
    assert not page.locator(".jp-OutputArea img").count(), "the picture is for front ends that cannot show the widget"
