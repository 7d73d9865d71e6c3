"""A chapter's parameters: what papermill delivers is checked before anything is trained."""

import copy
import json
import os
import pickle
import re
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Annotated

import nbformat
import papermill
import pytest
import yaml
from papermill.cli import _resolve_type
from papermill.parameterize import parameterize_notebook
from processes import PATIENCE
from pydantic import BeforeValidator, Field

import dmfkit.chapters.paper_settings as paper_settings_module
from dmfkit.chapters.allowed_values import Allowed, Positive, Rank, Size, read_text
from dmfkit.chapters.paper_settings import CHAPTERS
from dmfkit.chapters.parameters import Parameters
from dmfkit.chapters.settings import PARAMETERS_CELL, literals, paper_settings, read_parameters
from dmfkit.errors import InputError

ROOT = Path(__file__).parents[2]
NAME = "01_matrix_completion"
CELLS = {
    path.stem: next(
        cell.source for cell in nbformat.read(path, as_version=4).cells if "parameters" in cell.metadata.get("tags", [])
    )
    for path in sorted((ROOT / "notebooks").glob("*.ipynb"))
}
OWN = CELLS[NAME]
READ = f"""import json, pathlib
from dmfkit.chapters.settings import read_parameters
p = read_parameters(globals(), "{NAME}")
p"""


class MyParameters(Parameters):
    """A reader's own: two fields of shared types, one that may be None, one of a plain type."""

    d: Size = 4
    rank: Rank = 1
    target_norm: Annotated[Positive | None, BeforeValidator(read_text), Allowed("None or a finite number above 0")] = (
        None
    )
    n_folds: int = Field(5, ge=2, description="parts of the data")

    def check_together(self):
        if self.rank > self.d:
            raise InputError("The rank is larger than d: lower it.")


MINE = PARAMETERS_CELL + "\nd = 4\nrank = 1\ntarget_norm = None\nn_folds = 5\n"


def notebook(own=OWN, after=()):
    cells = [nbformat.v4.new_code_cell(own, metadata={"tags": ["parameters"]})]
    cells += [nbformat.v4.new_code_cell(source) for source in after]
    kernel = {"name": "python3", "language": "python", "display_name": "Python 3"}
    return nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": kernel, "papermill": {}})


def read(own=OWN, chapter=NAME, /, **given):
    """Do without a kernel what papermill and IPython do: inject, run the cells, remember their sources."""
    book = parameterize_notebook(notebook(own), given) if given else notebook(own)
    namespace = {"In": [""]}
    for cell in book.cells:
        namespace["In"].append(cell.source)
        exec(cell.source, namespace)
    return read_parameters(namespace, chapter)


def refusal(own=OWN, chapter=NAME, /, **given):
    with pytest.raises(InputError) as caught:
        read(own, chapter, **given)
    sentence = str(caught.value)
    assert "\n" not in sentence
    return sentence


def typed(**words):
    """Give values as `papermill -p name value` does."""
    return {name: _resolve_type(word) for name, word in words.items()}


def test_the_papers_own_settings():
    p = read()
    assert (p.d, p.rank, p.depths, p.lrs, p.flow_rtol) == (100, 5, (2, 3, 4), (1e-3, 3e-4), 1e-3)
    assert dict(p.changed) == {}
    assert p.values == p.paper
    # Those that say where and how to compute come last, so that they do not hide the others in table and sentences.
    assert list(p.values)[-3:] == ["device", "recompute", "results"]


def test_command_line_values_are_read_by_what_they_spell():
    p = read(**typed(d="80", depths="[2, 5]", n_observed="600", lrs="1e-2", recompute="true", stop="1"))
    assert (p.d, p.depths, p.n_observed, p.lrs, p.recompute) == (80, (2, 5), (600,), (0.01,), True)
    assert p.stop == 1.0
    assert isinstance(p.stop, float)
    # Where to compute is no change of the experiment: recompute is not listed.
    assert set(p.changed) == {"d", "depths", "n_observed", "lrs", "stop"}
    assert p.paper["depths"] == (2, 3, 4)
    assert read(**typed(depths="2, 5")).depths == (2, 5)


def test_yaml_file_values_without_a_point_are_numbers(tmp_path):
    preset = tmp_path / "quick.yml"
    preset.write_text("lrs: [1e-3, 1]\nstop: 1e-2\nrecompute: true\n")
    given = papermill.iorw.read_yaml_file(str(preset))
    assert given["lrs"] == ["1e-3", 1]  # what makes the reading necessary
    p = read(**given)
    assert (p.lrs, p.stop, p.recompute) == ((0.001, 1.0), 0.01, True)


@pytest.mark.parametrize(
    ("name", "word", "value"),
    [
        ("depths", "[2, 5]", (2, 5)),
        ("depths", "(2, 5)", (2, 5)),
        ("depths", "4", (4,)),
        ("lrs", "[1e-3, 2]", (1e-3, 2.0)),
        ("stop", "1e-3", 1e-3),
        ("recompute", "false", False),
        ("results", "a=b # c", "a=b # c"),
        ("results", "12", "12"),
    ],
)
def test_command_line_yaml_file_and_python_give_the_same(name, word, value, tmp_path):
    """`papermill -p`, `-y` and `-f`, and values or tuples given to `papermill.execute_notebook`."""
    yml = tmp_path / "p.yml"
    yml.write_text(f"{name}: {word!r}\n" if isinstance(value, str) else f"{name}: {word}\n")
    # The command line makes a number of the text 12, which only the parameter knows to be text.
    shell = {name: word} if isinstance(value, str) else typed(**{name: word})
    listed = list(value) if isinstance(value, tuple) else value
    for given in (shell, papermill.iorw.read_yaml_file(str(yml)), {name: value}, {name: listed}):
        assert read(**given).values[name] == value


def test_pairs_keep_their_numbers_on_every_way_through_papermill():
    cell = CELLS["04_dynamics_in_theory"]
    for shapes in ("[[2, 3], [4, 4]]", [[2, 3], [4, 4]], [(2, 3), (4, 4)], ((2, 3), (4, 4))):
        assert read(cell, "04_dynamics_in_theory", shapes=shapes).shapes == ((2, 3), (4, 4))


@pytest.mark.parametrize(
    "line",
    [
        'results = "a=b"  # c = 3',
        'results: str = "a=b"',
        "# d = 3\nresults = 'a=b'",
        'results = """a=b"""; # e = 4',
    ],
)
def test_signs_of_equality_and_annotations_hide_nothing(line):
    own = OWN.replace('results = ""', line)
    assert own != OWN
    assert read(own).changed == {}
    assert read(own).results == "a=b"
    assert read(own, results="c=d").results == "c=d"


def test_a_value_equal_to_the_papers_is_no_change():
    assert dict(read(depths=[2, 3, 4], lrs="[0.001, 0.0003]").changed) == {}


ALLOWED = {
    "d": "a whole number of at least 1, such as 100",
    "depths": "a list of whole numbers of at least 1, none of them repeated, such as [2, 3, 4]",
    "lrs": "a list of finite numbers above 0, none of them repeated, such as [0.001, 0.0003]",
    "seeds": "a list of whole numbers from 0 to 4294967295, none of them repeated, such as [0, 1, 2]",
    "stop": "a finite number above 0, such as 1e-06",
    "recompute": "True or False",
    "results": 'the path of a folder as text, or "" for the book\'s own folder',
}


@pytest.mark.parametrize(
    ("name", "word"),
    [
        ("depths", "[0]"),
        ("depths", "[]"),
        ("depths", "[2, 2]"),
        ("depths", "[2.0]"),
        ("depths", "[True]"),
        ("depths", "[2, "),
        ("depths", "deep"),
        ("depths", "None"),
        ("depths", "{2}"),
        ("lrs", "nan"),
        ("lrs", "inf"),
        ("lrs", "[0.1, -0.1]"),
        ("lrs", "0"),
        ("lrs", "[1, 1.0]"),
        ("seeds", "[-1]"),
        ("seeds", "[4294967296]"),
        ("d", "2.5"),
        ("d", "[100]"),
        ("d", "True"),
        ("d", "hundred"),
        ("stop", "-1"),
        ("stop", "None"),
        ("recompute", "1"),
        ("recompute", "yes"),
        ("results", "None"),
    ],
)
def test_a_value_that_is_not_allowed_is_one_sentence(name, word):
    value = _resolve_type(word)
    sentence = refusal(**{name: value})
    spelt = repr(value) if word in ("deep", "hundred", "yes", "[2, ") else word
    assert sentence == f"{name} = {spelt} is not allowed: {name} must be {ALLOWED[name]}."


@pytest.mark.parametrize(
    ("chapter", "name", "good", "bad", "words"),
    [
        ("01", "device", "cpu", "tpu", 'device = \'tpu\' is not allowed: device must be "auto", "cpu" or "cuda".'),
        ("05", "dataset", "synthetic", "netflix", 'dataset must be "movielens-100k" or "synthetic".'),
        ("05", "movielens", "ratings/u.data", "", 'must be "auto" or the path of a MovieLens 100K u.data or zip file.'),
        ("05", "movielens", "12", None, 'movielens = None is not allowed: movielens must be "auto" or the path'),
        ("01", "flow_rtol", 0.5, 1, "flow_rtol must be a number between 0 and 1, such as 0.001."),
        ("01", "flow_rtol", 1e-3, 0, "flow_rtol = 0 is not allowed"),
        ("09", "weight_decay", 0, -0.1, "weight_decay must be a finite number of at least 0, such as 0.05."),
        ("09", "weight_decay", 1e-4, float("nan"), "weight_decay = nan is not allowed"),
        pytest.param("01", "stop", 1e-6, 10**400, "stop must be a finite number above 0", id="stop-overflow"),
        ("01", "max_steps", 1, 1e6, "max_steps = 1000000.0 is not allowed"),
        ("01", "data_seed", 0, "0.5", "data_seed must be a whole number from 0 to 4294967295, such as 0."),
        ("05", "horizon", 10, float("inf"), "horizon = inf is not allowed"),
        ("05", "n_ratings", 99_999, 0, "n_ratings must be a whole number of at least 1, such as 100000."),
        ("04", "shapes", ((2, 12),), [[1, 4]], "pairs [rows, columns] of whole numbers from 2 to 12"),
        ("04", "finite_difference_steps", (1e-2,), [2e-2], "numbers above 0 and at most 0.01"),
        ("13", "matrix_file", "7", None, 'must be the path of a .csv, .tsv, .npy or .parquet file as text, or ""'),
        ("06", "d", 2, 1, "d must be a whole number of at least 2 (the chapter compares two singular values"),
        ("02", "depths", (2, 5), [1, 2], "depths must be a list of whole numbers of at least 2 (one factor is no"),
        ("08", "depth", 2, 1, "depth must be a whole number of at least 2 (the chapter compares layers"),
        ("08", "layer_scales", (1.0, 1.0), [1.0], "layer_scales must be a list of at least two finite numbers above 0"),
        (
            "08",
            "weight_decay",
            0.1,
            0.0,
            "(the chapter compares runs without and with weight decay), such as 1.0.",
        ),
        (
            "10",
            "transition_times",
            (1.0, 2.0),
            [1.0, 2.0, 3.0],
            "two different finite numbers above 0, the first and the",
        ),
        ("10", "transition_times", (1.0, 2.0), [2.0, 2.0], "such as [86.0, 106.0]."),
        ("11", "depths", (3, 2), [1, 3], "depths must be a list of two or more different whole numbers of at least 2"),
        ("11", "depths", (3, 2), [3], "depths = [3] is not allowed"),
    ],
)
def test_the_other_names(chapter, name, good, bad, words):
    (model,) = [model for key, model in CHAPTERS.items() if key.startswith(chapter)]
    assert model.read({name: good}).values[name] == good
    with pytest.raises(InputError) as caught:
        model.read({name: bad})
    assert words in str(caught.value)


def test_unknown_parameter_names_the_nearest_and_all():
    sentence = refusal(depth=[2])
    assert sentence == (
        "depth is not a parameter of this chapter: did you mean depths? allowed are d, rank, data_seed, n_observed, "
        "depths, init_scales, lrs, stop, seeds, max_steps, flow_rtol, data_seeds, device, recompute, results."
    )
    assert "did you mean" not in refusal(zzzzzz=1)
    # Known to the book, but not to this chapter.
    assert refusal(movielens="auto").startswith("movielens is not a parameter of this chapter")
    # A wrong name is said before a wrong value.
    assert refusal(d=0, depth=[2]) == sentence


def test_papermills_own_paths_may_be_injected():
    assert dict(read(PAPERMILL_INPUT_PATH="a.ipynb", PAPERMILL_OUTPUT_PATH="b.ipynb").changed) == {}


def test_parameters_cell_itself_is_checked():
    assert refusal(OWN + "\nwidths = [3]\n").startswith("widths is not a parameter of this chapter")
    assert "sets seeds to 'list(range(3))', which would have to be computed" in refusal(
        OWN + "\nseeds = list(range(3))\n"
    )
    assert "the line 'import math'" in refusal(OWN + "\nimport math\n")
    assert "the line 'd: int'" in refusal(OWN + "\nd: int\n")
    assert "the line 'd = rank = 3'" in refusal(OWN + "\nd = rank = 3\n")
    assert "depths = [0] is not allowed" in refusal(OWN + "\ndepths = [0]\n")


def test_values_set_by_hand_are_checked_too():
    with pytest.raises(InputError, match="d = -1 is not allowed"):
        read_parameters({"In": ["", "# The paper's own settings\nd = 100", "d = -1"], "d": -1})


def test_rerunning_the_parameters_cell_forgets_the_injected_one():
    history = ["", OWN, "# Parameters\nnonsense = 1", OWN]
    namespace = {"In": history}
    exec(OWN, namespace)
    assert dict(read_parameters(namespace, NAME).changed) == {}


@pytest.mark.parametrize("namespace", [{}, {"In": "text", "d": 1}, {"In": ["", "d = 1"], "d": 1}])
def test_without_a_parameters_cell(namespace):
    with pytest.raises(InputError, match=r"read_parameters\(globals\(\)\) in a cell|run the parameters cell first"):
        read_parameters(namespace)


def test_the_result_is_frozen_and_knows_its_names():
    p = read()
    with pytest.raises(AttributeError, match="d cannot be set here: change it in the parameters cell"):
        p.d = 3
    with pytest.raises(TypeError):
        p.values["d"] = 3
    with pytest.raises(AttributeError, match="no parameter width; it has d, rank"):
        p.width  # noqa: B018
    assert "depths" in dir(p)
    assert copy.copy(p) == p
    assert pickle.loads(pickle.dumps(p)) == p


def test_no_parameter_hides_an_attribute():
    for model in CHAPTERS.values():
        assert not set(model.model_fields) & set(dir(Parameters))


def test_a_name_means_the_same_in_every_chapter():
    said = {(name, field.description) for model in CHAPTERS.values() for name, field in model.model_fields.items()}
    assert all(description for _, description in said)
    several = {name for name, _ in said if len([one for one, _ in said if one == name]) > 1}
    # Which small matrices are meant, each of two chapters says. On failure, give the parameter the type and the
    # description that it has in the other chapter, or another name.
    assert several == {"small_d"}


def test_table_shows_changes_and_escapes_text():
    table = read(results="<script>", depths=[2])._repr_html_()
    assert "<script>" not in table
    assert "&lt;script&gt;" in table
    row = next(r for r in table.split("<tr>") if ">depths<" in r)
    assert "<code>[2]</code></td><td><code>[2, 3, 4]</code></td><td>numbers of factors</td>" in row
    assert table.count("<td>same</td>") == len(read().values) - 2
    assert "2 of 15 parameters differ from the chapter's own values" in table


# Notebooks that are no chapters.


def test_a_model_of_ones_own():
    p = read(MINE, MyParameters, **typed(d="6", target_norm="3"))
    assert (p.d, p.rank, p.target_norm, p.n_folds) == (6, 1, 3.0, 5)
    assert p.changed == {"d": 6, "target_norm": 3.0}
    assert read(MINE, MyParameters, target_norm=None).target_norm is None
    assert read(MINE, MyParameters, target_norm=" none").target_norm is None
    assert refusal(MINE, MyParameters, rank=5) == "The rank is larger than d: lower it."
    sentence = "target_norm = -1 is not allowed: target_norm must be None or a finite number above 0."
    assert refusal(MINE, MyParameters, target_norm=-1) == sentence
    # Where a type says nothing in words, pydantic does.
    plain = "n_folds = 1 is not allowed: Input should be greater than or equal to 2."
    assert refusal(MINE, MyParameters, n_folds=1) == plain
    assert "The parameters cell lacks n_folds: put back the line n_folds = 5." in refusal(
        MINE.replace("n_folds = 5", ""), MyParameters
    )


def test_the_model_that_contributors_are_shown_does_what_they_are_told():
    page = (ROOT / "book" / "contributing.md").read_text(encoding="utf-8")
    (shown,) = [block for block in re.findall(r"```python\n(.*?)```", page, re.DOTALL) if "(Parameters)" in block]
    namespace = dict(vars(paper_settings_module))
    exec(textwrap.dedent("   " + shown), namespace)
    model = namespace["MyChapterSettings"]
    assert model.read({"d": "20", "noise": "1e-2"}).changed == {"d": 20, "noise": 0.01}
    with pytest.raises(InputError, match=r"^depths has 4, but d = 4: lower it or raise d\.$"):
        model.read({"d": 4})
    assert "<td>standard deviation of the noise</td>" in model()._repr_html_()


def test_without_a_model_the_cell_is_taken_at_its_word():
    own = PARAMETERS_CELL + "\nd = 30\ndepths = [2, 3]\nvalues = 'a'\nnames = [1]\ncopy = None\n"
    p = read(own, "", **typed(depths="4", values="b", names="(2, 3)"), copy="None")
    assert dict(p.values) == {"d": 30, "depths": (4,), "values": "b", "names": (2, 3), "copy": None}
    assert set(p.changed) == {"depths", "values", "names"}
    # Names that the book has are checked; so is the cell itself, even where other values are injected.
    assert "depths must be a list of whole numbers of at least 1" in refusal(own, "", depths=[0])
    assert "depths = [0] is not allowed" in refusal(own.replace("[2, 3]", "[0]"), "", depths=[2])
    assert refusal(own, "", depth=2).startswith("depth is not a parameter of this chapter: did you mean depths?")
    assert "_d, which cannot be a parameter's name" in refusal(own + "_d = 3\n", "")
    assert "model_fields, which cannot be a parameter's name" in refusal(own + "model_fields = 3\n", "")
    assert read(own + "model_name = 'a'\n", "").model_name == "a"


# End to end, with a kernel.


@pytest.fixture
def kernel_environment(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    source = tmp_path / "in.ipynb"
    training = 'pathlib.Path("trained.json").write_text(json.dumps(dict(p.values)))'
    nbformat.write(notebook(after=[READ, training]), source)
    return source


@pytest.mark.kernel
def test_papermill_command_line_end_to_end(kernel_environment, tmp_path):
    command = [sys.executable, "-m", "papermill", str(kernel_environment), "out.ipynb", "--no-progress-bar"]
    for name, word in {"d": "40", "rank": "2", "n_observed": "[600]", "depths": "[2, 5]"}.items():
        command += ["-p", name, word]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 0, done.stderr
    values = json.loads((tmp_path / "trained.json").read_text())
    assert (values["d"], values["rank"], values["n_observed"], values["depths"]) == (40, 2, [600], [2, 5])
    table = nbformat.read(tmp_path / "out.ipynb", 4).cells[2].outputs[0].data["text/html"]
    assert "<code>[2, 5]</code>" in table


@pytest.mark.kernel
@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"depth": [2]}, "depth is not a parameter of this chapter: did you mean depths?"),
        ({"depths": "[]"}, "depths = [] is not allowed: depths must be a list of whole numbers"),
        ({"d": 40}, "n_observed has 2000, but a 40 by 40 matrix (d = 40) has only 1600 entries"),
        ({"lrs": [float("nan")]}, "lrs = [nan] is not allowed: lrs must be a list of finite numbers above 0"),
    ],
)
def test_papermill_stops_before_the_training(kernel_environment, tmp_path, given, sentence):
    with pytest.raises(papermill.PapermillExecutionError) as caught:
        papermill.execute_notebook(kernel_environment, tmp_path / "out.ipynb", given, cwd=tmp_path, progress_bar=False)
    shown = str(caught.value)
    assert f"InputError: {sentence}" in shown
    assert "Traceback" not in shown
    assert "parameters.py" not in shown
    assert len(shown.strip().splitlines()) == 3  # papermill's rule and heading, then the one sentence
    assert not (tmp_path / "trained.json").exists()


def test_an_edited_parameters_cell_is_a_change_all_the_same():
    # In a notebook the reader may write into the parameters cell itself; the package still knows the paper's settings.
    edited = OWN.replace("rank = 5", "rank = 4")
    assert dict(read(edited).changed) == {"rank": 4}
    assert dict(read(edited, "").changed) == {}
    assert "lacks rank: put back the line rank = 5." in refusal(OWN.replace("rank = 5", ""))
    assert "lacks depths: put back the line depths = [2, 3, 4]." in refusal(OWN.replace("depths = [2, 3, 4]", ""))
    assert "'99_unknown' is no chapter of the book: the chapters are 01_matrix_completion, 02" in refusal(
        OWN, "99_unknown"
    )


def test_paper_settings_are_those_of_the_cell():
    settings = paper_settings("05_dynamics_in_experiments")
    assert (settings["n_observed"], settings["movielens_lrs"]) == ((2000,), (1e-3, 4e-4))
    assert set(settings) == set(literals(CELLS["05_dynamics_in_experiments"]))
    with pytest.raises(InputError, match="no chapter of the book"):
        paper_settings("99_unknown")


@pytest.mark.parametrize(
    ("chapter", "values", "words"),
    [
        ("01", {"d": 4, "n_observed": 3}, "rank = 5 is not allowed with d = 4: rank must be at most d, so lower it or"),
        (
            "01",
            {"d": 40, "n_observed": [1600, 1601]},
            "n_observed has 1601, but a 40 by 40 matrix (d = 40) has only 1600",
        ),
        ("02", {"d": 4, "n_measurements": 4}, "n_measurements = 4 is not allowed with d = 4"),
        ("03", {"path_n_observed": (3, 10001)}, "path_n_observed has 10001"),
        ("03", {"fewer_n_observed": (10001,)}, "fewer_n_observed has 10001"),
        (
            "03",
            {"symmetric_d": 3, "symmetric_n_observed": 7},
            "symmetric matrix of size 3 (symmetric_d = 3) has only 6 pairs",
        ),
        ("03", {"symmetric_d": 3, "symmetric_rank": 4}, "symmetric_rank = 4 is not allowed with symmetric_d = 3"),
        ("04", {"d": 20}, "n_observed has 2000"),
        ("05", {"n_singular_values": 101}, "n_singular_values must be at most d"),
        ("05", {"rank": 10}, "n_singular_values = 10 is not allowed with rank = 10"),
        ("06", {"start_value": 0.5, "reach": 0.5}, "raise reach or lower start_value"),
        ("07", {"fewer_n_observed": 10001}, "fewer_n_observed has 10001"),
        ("07", {"rank": 10}, "n_singular_values = 10 is not allowed with rank = 10"),
        ("07", {"d": 9, "n_observed": 60, "fewer_n_observed": 50}, "n_singular_values = 10 is not allowed with d = 9"),
        ("08", {"d": 8}, "2 * (rank + 1) must be less than d"),
        ("09", {"rank_bound": 4}, "rank_bound = 4 is not allowed with rank = 5: it must be at least the rank"),
        (
            "09",
            {"d": 40, "rank_bound": 20},
            "rank_bound = 20 is not allowed with d = 40: compressed weights have 2 * 20",
        ),
        ("09", {"small_d": 8, "rank_bounds": (3, 4)}, "rank_bounds has 4, which is not allowed with small_d = 8"),
        ("09", {"small_rank": 4}, "rank_bounds has 3, which is not allowed with small_rank = 4"),
        ("10", {"rank": 3, "rank_bound": 2}, "rank_bound = 2 is not allowed with rank = 3"),
        ("10", {"smaller_d": 10}, "rank_bound = 5 is not allowed with smaller_d = 10"),
        ("11", {"ranks": (5, 91)}, "ranks has 91, but hidden_widths = [5, 10, 20, 30, 40, 50, 60, 70, 80, 90, 100]"),
        ("11", {"ranks": 95}, "fewer than two widths from 95 to smaller_d = 100: add widths or lower the rank"),
        ("11", {"hidden_widths": (5, 10, 20, 101)}, "hidden_widths has 101, more than smaller_d = 100"),
        ("11", {"lrs": (1e-2,)}, "1 lrs were given for 2 depths"),
        ("11", {"rank_bounds": (4, 8)}, "rank_bounds has 4, which is not allowed with rank = 5"),
        ("11", {"larger_rank_bounds": 500}, "larger_rank_bounds has 500, which is not allowed with d = 1000"),
        ("11", {"larger_rank_bounds": 20}, "larger than all of them"),
        ("11", {"rank_bounds": (8, 5)}, "rank_bounds must rise"),
        ("12", {"small_rank": 17}, "small_rank = 17 is not allowed with small_d = 16"),
        (
            "12",
            {"small_n_observed": 257},
            "small_n_observed has 257, but a 16 by 16 matrix (small_d = 16) has only 256",
        ),
    ],
)
def test_parameters_that_contradict_one_another_are_refused(chapter, values, words):
    (name,) = [name for name in CHAPTERS if name.startswith(chapter)]
    assert words in refusal(CELLS[name], name, **values)


@pytest.mark.parametrize("name", CHAPTERS)
def test_the_small_settings_and_the_variations_of_every_chapter_are_allowed(name):
    quick = yaml.safe_load((ROOT / "notebooks" / "presets" / "quick.yml").read_text(encoding="utf-8"))[name]
    variations = yaml.safe_load((ROOT / "tests" / "notebooks" / "variations.yml").read_text(encoding="utf-8"))[name]
    for changed in (quick, *({**quick, **one} for one in variations)):
        p = CHAPTERS[name].read(changed)
        assert json.loads(json.dumps({n: p.values[n] for n in changed})) == changed


def test_sizes_at_the_limit_are_allowed():
    assert read(d=40, n_observed=[1600]).n_observed == (1600,)
    assert CHAPTERS["11_width_and_depth"].read({"ranks": 80, "larger_rank_bounds": 499}).ranks == (80,)
    assert CHAPTERS["09_compression"].read({"d": 11}).d == 11


def test_a_chapter_without_a_paper_has_settings_of_its_own():
    p = read(CELLS["13_your_matrix"], "13_your_matrix", held_out=0.2)
    assert not p.has_paper
    assert p.changed == {"held_out": 0.2}
    assert "the paper's, and ours" not in p._repr_html_()
    assert "1 of 11 parameters differ from the chapter's own values." in p._repr_html_()
    assert read().has_paper
    assert "All 15 parameters have the chapter's own values: the paper's, and ours where it" in read()._repr_html_()
    mine = read("# The chapter's own settings: there is no paper\nd = 3\nseeds = [0]", "", d=4)
    assert not mine.has_paper
    assert mine.changed == {"d": 4}
    assert read(OWN, "").has_paper
