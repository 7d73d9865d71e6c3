"""Tasks made from files: what is held out, in which units, and what a stored result is keyed by."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from dmfkit import FileTask, Flow, HeldOutError, InputError, Start, least_nuclear_norm, minimum_nuclear_norm, sweep
from dmfkit.experiments.reproduce import plan_of, recompute_point
from dmfkit.experiments.store import Store
from dmfkit.problems.completion import hold_out
from dmfkit.values import key_values
from tools.example_matrix import example_matrix

ROOT = Path(__file__).parents[2]


@pytest.fixture
def matrix():
    """Rank 2, 12 x 9, a quarter of the entries missing."""
    random = np.random.default_rng(5)
    full = random.standard_normal((12, 2)) @ random.standard_normal((2, 9))
    full[random.random(full.shape) < 0.25] = np.nan
    return full


@pytest.fixture
def saved(matrix, tmp_path):
    np.save(tmp_path / "m.npy", matrix)
    return str(tmp_path / "m.npy")


def test_held_out_and_trained_on_are_the_known_entries(saved, matrix):
    task = FileTask(saved, held_out=0.2, data_seed=3)
    problem, known = task.problem(), ~np.isnan(matrix)
    train, held = problem.mask.numpy() == 1, task.held_out_mask()
    assert (np.argwhere(held) == np.stack([problem.held_out.rows, problem.held_out.columns], axis=1)).all()
    np.testing.assert_array_equal(train | held, known)
    assert not (train & held).any()
    assert held.sum() == task.n_held_out == round(0.2 * known.sum())
    np.testing.assert_allclose(problem.unit * problem.values.numpy()[train], matrix[train])
    np.testing.assert_allclose(problem.unit * problem.held_out.values.numpy(), matrix[held])
    assert (problem.values[problem.mask == 0] == 0).all()
    # The unit makes the mean square of what is trained on one.
    assert float(problem.values.square().sum() / problem.mask.sum()) == pytest.approx(1.0)


def test_every_known_entry_is_held_out_as_often_as_any_other():
    observed = np.ones((4, 5), dtype=bool)
    observed[2, 1:3] = False
    times = sum(hold_out(observed, 6, seed).astype(int) for seed in range(3000))
    assert (times[~observed] == 0).all()
    # Binomial with probability 1/3: five standard deviations are 129.
    assert abs(times[observed] - 1000).max() < 130


def test_a_smaller_share_is_part_of_a_larger_one(saved):
    few, many = (FileTask(saved, held_out=share, data_seed=1).held_out_mask() for share in (0.1, 0.4))
    assert (few <= many).all()
    assert few.sum() < many.sum()
    assert (FileTask(saved, held_out=0.4, data_seed=2).held_out_mask() != many).any()


def test_the_error_is_that_of_its_definition_in_the_units_of_the_file(saved, matrix):
    task = FileTask(saved, held_out=0.3)
    problem, held = task.problem(), task.held_out_mask()
    guess = torch.full((2, 12, 9), 0.25, dtype=torch.float64)
    expected = np.sqrt(((0.25 - matrix[held]) ** 2).mean())
    np.testing.assert_allclose(problem.held_out_rmse(guess), expected)
    np.testing.assert_allclose(problem.held_out_rmse(guess[0]), expected)


def test_a_sweep_measures_the_end_and_records_the_way(saved, matrix):
    task = FileTask(saved, held_out=0.2)
    grid = {"depth": [2, 3], "data_seed": [0, 1], "held_out": [0.1, 0.2]}
    runs = sweep(task, Start(init_scale=1e-2), Flow(), record=(HeldOutError(),), record_at=[0.0, 1e6], **grid)
    assert dict(runs["final_held_out_rmse"].sizes) == {"depth": 2, "data_seed": 2, "held_out": 2}
    # Before training the product is nearly zero, and the error the root mean square of what is held out.
    held = replace(task, data_seed=1).held_out_mask()
    start = float(runs["held_out_rmse"].sel(depth=2, data_seed=1, held_out=0.2, time=0.0))
    assert start == pytest.approx(np.sqrt((matrix[held] ** 2).mean()), rel=0.02)
    assert (runs["final_held_out_rmse"] < 0.5 * start).all()
    assert "final_relative_error" not in runs


def test_results_do_not_depend_on_the_units(matrix, tmp_path):
    found = []
    for number, unit in enumerate((1.0, 1e-9, 1e9)):
        np.save(tmp_path / f"{number}.npy", matrix * unit)
        task = FileTask(str(tmp_path / f"{number}.npy"), held_out=0.2)
        runs = sweep(task, Start(depth=3, init_scale=1e-2), Flow(), seed=[0])
        found.append((float(runs["final_held_out_rmse"][0]) / unit, runs["final_singular_value"].values[0] / unit))
    for error, values in found[1:]:
        assert error == pytest.approx(found[0][0], rel=1e-9)
        np.testing.assert_allclose(values, found[0][1], rtol=1e-8, atol=1e-12)


def test_the_least_nuclear_norm_of_the_problem_is_that_of_a_general_solver(saved):
    problem = FileTask(saved, held_out=0.2).problem()
    ours = least_nuclear_norm(problem)
    values = problem.lift(problem.values).numpy()
    general = minimum_nuclear_norm(values, problem.mask.numpy() == 1, solver="CLARABEL")
    assert problem.unit * ours.value == pytest.approx(general.value, rel=1e-6)
    assert problem.observation_operator().values.shape == (problem.n_observations,)


def test_the_key_holds_the_content_and_not_the_place(saved, matrix, tmp_path):
    task = FileTask(saved)
    elsewhere = tmp_path / "copy.npy"
    elsewhere.write_bytes(Path(saved).read_bytes())
    assert key_values(FileTask(str(elsewhere))) == key_values(task)
    assert "path" not in key_values(task)
    np.save(saved, matrix + 1)
    assert key_values(FileTask(saved)) != key_values(task)


def test_a_stored_result_is_never_that_of_another_file(saved, matrix, tmp_path):
    store, flow = Store(tmp_path / "store"), Flow(stop=1e-2)
    first = sweep(FileTask(saved), Start(depth=2), flow, store=store, seed=[0])
    again = sweep(FileTask(saved), Start(depth=2), flow, store=store, seed=[0])
    assert (first.attrs["loaded_from_store"], again.attrs["loaded_from_store"]) == (0, 1)
    np.save(saved, matrix + 1)
    other = sweep(FileTask(saved), Start(depth=2), flow, store=store, seed=[0])
    assert other.attrs["loaded_from_store"] == 0
    assert float(other["final_nuclear_norm"][0]) != float(first["final_nuclear_norm"][0])


def test_a_file_that_changes_under_a_task_is_noticed(saved, matrix):
    task = FileTask(saved)
    np.save(saved, matrix + 1)
    for use in (lambda: replace(task, data_seed=1), task.problem, lambda: sweep(task, Start(), Flow(), seed=[0])):
        with pytest.raises(InputError, match=r"has changed since|another content"):
            use()


def test_files_cannot_be_swept(saved, tmp_path):
    np.save(tmp_path / "other.npy", np.eye(3))
    with pytest.raises(InputError, match="make a new task for every file"):
        sweep(FileTask(saved), Start(), Flow(), path=[saved, str(tmp_path / "other.npy")])


@pytest.mark.parametrize(
    ("array", "fields", "sentence"),
    [
        (np.eye(3) + 1, {"held_out": 1.0}, "held_out = 1.0 is not allowed"),
        (np.eye(3) + 1, {"held_out": -0.1}, "held_out = -0.1 is not allowed"),
        (np.eye(3) + 1, {"held_out": float("nan")}, "held_out = nan is not allowed"),
        (np.eye(2) + 1, {"held_out": 0.1}, "of its 4 known entries 0 would be held out"),
        (np.eye(2) + 1, {"held_out": 0.9}, "of its 4 known entries 4 would be held out"),
        (np.eye(3) + 1, {"normalisation": "sum"}, "normalisation = 'sum' is not allowed"),
    ],
)
def test_impossible_tasks_are_refused_before_anything_is_drawn(array, fields, sentence, tmp_path):
    np.save(tmp_path / "m.npy", array)
    task = FileTask(str(tmp_path / "m.npy"), **fields)
    for use in (task.check, task.problem):
        with pytest.raises(InputError, match=sentence):
            use()


def test_nothing_but_zeros_left_to_train_on_is_refused(tmp_path):
    array = np.zeros((2, 3))
    array[0, 0] = 1.0
    np.save(tmp_path / "m.npy", array)
    tasks = [FileTask(str(tmp_path / "m.npy"), held_out=0.2, data_seed=seed) for seed in range(20)]
    (first, *_) = [task for task in tasks if task.held_out_mask()[0, 0]]
    with pytest.raises(InputError, match="is not held out is 0"):
        first.problem()


def test_nothing_held_out_leaves_no_error_to_measure(saved):
    runs = sweep(FileTask(saved, held_out=0.0), Start(depth=2), Flow(stop=1e-2), seed=[0])
    assert runs["final_held_out_rmse"].isnull().all()


def test_the_example_is_what_its_function_makes(tmp_path):
    example_matrix().to_csv(tmp_path / "made.csv")
    assert (ROOT / "dmfkit" / "problems" / "example_matrix.csv").read_bytes() == (tmp_path / "made.csv").read_bytes()
    matrix = FileTask().matrix()
    np.testing.assert_array_equal(np.where(matrix.observed, matrix.values, np.nan), example_matrix().to_numpy())


def test_a_result_from_the_example_can_be_made_again_from_what_it_says_of_itself():
    runs = sweep(FileTask(held_out=0.2), Start(), Flow(stop=1e-2), depth=[2], data_seed=[0, 1])
    again = recompute_point(plan_of(runs), {"depth": 2, "data_seed": 1}, device="cpu")
    found, expected = (float(one["final_held_out_rmse"].sel(depth=2, data_seed=1)) for one in (again, runs))
    # In a batch of one the last digits differ.
    assert found == pytest.approx(expected, rel=1e-6)


def test_the_row_and_column_names_of_a_csv_file_are_no_entries(tmp_path, matrix):
    pd.DataFrame(matrix).add_prefix("c").to_csv(tmp_path / "m.csv")
    assert FileTask(str(tmp_path / "m.csv")).shape == matrix.shape
