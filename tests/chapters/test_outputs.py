"""What chapters hand over survives the way through a notebook."""

import json

import nbformat
import numpy as np
import pytest
import xarray as xr
from nbformat import v4

from bookbuild.outputs import collect_results
from bookbuild.pages import as_page
from dmfkit import InputError, hand_over
from dmfkit.chapters.outputs import MOST_VALUES, RESULT_TYPE, HandedOver


@pytest.fixture
def shown(monkeypatch):
    """What a notebook would display."""
    displayed = []
    monkeypatch.setattr("dmfkit.chapters.outputs.display", displayed.append)
    return displayed


def through_json(one):
    return HandedOver.from_json(json.loads(json.dumps(one.to_json(), allow_nan=False))).values


@pytest.mark.parametrize(
    ("values", "dims", "expected"),
    [
        (3.5, (), xr.DataArray(3.5)),
        (np.float64("nan"), (), xr.DataArray(np.nan)),
        ({2: 1.0, 3: 2.0}, ("depth",), xr.DataArray([1.0, 2.0], coords={"depth": [2, 3]})),
        ({"wide": 1, "thin": 2}, ("start",), xr.DataArray([1, 2], coords={"start": ["wide", "thin"]})),
        (
            {(2, 0.1): 1.0, (3, 0.5): 4.0},
            ("depth", "alpha"),
            xr.DataArray([[1.0, np.nan], [np.nan, 4.0]], coords={"depth": [2, 3], "alpha": [0.1, 0.5]}),
        ),
        (
            xr.DataArray([[1.0, -np.inf], [np.nan, 2.0]], dims=("depth", "index"), coords={"depth": [2, 3]}),
            (),
            xr.DataArray([[1.0, -np.inf], [np.nan, 2.0]], coords={"depth": [2, 3], "index": [0, 1]}),
        ),
        (
            xr.DataArray([True, False], dims="seed", coords={"seed": [0, 5], "data_seed": 3}),
            (),
            xr.DataArray([True, False], coords={"seed": [0, 5]}),
        ),
    ],
)
def test_values_and_labels_come_back(values, dims, expected, shown):
    hand_over("x", values, *dims)
    (one,) = shown
    xr.testing.assert_identical(through_json(one), expected.rename("x"))
    assert through_json(one).dtype == expected.dtype


def test_a_double_comes_back_to_the_last_bit(shown):
    hand_over("x", xr.DataArray(np.random.default_rng(0).standard_normal(50), dims="i"))
    np.testing.assert_array_equal(through_json(shown[0]), shown[0].values)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("two words", 1), "'two words' cannot name a result"),
        ((3, 1), "3 cannot name a result"),
        (("x", [1, 2]), "has no labels"),
        (("x", "text"), "hand over real numbers"),
        (("x", 1j), "hand over real numbers"),
        (("x", {}, "a"), "needs values, and the names"),
        (("x", {1: 2}), "needs values, and the names"),
        (("x", {(1, 2): 3}, "a", "b", "c"), "has 2 coordinates, but 3 names"),
        (("x", {(1, 2): 3}, "a"), "neither numbers nor text"),
        (("x", 3.0, "a"), "is no mapping"),
        (("x", xr.DataArray(np.zeros(MOST_VALUES + 1), dims="i")), "at most 200,000"),
    ],
)
def test_what_cannot_be_handed_over_is_one_sentence(arguments, sentence, shown):
    with pytest.raises(InputError) as caught:
        hand_over(*arguments)
    assert sentence in str(caught.value)
    assert shown == []


def notebook_of(folder, *results):
    bundles = [HandedOver(one)._repr_mimebundle_() for one in results]
    outputs = [v4.new_output("display_data", data=bundle) for bundle in bundles]
    outputs.append(v4.new_output("display_data", data={"text/plain": "something else"}))
    nbformat.write(v4.new_notebook(cells=[v4.new_code_cell("x", id="c", outputs=outputs)]), folder / "one.ipynb")
    return folder / "one.ipynb"


def test_results_are_collected_by_name_and_a_name_counts_once(tmp_path):
    x, y = xr.DataArray(1.0, name="x"), xr.DataArray([2], coords={"k": [7]}, name="y")
    found = collect_results(notebook_of(tmp_path, x, y))
    assert list(found) == ["x", "y"]
    xr.testing.assert_identical(found["y"], y)
    with pytest.raises(InputError, match="hands over 'x' twice, again in cell c"):
        collect_results(notebook_of(tmp_path, x, y, x))


def test_nothing_of_a_result_reaches_a_page(tmp_path):
    notebook = nbformat.read(notebook_of(tmp_path, xr.DataArray(1.0, name="x")), as_version=4)
    outputs = as_page(notebook, "paper").cells[0].outputs
    assert [output.data for output in outputs] == [{"text/plain": "something else"}]
    assert RESULT_TYPE in notebook.cells[0].outputs[0].data
