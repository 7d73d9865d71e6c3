"""A chapter's parameters: what papermill delivers is checked before anything is trained."""

import copy
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import papermill
import pytest
from papermill.cli import _resolve_type
from papermill.parameterize import parameterize_notebook
from processes import PATIENCE

from dmfkit.chapters.allowed_values import VOCABULARY
from dmfkit.chapters.settings import (
    PARAMETERS_CELL,
    Parameters,
    check_together,
    check_value,
    paper_settings,
    read_parameters,
)
from dmfkit.errors import InputError

ROOT = Path(__file__).parents[1]
OWN = """# The paper's own settings
d = 100
rank = 5
n_observed = [2000, 5000]
depths = [2, 3, 4]
lrs = [1e-3, 3e-4]
seeds = [0, 1, 2]
target_norm = None
recompute = False
results = ""
"""
BLOCKS = {
    "d": 9,
    "rank": 2,
    "smaller_layer_scales": (0.1,),
    "depth": 2,
    "layer_scales": (1.0, 2.0),
    "weight_decay": 0.1,
}
READ = """import json, pathlib
from dmfkit.chapters.settings import check_together
from dmfkit.chapters.settings import read_parameters
p = read_parameters(globals())
p"""


def notebook(own=OWN, after=()):
    cells = [nbformat.v4.new_code_cell(own, metadata={"tags": ["parameters"]})]
    cells += [nbformat.v4.new_code_cell(source) for source in after]
    kernel = {"name": "python3", "language": "python", "display_name": "Python 3"}
    return nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": kernel, "papermill": {}})


def read(own=OWN, /, **given):
    """Do without a kernel what papermill and IPython do: inject, run the cells, remember their sources."""
    book = parameterize_notebook(notebook(own), given) if given else notebook(own)
    namespace = {"In": [""]}
    for cell in book.cells:
        namespace["In"].append(cell.source)
        exec(cell.source, namespace)
    return read_parameters(namespace)


def refusal(own=OWN, /, **given):
    with pytest.raises(InputError) as caught:
        read(own, **given)
    return str(caught.value)


def typed(**words):
    """Give values as `papermill -p name value` does."""
    return {name: _resolve_type(word) for name, word in words.items()}


def test_the_papers_own_settings():
    p = read()
    assert (p.d, p.rank, p.depths, p.lrs, p.target_norm) == (100, 5, (2, 3, 4), (1e-3, 3e-4), None)
    assert dict(p.changed) == {}
    assert list(p.values) == [line.split()[0] for line in OWN.splitlines()[1:]]


def test_command_line_values_are_read_by_what_they_spell():
    p = read(**typed(d="40", depths="[2, 5]", n_observed="600", lrs="1e-2", recompute="true", target_norm="3"))
    assert (p.d, p.depths, p.n_observed, p.lrs, p.recompute) == (40, (2, 5), (600,), (0.01,), True)
    assert p.target_norm == 3.0
    assert isinstance(p.target_norm, float)
    # Where to compute is no change of the experiment: recompute is not listed.
    assert set(p.changed) == {"d", "depths", "n_observed", "lrs", "target_norm"}
    assert p.paper["depths"] == (2, 3, 4)
    assert read(**typed(depths="2, 5")).depths == (2, 5)


def test_yaml_file_values_without_a_point_are_numbers(tmp_path):
    preset = tmp_path / "quick.yml"
    preset.write_text("lrs: [1e-3, 1]\ntarget_norm: 1e2\nrecompute: true\n")
    given = papermill.iorw.read_yaml_file(str(preset))
    assert given["lrs"] == ["1e-3", 1]  # what makes the reading necessary
    p = read(**given)
    assert (p.lrs, p.target_norm, p.recompute) == ((0.001, 1.0), 100.0, True)


def test_a_value_equal_to_the_papers_is_no_change():
    assert dict(read(depths=[2, 3, 4], lrs="[0.001, 0.0003]").changed) == {}


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
        ("target_norm", "-1"),
        ("recompute", "1"),
        ("recompute", "yes"),
        ("results", "None"),
    ],
)
def test_a_value_that_is_not_allowed_is_one_sentence(name, word):
    value = _resolve_type(word)
    sentence = refusal(**{name: value})
    spelt = repr(value) if word in ("deep", "hundred", "yes", "[2, ") else word
    assert sentence == f"{name} = {spelt} is not allowed: {name} must be {VOCABULARY[name].allowed}."


def test_the_sentence_reads_well():
    assert refusal(depths=[0]) == (
        "depths = [0] is not allowed: depths must be a list of whole numbers of at least 1, "
        "none of them repeated, such as [2, 3, 4]."
    )


@pytest.mark.parametrize(
    ("name", "good", "bad"),
    [
        ("device", "cpu", "tpu"),
        ("normalisation", "mean", "sum"),
        ("movielens", "ratings/u.data", ""),
        ("flow_rtol", 1e-3, 1),
        ("flow_rtol", 0.5, 0),
        ("weight_decay", 0, -0.1),
        ("weight_decay", 1e-4, float("nan")),
        pytest.param("stop", 1e-6, 10**400, id="stop-overflow"),
        ("max_steps", 1, 1e6),
        ("data_seed", 0, "0.5"),
        ("horizon", 10, float("inf")),
        ("n_ratings", 100_000, 0),
    ],
)
def test_the_other_names(name, good, bad):
    assert check_value(name, good) == good
    with pytest.raises(InputError, match=f"{name} must be"):
        check_value(name, bad)


def test_values_that_contradict_each_other():
    assert "rank = 5 is not allowed with d = 4: rank must be at most d" in refusal(d=4, n_observed=[3])
    assert "n_singular_values must be at most d" in refusal(OWN + "n_singular_values = 101\n")
    sentence = refusal(d=40, n_observed=[1600, 1601])
    assert "n_observed has 1601, but a 40 by 40 matrix (d = 40) has only 1600 entries" in sentence
    assert read(d=40, n_observed=[1600]).n_observed == (1600,)


def test_unknown_parameter_names_the_nearest_and_all():
    sentence = refusal(depth=[2])
    assert sentence == (
        "depth is not a parameter of this chapter: did you mean depths? allowed are "
        "d, rank, n_observed, depths, lrs, seeds, target_norm, recompute, results."
    )
    assert "did you mean" not in refusal(zzzzzz=1)
    # Known to the book, but not to this chapter.
    assert refusal(movielens="auto").startswith("movielens is not a parameter of this chapter")


def test_papermills_own_paths_may_be_injected():
    assert dict(read(PAPERMILL_INPUT_PATH="a.ipynb", PAPERMILL_OUTPUT_PATH="b.ipynb").changed) == {}


def test_parameters_cell_itself_is_checked():
    assert "sets widths, which the book's vocabulary" in refusal(OWN + "widths = [3]\n")
    assert "sets seeds to 'list(range(3))', which would have to be computed" in refusal(
        OWN + "seeds = list(range(3))\n"
    )
    assert "the line 'import math'" in refusal(OWN + "import math\n")
    assert "depths = [0] is not allowed" in refusal(OWN + "depths = [0]\n", depths=[2])


def test_values_set_by_hand_are_checked_too():
    with pytest.raises(InputError, match="d = -1 is not allowed"):
        read_parameters({"In": ["", "# The paper's own settings\nd = 100", "d = -1"], "d": -1})


def test_rerunning_the_parameters_cell_forgets_the_injected_one():
    history = ["", OWN, "# Parameters\nnonsense = 1", OWN]
    namespace = {"In": history}
    exec(OWN, namespace)
    assert dict(read_parameters(namespace).changed) == {}


@pytest.mark.parametrize("namespace", [{}, {"In": "text", "d": 1}, {"In": ["", "d = 1"], "d": 1}])
def test_without_a_parameters_cell(namespace):
    with pytest.raises(InputError, match=r"read_parameters\(globals\(\)\) in a cell|run the parameters cell first"):
        read_parameters(namespace)


def test_the_result_is_frozen_and_knows_its_names():
    p = read()
    with pytest.raises(AttributeError):
        p.d = 3
    with pytest.raises(TypeError):
        p.values["d"] = 3
    with pytest.raises(AttributeError, match="no parameter width; it has d, rank"):
        p.width  # noqa: B018
    assert "depths" in dir(p)
    assert copy.copy(p) == p


def test_no_parameter_hides_an_attribute():
    assert not set(VOCABULARY) & set(dir(Parameters))
    assert not {"values", "paper"} & set(VOCABULARY)


def test_table_shows_changes_and_escapes_text():
    table = read(results="<script>", depths=[2])._repr_html_()
    assert "<script>" not in table
    assert "&lt;script&gt;" in table
    row = next(r for r in table.split("<tr>") if ">depths<" in r)
    assert "<code>[2]</code></td><td><code>[2, 3, 4]</code></td><td>numbers of factors</td>" in row
    assert table.count("<td>same</td>") == len(read().values) - 2


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
    settings = paper_settings("01_matrix_completion")
    source = (
        PARAMETERS_CELL + "\n" + "\n".join(f"{name} = {value!r}" for name, value in {**settings, "rank": 4}.items())
    )
    namespace = {"In": ["", source], **settings, "rank": 4}
    assert dict(read_parameters(namespace, "01_matrix_completion").changed) == {"rank": 4}
    assert dict(read_parameters(namespace).changed) == {}
    lacking = {"In": ["", PARAMETERS_CELL + "\nd = 50"], "d": 50}
    with pytest.raises(InputError, match="lacks rank"):
        read_parameters(lacking, "01_matrix_completion")
    with pytest.raises(InputError, match="no chapter of the book"):
        read_parameters(namespace, "99_unknown")


def test_the_first_value_beyond_the_rank_must_be_kept():
    settings = {**paper_settings("05_dynamics_in_experiments"), "rank": 10}
    source = PARAMETERS_CELL + "\n" + "\n".join(f"{name} = {value!r}" for name, value in settings.items())
    with pytest.raises(InputError, match="n_singular_values = 10 is not allowed with rank = 10"):
        read_parameters({"In": ["", source], **settings}, "05_dynamics_in_experiments")


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"d": 1, "strength_ratio": 0.6}, "d must be at least 2"),
        ({"d": 4, "start_value": 0.5, "reach": 0.5}, "raise reach or lower start_value"),
        ({"d": 4, "n_measurements": 4}, "n_measurements = 4 is not allowed with d = 4"),
        ({"d": 4, "alphas": (0.1,), "depths": (1, 2)}, "depths must be at least 2"),
        ({"d": 4, "path_n_observed": (3, 17)}, "path_n_observed has 17"),
        ({"d": 4, "fewer_n_observed": (17,)}, "fewer_n_observed has 17"),
        ({"d": 8, "rank": 3, "smaller_layer_scales": (0.1,)}, "2 * (rank + 1) must be less than d"),
        ({**BLOCKS, "depth": 1}, "depth gives 1 factor"),
        ({**BLOCKS, "layer_scales": (1.0,)}, "layer_scales gives 1 factor"),
        ({**BLOCKS, "weight_decay": 0.0}, "weight_decay = 0.0 is not allowed"),
        ({"d": 4, "rank_bound": 2}, "rank_bound = 2 is not allowed with d = 4"),
        ({"d": 9, "smaller_d": 4, "rank_bound": 2}, "rank_bound = 2 is not allowed with smaller_d = 4"),
        ({"d": 9, "rank": 3, "rank_bound": 2}, "rank_bound = 2 is not allowed with rank = 3"),
        ({"d": 9, "transition_times": (1.0, 2.0, 3.0)}, "transition_times must have two times"),
        ({"d": 4, "symmetric_d": 3, "symmetric_n_observed": (7,)}, "only 6 pairs of entries"),
        ({"d": 40, "rank": 5, "rank_bound": 4}, "rank_bound = 4 is not allowed with rank = 5"),
        ({"d": 40, "rank": 5, "rank_bound": 20}, "rank_bound = 20 is not allowed with d = 40"),
        (
            {"d": 40, "small_d": 8, "small_rank": 2, "rank_bounds": (2, 4)},
            "allowed with small_d = 8",
        ),
        ({"d": 4, "symmetric_d": 3, "symmetric_rank": 4}, "symmetric_rank = 4 is not allowed with symmetric_d = 3"),
    ],
)
def test_parameters_that_contradict_each_other_are_refused(values, words):
    with pytest.raises(InputError, match=re.escape(words)):
        check_together(values)


WIDTHS = {
    "d": 40,
    "rank": 2,
    "smaller_d": 20,
    "ranks": (2,),
    "hidden_widths": (2, 5, 20),
    "depths": (2, 3),
    "lrs": (1e-2, 2e-2),
    "rank_bounds": (2, 4),
    "larger_rank_bounds": (8,),
}


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"ranks": (2, 6)}, "fewer than two widths from 6 to smaller_d = 20"),
        ({"hidden_widths": (2, 20, 21)}, "hidden_widths has 21, more than smaller_d = 20"),
        ({"lrs": (1e-2,)}, "1 lrs were given for 2 depths"),
        ({"depths": (1, 3)}, "depths must have two values of at least 2"),
        ({"larger_rank_bounds": (8, 20)}, "larger_rank_bounds has 20, which is not allowed with d = 40"),
        ({"larger_rank_bounds": (4,)}, "larger than all of them"),
        ({"rank_bounds": (4, 2)}, "rank_bounds must rise"),
    ],
)
def test_sizes_of_the_chapter_on_width_that_contradict_each_other_are_refused(values, words):
    check_together(WIDTHS)
    with pytest.raises(InputError, match=re.escape(words)):
        check_together({**WIDTHS, **values})


def test_a_chapter_without_a_paper_has_settings_of_its_own():
    p = read("# The chapter's own settings: there is no paper\nd = 3\nseeds = [0]", d=4)
    assert not p.has_paper
    assert p.changed == {"d": 4}
    assert "the paper's, and ours" not in p._repr_html_()
    assert "1 of 2 parameters differ from the chapter's own values." in p._repr_html_()
    assert read().has_paper
    assert "the paper's, and ours where it gives none." in read()._repr_html_()
