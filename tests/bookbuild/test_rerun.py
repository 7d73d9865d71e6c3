"""Many parameter sets: what is checked before, what is kept, and how results come to stand side by side."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import nbformat
import numpy as np
import pytest
import xarray as xr
import yaml
from nbformat import v4
from processes import ENDLESS, PATIENCE, alive, wait_until

from bookbuild.notebooks import Finished
from bookbuild.project import Layout, RerunError, only_one_in
from bookbuild.rerun import rerun
from bookbuild.rerun.plan import make_plan, read_sets
from dmfkit.chapters.outputs import HandedOver
from dmfkit.chapters.settings import paper_settings
from dmfkit.errors import InputError
from dmfkit.experiments.store import read

ROOT = Path(__file__).parents[2]
CLAIM = "application/vnd.dmfkit.claim+json"
KERNEL = {"name": "python3", "display_name": "Python 3", "language": "python"}


def write_notebook(path, *sources, parameters="d = 10\nrank = 2\ndepths = [2, 3]\nname = 'a'"):
    cells = [v4.new_code_cell(parameters, id="parameters", metadata={"tags": ["parameters"]})]
    cells += [v4.new_code_cell(source, id=f"code-{number}") for number, source in enumerate(sources)]
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(v4.new_notebook(cells=cells, metadata={"kernelspec": KERNEL}), path)
    return path


def write_sets(folder, content):
    path = folder / "sets.yml"
    path.write_text(content if isinstance(content, str) else yaml.safe_dump(content))
    return path


@pytest.fixture
def notebook(tmp_path):
    return write_notebook(tmp_path / "notebooks" / "own.ipynb", "pass")


# What a file of sets may say.


def test_a_grid_has_every_combination_and_a_list_of_lists_for_lists(tmp_path):
    chosen = read_sets(write_sets(tmp_path, "d: [20, 30]\nrank: 2\ndepths: [[2, 3], 4]\nname: [b]\n"))
    assert chosen.axes == {"d": (20, 30), "depths": ([2, 3], 4)}
    assert [one["d"] for one in chosen.sets] == [20, 20, 30, 30]
    assert chosen.sets[1] == {"d": 20, "rank": 2, "depths": 4, "name": "b"}


def test_a_list_has_its_own_sets(tmp_path):
    chosen = read_sets(write_sets(tmp_path, "- {d: 20}\n- {rank: 3}\n- {}\n"))
    assert chosen.sets == ({"d": 20}, {"rank": 3}, {})
    assert chosen.axes == {}


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("", "holds no parameter sets"),
        ("d", "holds no parameter sets"),
        ("[]", "is an empty list"),
        ("{}", "is an empty mapping"),
        ("- 20\n", "Set 1 of "),
        ("d: []\n", "gives d no value"),
        ("d: [20\n", "is no YAML (line 2"),
        ("d: 20\nd: 30\n", "has 'd' twice"),
        ("- {d: 20, d: 30}\n", "line 1 begins a mapping that has 'd' twice"),
        ("1: [2]\n", "names a parameter 1, which is no text"),
        ("d: !!python/object/apply:os.getcwd []\n", "is no YAML"),
    ],
)
def test_what_is_no_file_of_sets_is_one_sentence(content, sentence, tmp_path):
    with pytest.raises(InputError) as caught:
        read_sets(write_sets(tmp_path, content))
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_of_sets_that_is_not_there(tmp_path):
    with pytest.raises(InputError, match=r"cannot be read \(No such file"):
        read_sets(tmp_path / "none.yml")
    with pytest.raises(InputError, match=r"cannot be read \(Is a directory"):
        read_sets(tmp_path)


# Checks before anything runs.


def plan_of(notebook, content, preset=None):
    return make_plan(notebook, read_sets(write_sets(notebook.parent, content)), preset or {})


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (
            "dd: [20, 30]\n",
            "Parameter set 1 (dd = 20): dd is not a parameter of own: did you mean d? allowed are d, rank",
        ),
        ("- {d: 20}\n- {d: many}\n", "Parameter set 2 (d = many): d = 'many' is not allowed: d must be a whole number"),
        ("depths: [[2], [0]]\n", "Parameter set 2 (depths = [0]): depths = [0] is not allowed"),
        ("d: [20, 20.0]\n", "Parameter set 2 (d = 20.0): d = 20.0 is not allowed"),
        ("d: [20, 30, 20]\n", "Parameter sets 1 and 3 are the same (d = 20)"),
        ("- {d: 20, depths: 2}\n- {depths: [2], d: '20'}\n", "Parameter sets 1 and 2 are the same"),
    ],
)
def test_impossible_sets_are_one_sentence(content, sentence, notebook):
    with pytest.raises(InputError) as caught:
        plan_of(notebook, content)
    assert sentence in str(caught.value)


def test_values_of_a_chapter_are_checked_together_and_with_its_own(tmp_path):
    chapter = ROOT / "notebooks" / "01_matrix_completion.ipynb"
    with pytest.raises(
        InputError, match=r"Parameter set 2 \(d = 10, rank = 11\): rank = 11 is not allowed with d = 10"
    ):
        make_plan(
            chapter,
            read_sets(write_sets(tmp_path, "- {d: 10, n_observed: 50}\n- {d: 10, rank: 11}\n")),
            {"n_observed": [60]},
        )
    assert paper_settings("01_matrix_completion")["n_observed"][0] > 20
    with pytest.raises(InputError, match="n_observed has 2000, but a 20 by 20 matrix"):
        make_plan(chapter, read_sets(write_sets(tmp_path, "d: 20\n")), {})


def test_papermill_gets_numbers_lists_and_text_and_the_preset_below_them(notebook):
    plan = plan_of(notebook, "- {depths: 4, name: '7'}\n", {"d": "1e1", "depths": [5]} | {"d": 12})
    assert plan.runs[0].injected == {"d": 12, "depths": [4], "name": "7"}
    assert plan.runs[0].given == {"depths": [4], "name": "7"}


def test_the_name_of_a_run_follows_everything_that_determines_it(notebook, tmp_path):
    names = {plan_of(notebook, "d: 20\n").runs[0].name, plan_of(notebook, "d: 21\n").runs[0].name}
    names.add(plan_of(notebook, "d: 20\n", {"rank": 1}).runs[0].name)
    assert plan_of(notebook, "- {d: '20'}\n").runs[0].name in names
    assert len(names) == 3
    write_notebook(notebook, "print(1)")
    assert plan_of(notebook, "d: 20\n").runs[0].name not in names


def test_the_name_of_a_run_follows_the_content_of_its_matrix_file(tmp_path):
    np.save(tmp_path / "m.npy", np.eye(3) + 1)
    notebook = write_notebook(tmp_path / "notebooks" / "own.ipynb", parameters="matrix_file = ''")
    (first,) = plan_of(notebook, "matrix_file: ../m.npy\n").runs
    assert plan_of(notebook, "matrix_file: ../m.npy\n").runs == (first,)
    np.save(tmp_path / "m.npy", np.eye(3) + 2)
    assert plan_of(notebook, "matrix_file: ../m.npy\n").runs[0].name != first.name
    with pytest.raises(InputError, match=r"Parameter set 1 .*There is no file"):
        plan_of(notebook, "matrix_file: m.npy\n")


def test_what_is_no_notebook_is_one_sentence(tmp_path):
    sets = read_sets(write_sets(tmp_path, "d: 20\n"))
    (tmp_path / "text.ipynb").write_text("no notebook")
    without = tmp_path / "without.ipynb"
    nbformat.write(v4.new_notebook(cells=[v4.new_code_cell("d = 3")]), without)
    for path, sentence in [
        (tmp_path / "none.ipynb", "There is no notebook"),
        (tmp_path, "There is no notebook"),
        (tmp_path / "text.ipynb", "is no notebook that can be read"),
        (without, "has no cell tagged parameters"),
    ]:
        with pytest.raises(InputError, match=sentence):
            make_plan(path, sets, {})


# Results side by side, by a runner that writes what a kernel would have left.


class Written:
    """Executes nothing: writes the outputs that a function of the parameters says; fails where it returns text."""

    def __init__(self, outputs):
        self.outputs, self.jobs, self.at_once = outputs, [], None

    def __call__(self, jobs, at_once):
        self.at_once = at_once
        for job in jobs:
            self.jobs.append(dict(job.parameters))
            made = self.outputs(**job.parameters)
            failed = isinstance(made, str)
            data = [] if failed else [v4.new_output("display_data", data=one) for one in made]
            notebook = v4.new_notebook(cells=[v4.new_code_cell("x", id="c", outputs=data)])
            notebook.metadata["papermill"] = {"duration": 1.5}
            job.target.parent.mkdir(parents=True, exist_ok=True)
            nbformat.write(notebook, job.target)
            yield Finished(job, made if failed else "")


def result(name, values, **coordinates):
    return HandedOver(xr.DataArray(values, coords=coordinates, name=name))._repr_mimebundle_()


def verdict(identifier, outcome):
    return {CLAIM: {"id": identifier, "verdict": outcome, "measured": f"{outcome} ± 0"}}


def spectrum(d=10, depths=(2, 3), **others):
    """A spectrum as long as d, an error for every depth, and a verdict."""
    yield result("spectrum", [float(d - k) for k in range(d)], index=range(d))
    yield result("error", [n / d for n in depths], depth=list(depths))
    yield verdict("arora-eq1", "reproduced" if d > 2 else "partly")


def outputs(**parameters):
    return list(spectrum(**parameters))


def run(notebook, content, runner, output="out", **options):
    layout = Layout(notebook.parent.parent, notebook.parent.parent / output)
    return read(rerun(layout, notebook, write_sets(notebook.parent.parent, content), run_jobs=runner, **options))


def test_results_of_a_grid_have_its_dimensions(notebook):
    found = run(notebook, "d: [2, 3]\ndepths: [[2, 3], [3, 5]]\nrank: 1\n", Written(outputs))
    assert dict(found["error"].sizes) == {"d": 2, "depths": 2, "depth": 3}
    assert found["depths"].values.tolist() == ["[2, 3]", "[3, 5]"]
    for d in (2, 3):
        np.testing.assert_array_equal(
            found["error"].sel(d=d), [[2 / d, 3 / d, np.nan], [np.nan, 3 / d, 5 / d]], strict=True
        )
    # The shorter spectrum is filled up.
    np.testing.assert_array_equal(found["spectrum"].sel(d=2, depths="[2, 3]"), [2, 1, np.nan])
    np.testing.assert_array_equal(found["spectrum"].sel(d=3, depths="[2, 3]"), [3, 2, 1])
    assert found["verdict"].sel(claim="arora-eq1", depths="[3, 5]").values.tolist() == ["partly", "reproduced"]
    assert str(found["measured"].sel(claim="arora-eq1", d=3, depths="[2, 3]").item()) == "reproduced ± 0"
    assert (found["wall_seconds"] == 1.5).all()
    assert found.attrs["notebook"] == "own.ipynb"
    assert '"rank": 1' in found.attrs["sets"]


def test_results_of_a_list_have_the_dimension_set_and_its_parameters_along_it(notebook):
    found = run(notebook, "- {d: 3}\n- {depths: [4]}\n- {name: b}\n", Written(outputs))
    assert dict(found["error"].sizes) == {"set": 3, "depth": 3}
    assert found["d"].values.tolist() == [3, 10, 10]
    assert found["depths"].values.tolist() == ["[2, 3]", "[4]", "[2, 3]"]
    assert found["name"].values.tolist() == ["a", "a", "b"]
    np.testing.assert_array_equal(found["error"].sel(set=1), [np.nan, np.nan, 0.4])


def test_a_dimension_of_the_chapter_may_be_called_like_one_of_the_grid(notebook):
    def made(d, **others):
        return [result("x", [d, 2 * d], d=[7, 8]), result("name", float(d))]

    found = run(notebook, "d: [2, 3]\n", Written(made))
    assert dict(found["x"].sizes) == {"d": 2, "d_in_chapter": 2}
    assert float(found["x"].sel(d=3, d_in_chapter=8)) == 6
    found = run(notebook, "- {d: 2, name: a}\n- {d: 3, name: b}\n", Written(made), output="list")
    assert found["name"].values.tolist() == [2.0, 3.0]
    assert found["name_given"].values.tolist() == ["a", "b"]


def test_a_parameter_with_one_value_is_no_dimension_and_one_set_is_enough(notebook):
    found = run(notebook, "d: 3\nrank: [2]\n", Written(outputs))
    assert dict(found["spectrum"].sizes) == {"set": 1, "index": 3}


def test_a_failing_set_leaves_the_others_and_says_why(notebook):
    def made(d, **others):
        return "own, cell 2 failed" if d == 3 else outputs(d=d)

    runner = Written(made)
    with pytest.raises(RerunError) as caught:
        run(notebook, "d: [2, 3, 4]\n", runner)
    assert "The parameter set (d = 3) failed.\nown, cell 2 failed" in str(caught.value)
    assert "d = 2" not in str(caught.value)
    output = notebook.parent.parent / "out"
    found = read(output / "results.nc")
    assert found["failure"].sel(d=3).item().endswith("own, cell 2 failed")
    assert found["failure"].sel(d=[2, 4]).values.tolist() == ["", ""]
    assert found["spectrum"].sel(d=3).isnull().all()
    assert found["spectrum"].sel(d=4).notnull().all()
    assert found["verdict"].sel(d=3).values.tolist() == [""]
    assert len(list((output / "executed").iterdir())) == 2
    assert len(list((output / "failed").iterdir())) == 1
    # The next call tries only that one again, and forgets its failure.
    repaired = Written(outputs)
    found = run(notebook, "d: [2, 3, 4]\n", repaired)
    assert repaired.jobs == [{"d": 3}]
    assert found["spectrum"].sel(d=3, index=[0, 1, 2]).notnull().all()
    assert (found["failure"] == "").all()
    assert list((output / "failed").iterdir()) == []


def test_what_is_finished_is_kept_and_a_larger_grid_computes_what_is_new(notebook):
    class Interrupted(Written):
        def __call__(self, jobs, at_once):
            for number, finished in enumerate(super().__call__(jobs, at_once)):
                if number == 2:
                    raise KeyboardInterrupt
                yield finished

    with pytest.raises(KeyboardInterrupt):
        run(notebook, "d: [2, 3, 4]\n", Interrupted(outputs))
    rest = Written(outputs)
    run(notebook, "d: [2, 3, 4]\n", rest)
    assert rest.jobs == [{"d": 4}]
    assert rest.at_once == 1
    larger = Written(outputs)
    found = run(notebook, "d: [5, 4, 3, 2]\n", larger)
    assert larger.jobs == [{"d": 5}]
    assert found["d"].values.tolist() == [5, 4, 3, 2]
    assert found["spectrum"].isel(index=0).values.tolist() == [5.0, 4.0, 3.0, 2.0]
    nothing = Written(outputs)
    again = run(notebook, "d: [5, 4, 3, 2]\n", nothing)
    assert nothing.jobs == []
    assert again.attrs["content_sha256"] == found.attrs["content_sha256"]


def test_a_notebook_without_results_gives_what_is_known_of_its_runs(notebook):
    found = run(notebook, "d: [2, 3]\n", Written(lambda **_: []))
    assert set(found.data_vars) == {"failure", "executed", "wall_seconds"}


def test_a_result_may_not_take_a_name_of_ours(notebook):
    with pytest.raises(InputError, match="cannot be called failure"):
        run(notebook, "d: [2, 3]\n", Written(lambda **_: [result("failure", 1.0)]))


def test_arguments_are_refused_before_anything_runs(notebook, tmp_path):
    runner = Written(outputs)
    with pytest.raises(InputError, match="jobs = 0"):
        run(notebook, "d: 2\n", runner, jobs=0)
    with pytest.raises(InputError, match="There is no preset 'slow'"):
        run(notebook, "d: 2\n", runner, preset="slow")
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match=r"output folder .* cannot be written to"):
        run(notebook, "d: 2\n", runner, output="file")
    assert runner.jobs == []
    assert not (tmp_path / "out").exists()


# End to end, with kernels.


def command(notebook, *options):
    root = notebook.parent.parent
    words = [
        "rerun",
        str(notebook),
        str(root / "sets.yml"),
        "--output",
        str(root / "out"),
        "--root",
        str(root),
        *options,
    ]
    return [sys.executable, "-m", "bookbuild", *words]


def call(notebook, content, *options):
    write_sets(notebook.parent.parent, content)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        command(notebook, *options),
        env=environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )


@pytest.mark.kernel
def test_the_command_runs_kernels_and_names_what_failed(tmp_path):
    source = """from dmfkit.chapters.outputs import hand_over
if d == 3:
    from dmfkit.errors import InputError
    raise InputError("three is too many.")
hand_over("square", d * d)"""
    notebook = write_notebook(tmp_path / "notebooks" / "own.ipynb", source)
    done = call(notebook, "d: [2, 3]\n", "--jobs", "2")
    assert done.returncode == 1, done.stderr
    assert "Not every parameter set could be run.\nThe parameter set (d = 3) failed." in done.stderr
    assert "own, cell 2 (id code-0" in done.stderr
    assert "InputError: three is too many." in done.stderr
    assert "2 parameter sets, 0 of them finished before" in done.stderr
    found = read(tmp_path / "out" / "results.nc")
    assert float(found["square"].sel(d=2)) == 4.0
    assert found["square"].sel(d=3).isnull()
    assert not (tmp_path / "out" / "running").exists()


@pytest.mark.slow
def test_the_command_says_mistakes_in_one_sentence(notebook):
    done = call(notebook, "dd: [2, 3]\n")
    assert done.returncode == 2
    assert done.stderr.strip().count("\n") == 0
    assert "dd is not a parameter of own: did you mean d?" in done.stderr
    assert not (notebook.parent.parent / "out").exists()


@pytest.mark.kernel
@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGKILL])
def test_an_interrupted_command_keeps_what_is_finished_and_stops_its_kernels(tmp_path, sent):
    marker = tmp_path / "kernel.pid"
    source = f"import os, pathlib, time\nif d == 3:\n    pathlib.Path({str(marker)!r}).write_text(str(os.getpid()))"
    notebook = write_notebook(tmp_path / "notebooks" / "own.ipynb", source, f"if d == 3:\n    time.sleep({ENDLESS})")
    write_sets(tmp_path, "d: [2, 3]\n")
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(
        command(notebook, "--jobs", "1"), env=environment, cwd=ROOT, stderr=subprocess.PIPE, text=True
    )
    wait_until(lambda: marker.exists() and marker.read_text())
    process.send_signal(sent)
    _, said = process.communicate(timeout=PATIENCE)
    if sent == signal.SIGINT:
        assert process.returncode == 130
        assert "the same command goes on from there" in said
    assert "Traceback" not in said
    kernel = int(marker.read_text())
    wait_until(lambda: not alive(kernel))
    (kept,) = (tmp_path / "out" / "executed").iterdir()
    assert kept.name.startswith("d-2-")
    assert not (tmp_path / "out" / "results.nc").exists()


def test_two_commands_cannot_share_an_output_folder(notebook):
    with (
        only_one_in(notebook.parent.parent / "out", "re-run"),
        pytest.raises(InputError, match="Another re-run writes"),
    ):
        run(notebook, "d: 2\n", Written(outputs))
