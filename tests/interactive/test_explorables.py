"""Explorables as widgets and as outputs of a cell; what they do in a page is tested in a browser."""

import base64

import matplotlib.pyplot as plt
import nbformat
import numpy as np
import pytest

from bookbuild.pages import STATE, VIEW, with_pictures, with_steady_models
from dmfkit.errors import InputError
from dmfkit.interactive import BUDGET, DepthGap, Explorable, SchattenCorner


def picture():
    figure, ax = plt.subplots(figsize=(2, 1))
    ax.plot([0, 1])
    return figure


@pytest.fixture
def gap():
    return DepthGap(picture(), alpha=0.6, start_value=0.05)


def test_a_front_end_without_widgets_gets_the_picture_and_it_is_closed(gap):
    bundle, _ = gap._repr_mimebundle_()
    assert base64.b64decode(bundle["image/png"]).startswith(b"\x89PNG")
    assert bundle[VIEW]["model_id"] == gap.model_id
    assert plt.get_fignums() == []


def test_arrays_arrive_as_their_bytes_in_row_order():
    values = np.arange(6, dtype=">f8").reshape(2, 3).T
    packed = Explorable({}, {"values": values}, picture()).content["arrays"]["values"]
    assert packed["shape"] == [3, 2]
    np.testing.assert_array_equal(np.frombuffer(packed["data"], "<f8").reshape(3, 2), values)


def test_an_array_of_another_type_is_refused():
    with pytest.raises(InputError, match="array 'values' is of type int64: convert it to one of uint8"):
        Explorable({}, {"values": np.arange(3)}, picture())


def test_more_than_the_budget_is_refused():
    with pytest.raises(InputError, match="kB of its page, more than the 400 kB"):
        Explorable({}, {"values": np.zeros(BUDGET // 8)}, picture())


def test_the_size_is_what_a_page_stores(gap):
    state = gap.get_state()
    assert gap.stored_size() == pytest.approx(
        sum(len(str(state[name])) for name in ("_esm", "_css", "content")), rel=0.02
    )


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: DepthGap(picture(), alpha=1.0, start_value=0.1), "alpha = 1: give a ratio"),
        (lambda: DepthGap(picture(), alpha=0.5, start_value=0.0), "start_value = 0: give a positive start"),
        (lambda: SchattenCorner(picture(), exponents=[]), "give exponents between 0 and 1, at least one"),
        (lambda: SchattenCorner(picture(), exponents=[0.5, 1.0]), "give exponents between 0 and 1"),
    ],
)
def test_impossible_values_get_one_sentence(make, sentence):
    with pytest.raises(InputError, match=sentence):
        make()


def executed(names):
    """A notebook as papermill leaves it: a cell with an explorable, and states of more models than are shown."""
    cells = [nbformat.v4.new_code_cell("explorable", id=f"cell-{name[:4]}") for name in names]
    for cell, name in zip(cells, names, strict=True):
        data = {VIEW: {"model_id": name, "version_major": 2}, "image/png": "AAAA", "text/plain": "one"}
        cell.outputs = [nbformat.v4.new_output("display_data", data)]
    states = {name: {"state": {"layout": "IPY_MODEL_ffff"}} for name in (*names, "ffff" * 8)}
    metadata = {"widgets": {STATE: {"state": states, "version_major": 2}}}
    return nbformat.v4.new_notebook(cells=cells, metadata=metadata)


def test_a_page_has_the_picture_first_and_the_live_one_after_it():
    notebook = executed(["a" * 32])
    page = with_pictures(notebook)
    first, second = page.cells
    assert first.id == "cell-aaaa"
    assert first.metadata.tags == ["explorable"]
    assert VIEW not in first.outputs[0].data
    assert "image/png" in first.outputs[0].data
    assert second.metadata.tags == ["explorable-view", "remove-input"]
    assert list(second.outputs[0].data) == [VIEW]
    assert VIEW in notebook.cells[0].outputs[0].data, "the executed notebook stays as it is"


def test_pages_do_not_depend_on_the_random_names_of_models():
    one, two = (with_steady_models(executed([letter * 32, "9" * 32])) for letter in "ab")
    assert one.metadata == two.metadata
    assert [c.outputs for c in one.cells] == [c.outputs for c in two.cells]
    assert len(one.metadata.widgets[STATE].state) == 2, "models that no view shows are gone"
    assert {c.outputs[0].data[VIEW].model_id for c in one.cells} == set(one.metadata.widgets[STATE].state)
