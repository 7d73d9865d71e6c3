"""The build: presets, failing cells, staging; with tiny notebooks in a temporary folder."""

import signal
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
import xarray as xr
import yaml
from nbformat import v4
from processes import ENDLESS, PATIENCE, alive, wait_until
from small_chapters import write_chapter

from bookbuild import Layout, build
from bookbuild.build import execute, longest_first, publish_results, render
from bookbuild.outputs import strip, strip_file
from bookbuild.pages import fill, find_cover, reduce_contents, stage, write_cards, write_frontispiece
from bookbuild.project import BuildError, find_chapters, only_one_in, read_preset, with_recompute
from dmfkit.errors import InputError
from dmfkit.experiments.store import write

ROOT = Path(__file__).parents[2]
PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAQAAAC1HAwCAAAAC0lEQVR42mNk+A8AAQUBAScY42YAAAAASUVORK5CYII="


def write_preset(root, content):
    (root / "notebooks" / "presets" / "quick.yml").write_text(yaml.safe_dump(content))


@pytest.fixture
def layout(tmp_path):
    """A project with two chapters that run for no time at all."""
    write_chapter(tmp_path, "01_first", "print(d)")
    write_chapter(tmp_path, "05_second", "x = 1", parameters="depths = [\n    2,  # the paper's\n    3,\n]\nlr = 1e-3")
    write_preset(tmp_path, {"01_first": {"d": 40}, "05_second": {"depths": [2], "lr": 1.0}})
    return Layout(tmp_path, tmp_path / "_build")


def test_a_preset_gives_each_chapter_its_parameters(layout):
    chapters = find_chapters(layout)
    assert read_preset(layout, "paper", chapters) == {"01_first": {}, "05_second": {}}
    assert read_preset(layout, "quick", chapters) == {
        "01_first": {"d": 40},
        "05_second": {"depths": [2], "lr": 1.0},
    }


def test_recompute_is_passed_to_the_chapters_that_have_it(layout):
    write_chapter(layout.root, "07_stored", parameters="d = 3\nrecompute = False")
    chapters = find_chapters(layout, ["01", "07"])
    parameters = with_recompute({"01_first": {"d": 40}, "07_stored": {"d": 4}}, chapters)
    assert parameters == {"01_first": {"d": 40}, "07_stored": {"d": 4, "recompute": True}}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"01_first": {}, "05_second": {}, "09_none": {}}, r"'09_none'.*01_first, 05_second"),
        ({"01_first": {}}, "lacks the chapter '05_second'"),
        ({"01_first": {"dd": 40}, "05_second": {}}, r"01_first the parameter 'dd'.* are d\."),
        (["01_first"], "must map"),
        ({"01_first": 40, "05_second": {}}, "must map"),
    ],
)
def test_a_wrong_preset_file_is_refused(layout, content, message):
    write_preset(layout.root, content)
    with pytest.raises(InputError, match=message):
        read_preset(layout, "quick", find_chapters(layout))


def test_an_unknown_preset_is_answered_with_those_that_exist(layout):
    with pytest.raises(InputError, match=r"'slow'.*paper, quick"):
        build(layout, preset="slow")
    assert not layout.output.exists()


def test_only_selects_by_the_beginning_of_the_name(layout):
    assert [path.stem for path in find_chapters(layout, ["05"])] == ["05_second"]
    assert [path.stem for path in find_chapters(layout, ["05", "01_first"])] == ["01_first", "05_second"]
    with pytest.raises(InputError, match=r"'7'.*01_first, 05_second"):
        build(layout, only=["7"])


def test_a_folder_without_chapters_and_zero_jobs_are_refused(layout, tmp_path):
    with pytest.raises(InputError, match="no chapter"):
        build(Layout(tmp_path / "elsewhere", tmp_path / "_build"))
    with pytest.raises(InputError, match="jobs = 0"):
        build(layout, jobs=0)


@pytest.mark.kernel
def test_a_failing_cell_fails_the_build_after_the_other_chapters(tmp_path):
    write_chapter(tmp_path, "01_bad", "x = 1", "# the bad cell\n1 / 0", "print('never reached')")
    write_chapter(tmp_path, "05_good", "print(d)")
    write_preset(tmp_path, {"01_bad": {"d": 3}, "05_good": {"d": 4}})
    html = tmp_path / "_build" / "html" / "index.html"
    html.parent.mkdir(parents=True)
    html.write_text("an older book")
    result = run_build(tmp_path, "--preset", "quick", "--jobs", "2")
    assert result.returncode == 1
    # The title, the parameters and one cell come before the bad one.
    assert "01_bad, cell 4 (id code-1: '# the bad cell') failed:" in result.stderr
    assert "ZeroDivisionError: division by zero" in result.stderr
    good = nbformat.read(tmp_path / "_build" / "executed" / "05_good.ipynb", as_version=4)
    assert good.cells[-1].outputs[0].text == "4\n"
    assert html.read_text() == "an older book"


@pytest.mark.slow
def test_a_mistake_on_the_command_line_is_one_sentence(layout):
    result = run_build(layout.root, "--preset", "slow")
    assert result.returncode == 2
    assert result.stderr.strip().count("\n") == 0
    assert "There is no preset 'slow'" in result.stderr


@pytest.mark.kernel
def test_a_mistake_in_an_injected_parameter_is_named_with_its_cell_and_in_one_sentence(tmp_path):
    write_chapter(tmp_path, "01_first", "from dmfkit import InputError\nraise InputError('d is too small.')")
    layout = Layout(tmp_path, tmp_path / "_build")
    (failure,) = execute(layout, find_chapters(layout), {"01_first": {"d": 1}}, jobs=1)
    assert failure == (
        "01_first, cell 3 (id code-0: 'from dmfkit import InputError') failed:\n    InputError: d is too small."
    )


@pytest.mark.kernel
def test_a_dead_kernel_is_reported_with_its_cell(tmp_path):
    write_chapter(tmp_path, "01_dies", "import os\nos._exit(3)")
    layout = Layout(tmp_path, tmp_path / "_build")
    failures = execute(layout, find_chapters(layout), {"01_dies": {}}, jobs=1)
    assert len(failures) == 1
    assert "01_dies, cell 3 (id code-0: 'import os')" in failures[0]
    assert "Kernel died" in failures[0]


@pytest.mark.kernel
def test_a_killed_process_fails_its_own_notebook_only(tmp_path):
    write_chapter(tmp_path, "01_killed", "import os, signal\nos.kill(os.getppid(), signal.SIGKILL)")
    write_chapter(tmp_path, "02_good", "print(d)")
    layout = Layout(tmp_path, tmp_path / "_build")
    (failure,) = execute(layout, find_chapters(layout), {"01_killed": {}, "02_good": {"d": 7}}, jobs=2)
    assert "01_killed, cell 3 (id code-0: 'import os, signal') failed:" in failure
    good = nbformat.read(layout.executed_notebook("02_good"), as_version=4)
    assert good.cells[-1].outputs[0].text == "7\n"


@pytest.mark.kernel
def test_an_interrupted_build_stops_its_kernels_and_keeps_the_older_book(tmp_path):
    marker = tmp_path / "kernel.pid"
    write_chapter(
        tmp_path,
        "01_long",
        "import os, pathlib, time",
        f"pathlib.Path({str(marker)!r}).write_text(str(os.getpid()))\ntime.sleep({ENDLESS})",
    )
    html = tmp_path / "_build" / "html" / "index.html"
    html.parent.mkdir(parents=True)
    html.write_text("an older book")
    process = subprocess.Popen(command(tmp_path), stderr=subprocess.PIPE, stdout=subprocess.PIPE)
    wait_until(lambda: marker.exists() and marker.read_text())
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=PATIENCE)
    assert process.returncode != 0
    kernel = int(marker.read_text())
    wait_until(lambda: not alive(kernel))
    assert html.read_text() == "an older book"


def test_two_builds_cannot_share_an_output_folder(layout):
    with only_one_in(layout.output, "build"), pytest.raises(InputError, match="Another build"):
        build(layout)


@pytest.mark.kernel
def test_staging_reduces_the_contents_and_marks_injected_parameters(layout):
    execute(layout, find_chapters(layout, ["01"]), {"01_first": {"d": 40}}, jobs=1)
    (layout.root / "book").mkdir()
    (layout.root / "book" / "intro.md").write_text("# Title\n\n% generated: cover\n")
    (layout.root / "LICENSE").write_text("x\n")
    contents = {
        "format": "jb-book",
        "root": "book/intro",
        "parts": [
            {"caption": "I", "chapters": [{"file": "notebooks/01_first"}]},
            {"caption": "II", "chapters": [{"file": "notebooks/05_second"}]},
            {"caption": "Reference", "chapters": [{"file": "book/licence"}]},
        ],
    }
    (layout.root / "_toc.yml").write_text(yaml.safe_dump(contents))
    stage(layout, ["01_first"], "quick", {"cover": "a picture"})
    staged = yaml.safe_load((layout.stage / "_toc.yml").read_text())
    assert [part["caption"] for part in staged["parts"]] == ["I", "Reference"]
    assert (layout.stage / "book" / "intro.md").read_text() == "# Title\n\na picture\n"
    cells = nbformat.read(layout.stage / "notebooks" / "01_first.ipynb", as_version=4).cells
    injected = next(n for n, cell in enumerate(cells) if "injected-parameters" in cell.metadata.get("tags", []))
    assert "preset *quick*" in cells[injected - 1].source
    assert "d = 40" in cells[injected].source


def test_a_chapter_outside_the_contents_and_an_unknown_placeholder_are_errors():
    contents = {"parts": [{"caption": "I", "chapters": [{"file": "notebooks/01_first"}]}]}
    with pytest.raises(InputError, match=r"05_second.*_toc"):
        reduce_contents(contents, ["01_first", "05_second"])
    with pytest.raises(InputError, match=r"intro\.md.*'covr'.*cover"):
        fill("% generated: covr", {"cover": ""}, "intro.md")


def test_rendering_fails_with_every_warning_and_leaves_the_older_book(layout):
    layout.html.mkdir(parents=True)
    (layout.html / "index.html").write_text("an older book")
    layout.stage.mkdir()
    (layout.stage / "_config.yml").write_text("title: x\n")
    (layout.stage / "_toc.yml").write_text("format: jb-book\nroot: intro\nchapters: [{file: second}]\n")
    (layout.stage / "intro.md").write_text("# One\n\nSee {ref}`nowhere`.\n")
    (layout.stage / "second.md").write_text("# Two\n\nSee {ref}`nowhere-else`.\n")
    with pytest.raises(BuildError) as caught:
        render(layout)
    assert "intro.md:3: WARNING: undefined label: 'nowhere'" in str(caught.value)
    assert "second.md:3: WARNING: undefined label: 'nowhere-else'" in str(caught.value)
    assert (layout.html / "index.html").read_text() == "an older book"


def write_executed(folder, metadata, outputs, number=1):
    """An executed notebook with one cell, and one more of the same kind for each further number."""
    cells = [v4.new_markdown_cell("# A <title>", id="title")]
    cells += [v4.new_code_cell("plot()", id=f"plot-{n}", metadata=metadata, outputs=outputs) for n in range(number)]
    nbformat.write(v4.new_notebook(cells=cells), folder / "03_one.ipynb")
    return folder / "03_one.ipynb"


PICTURE = v4.new_output("display_data", data={"image/png": PIXEL})
DESCRIBED = {"tags": ["cover"], "mystnb": {"image": {"alt": 'One "pixel".'}}, "card": "One sentence."}


def test_a_cover_is_a_picture_its_alt_text_and_a_sentence(tmp_path):
    cover = find_cover(write_executed(tmp_path, DESCRIBED, [PICTURE]), "cover")
    assert cover is not None
    assert (cover.alt, cover.sentence) == ('One "pixel".', "One sentence.")
    assert cover.png.startswith(b"\x89PNG")
    assert find_cover(write_executed(tmp_path, {}, [PICTURE]), "cover") is None
    assert find_cover(write_executed(tmp_path, DESCRIBED, [PICTURE]), "frontispiece") is None


@pytest.mark.parametrize(
    ("metadata", "outputs", "number"),
    [({"tags": ["cover"]}, [PICTURE], 1), (DESCRIBED, [], 1), (DESCRIBED, [PICTURE], 2)],
    ids=["no alt text", "no picture", "two cells"],
)
def test_what_cannot_be_a_cover_is_refused(tmp_path, metadata, outputs, number):
    with pytest.raises(InputError, match="plot-0 of 03_one is tagged cover"):
        find_cover(write_executed(tmp_path, metadata, outputs, number), "cover")


def test_a_chapter_gets_a_card_with_or_without_a_picture(tmp_path):
    path = write_executed(tmp_path, DESCRIBED, [PICTURE])
    grid = write_cards({"Part I": [path], "Reference": []}, tmp_path)
    assert "### Part I" in grid
    assert "Reference" not in grid
    assert 'src="../_static/pictures/03_one.webp" alt="One &quot;pixel&quot;." width="1" height="1"' in grid
    assert '3. <a href="../notebooks/03_one.html">A &lt;title&gt;</a>' in grid
    assert (tmp_path / "03_one.webp").read_bytes()[8:12] == b"WEBP"
    assert "<img" not in write_cards({"Part I": [write_executed(tmp_path, {}, [])]}, tmp_path)


def test_the_frontispiece_is_the_first_picture_with_its_tag(tmp_path):
    path = write_executed(tmp_path, {**DESCRIBED, "tags": ["frontispiece"]}, [PICTURE])
    figure = write_frontispiece([path], tmp_path)
    assert "<figcaption>One sentence. Chapter 3: <a" in figure
    assert (tmp_path / "frontispiece.png").read_bytes().startswith(b"\x89PNG")
    assert write_frontispiece([write_executed(tmp_path, {}, [])], tmp_path) == ""


def test_strip_clears_what_running_left_and_keeps_the_rest(tmp_path):
    cell = v4.new_code_cell("1 + 1", id="sum", execution_count=3, outputs=[v4.new_output("stream", text="2")])
    cell.metadata.update({"tags": ["parameters"], "papermill": {"status": "completed"}})
    injected = v4.new_code_cell("d = 1", metadata={"tags": ["injected-parameters"]})
    notebook = v4.new_notebook(cells=[cell, injected], metadata={"widgets": {"state": {}}, "papermill": {}, "kept": 1})
    clean = strip(notebook)
    expected = v4.new_code_cell("1 + 1", id="sum", metadata={"tags": ["parameters"]})
    assert clean.cells == [expected]
    assert clean.metadata == {"kept": 1}
    path = tmp_path / "one.ipynb"
    nbformat.write(notebook, path)
    assert strip_file(path)
    assert not strip_file(path)


def command(root, *options):
    return [sys.executable, "-m", "bookbuild", "book", "--root", str(root), *options]


def run_build(root, *options):
    return subprocess.run(
        command(root, *options), capture_output=True, text=True, cwd=ROOT, timeout=PATIENCE, check=False
    )


def test_when_all_is_computed_anew_the_longest_chapter_starts_first(tmp_path):
    write_chapter(tmp_path, "01_short", 'dm.sweep(name="fig1-short")')
    write_chapter(tmp_path, "02_none", "x = 1")
    write_chapter(tmp_path, "03_long", 'dm.sweep(name="fig3-long")')
    for name, seconds in (("fig1-short", 3.0), ("fig3-long", 2.0)):
        for part in range(1 if name == "fig1-short" else 2):
            dataset = xr.Dataset({"x": part}).assign_attrs(total_wall_seconds=seconds)
            write(tmp_path / "notebooks" / "results" / f"{name}-{part:012d}.nc", dataset)
    layout = Layout(tmp_path, tmp_path / "_build")
    order = longest_first(layout, find_chapters(layout))
    assert [path.stem for path in order] == ["03_long", "01_short", "02_none"]


@pytest.mark.kernel
def test_publishing_asks_those_chapters_for_results_that_have_some(tmp_path):
    write_chapter(tmp_path, "01_none", "x = 1")
    source = "import xarray as xr\nfrom dmfkit.experiments.store import write\nfrom pathlib import Path\n"
    source += "write(Path(results) / 'one-0123456789ab.nc', xr.Dataset({'x': 1.0}))"
    write_chapter(tmp_path, "02_stored", source, parameters="results = ''")
    old = tmp_path / "notebooks" / "results" / "old-0123456789ab.nc"
    write(old, xr.Dataset({"x": 2.0}))
    published = publish_results(Layout(tmp_path, tmp_path / "_build"), jobs=2)
    assert [path.name for path in published] == ["one-0123456789ab.nc"]
    assert [path.name for path in old.parent.iterdir()] == ["one-0123456789ab.nc"]
