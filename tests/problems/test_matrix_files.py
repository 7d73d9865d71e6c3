"""Matrices from files: what is read, what is said, and one sentence for everything that cannot be read."""

from __future__ import annotations

import io
import pickle
import sys

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from dmfkit import InputError, read_matrix
from dmfkit.problems.matrix_files import parse_text

NAN = float("nan")


def write(folder, content, name="m.csv"):
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def npy(array, **options):
    stream = io.BytesIO()
    np.save(stream, array, **options)
    return stream.getvalue()


def entries(matrix):
    return np.where(matrix.observed, matrix.values, np.nan).tolist()


def refusal(path):
    with pytest.raises(InputError) as caught:
        read_matrix(path)
    sentence = str(caught.value)
    assert sentence.endswith(".")
    assert "\n" not in sentence
    return sentence


@pytest.mark.parametrize(
    ("content", "name", "expected", "said"),
    [
        ("1,2\n3,\n", "m.csv", [[1, 2], [3, NAN]], ""),
        ("1, 2\r\n-3e-2 ,NaN\r\n\r\n", "m.csv", [[1, 2], [-0.03, NAN]], ""),
        ("\ufeff1,n/a\nnull,4", "M.CSV", [[1, NAN], [NAN, 4]], ""),
        ("1;2\n;4\n", "m.csv", [[1, 2], [NAN, 4]], "separated by semicolons"),
        ("1\t2\n3\t\n", "m.csv", [[1, 2], [3, NAN]], "separated by tabs"),
        ("1\t2\n3\t\n", "m.tsv", [[1, 2], [3, NAN]], ""),
        ("a,b\n1,2\n3,4\n", "m.csv", [[1, 2], [3, 4]], 'Its first row, "a", "b", was taken as names of the columns.'),
        (
            ",a,b\n7,1,2\n8,3,\n",
            "m.csv",
            [[1, 2], [3, NAN]],
            'Its first column, "7", "8", was taken as names of the rows.',
        ),
        ("who,a,b\nann,1,2\nbob,3,\n", "m.csv", [[1, 2], [3, NAN]], '"ann", "bob", was taken as names of the rows'),
        # A named column of numbers is a column of entries.
        ("id,a\n7,1\n8,3\n", "m.csv", [[7, 1], [8, 3]], "names of the columns"),
        # Numbers are entries, years included, where nothing says otherwise.
        ("2001,2002\n1,2\n", "m.csv", [[2001, 2002], [1, 2]], ""),
        (",1\n,2\n", "m.csv", [[NAN, 1], [NAN, 2]], "No entry of column 1 is known, so nothing can be said about it."),
        # Spellings that pandas does not know, and spaces of all kinds.
        ("nAn, 0 \n\u00a01,+2.\r\n 3\u00a0, n/A\n", "m.csv", [[NAN, 0], [1, 2], [3, NAN]], ""),
        ("id,a\r,1\r2,3\r", "m.csv", [[NAN, 1], [2, 3]], "names of the columns"),
        ('"a\nb","a"\n"1","-2"\n3,\n', "m.csv", [[1, -2], [3, NAN]], "names of the columns"),
        (
            "9007199254740993,0.1\n123456789012345678901234567890,1\n",
            "m.csv",
            [[2**53, 0.1], [123456789012345678901234567890.0, 1]],
            "",
        ),
        ("1,2\n,\n,\n", "m.csv", [[1, 2], [NAN, NAN], [NAN, NAN]], "No entry of 2 rows (2, 3) is known"),
        ("5,5\n5,\n", "m.csv", [[5, 5], [5, NAN]], "All known entries are 5: a matrix of rank one fits them."),
        (npy(np.array([[1, 2], [3, 4]])), "m.npy", [[1, 2], [3, 4]], ""),
        (npy(np.array([[1, NAN], [3, 4]], dtype=">f4")), "m.npy", [[1, NAN], [3, 4]], ""),
        (npy(np.asfortranarray([[1.0, 2.0, 0.0], [3.0, 4.0, 0.0]])), "m.npy", [[1, 2, 0], [3, 4, 0]], ""),
    ],
)
def test_what_is_read_and_said(content, name, expected, said, tmp_path):
    matrix = read_matrix(write(tmp_path, content, name))
    np.testing.assert_array_equal(entries(matrix), expected)
    assert (matrix.values[~matrix.observed] == 0).all()
    assert said in str(matrix)
    if not said:
        assert matrix.notes == ()


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("", "m.csv is empty"),
        ("\ufeff\n \n", "m.csv is empty"),
        ("1,2\n3\n", "Line 2 of m.csv has another number of fields (1) than the first row (2)"),
        ("1,2\n3,4,5\n", "Line 2 of m.csv has another number of fields (3) than the first row (2)"),
        ("1,2\n\n3,4\n", "Line 2 of m.csv is empty: remove it"),
        ("1,2\n3,abc\n", "Line 2, column 2 of m.csv has the text 'abc' where a number should be"),
        ("a,b\n1,2\n3,x\n", "Line 3, column 2 of m.csv has the text 'x'"),
        (",a,b\n7,1,2\n8,?,3\n", "Line 3, column 2 of m.csv has the text '?'"),
        # Names of rows without names of columns, and names of columns that are numbers, could be read in two ways.
        ("ann,1,2\nbob,2,3\n", "Line 1, column 1 of m.csv has the text 'ann'"),
        ("who,2001,2002\nann,1,2\n", "Line 1, column 1 of m.csv has the text 'who'"),
        (",0,1\n0,1,2\n1,3,\n", "look like the row and column numbers that pandas writes"),
        ("1,5;2\n3;4\n", "Line 1, column 1 of m.csv has the text '1,5' where a number should be: write decimal points"),
        ("1_000,2\n3,4\n", "has the text '1_000'"),
        ("1+2j,2\n3,4\n", "has the text '1+2j'"),
        ("True,2\n3,4\n", "has the text 'True'"),
        ("True,2\nfalse,4\n", "has the text 'True'"),
        ("1,2\n3,-nan\n", "has the text '-nan'"),
        ("1,2\n\uff13,4\n", "has the text '\uff13'"),
        ('1,2\n3,"4\n', "m.csv cannot be read as CSV (EOF inside string starting at row 1): correct its quotation"),
        ('a,"b\nc"\n\n1,2\n', "Line 3 of m.csv is empty"),
        ('a,"b\nc"\n1,2\n3,x\n', "Line 4, column 2 of m.csv has the text 'x'"),
        ("1,2\n3,-inf\n", "m.csv has an infinite entry in row 2, column 2"),
        ("1,2\n3,1e999\n", "m.csv has an infinite entry in row 2, column 2"),
        ("a,b\n1,inf\n3,4\n", "m.csv has an infinite entry in row 1, column 2 of the matrix"),
        ("NA,\nnan,\n", "Every entry of m.csv is missing"),
        ("0,0\n-0.0,\n", "Every known entry of m.csv is 0"),
        ("1\n", "m.csv has 1 row and 1 column of numbers: at least two of each"),
        ("1\n2\n", "m.csv has 2 rows and 1 column"),
        ("1,2\n", "m.csv has 1 row and 2 columns"),
        ("a,b\n", "m.csv has a row of names and no row of numbers"),
        ("1e200,1\n1,1\n", "The largest entry of m.csv is 1e+200"),
        ("1e-200,0\n0,0\n", "The largest entry of m.csv is 1e-200"),
        ("1,2\0\n3,4\n", "m.csv holds bytes that no text has"),
        (b"\xff\xfe1\x00,\x002\x00", "m.csv is no text in UTF-8 (byte 1)"),
        ('1,"' + "x" * 200_000 + '"\n', "Line 1 of m.csv cannot be read as CSV"),
    ],
)
def test_a_text_that_is_no_matrix_is_one_sentence(content, sentence, tmp_path):
    assert sentence in refusal(write(tmp_path, content))


def test_rows_that_pandas_divides_otherwise_are_refused(tmp_path, monkeypatch):
    """No such text is known: 29,000 of all kinds of quotation marks and ends of lines were tried."""
    monkeypatch.setattr(pd, "read_csv", lambda *_, **__: pd.DataFrame([[1.0, 2.0]]))
    assert "m.csv cannot be read as CSV (its rows end in other places for pandas)" in refusal(
        write(tmp_path, "1,2\n3,4\n")
    )


class Explosive:
    """Unpickling one of these raises."""

    def __reduce__(self):
        return (pytest.fail, ("something was unpickled",))


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (npy(np.array([1.0, 2.0])), "holds an array of shape (2,): save a matrix"),
        (npy(np.zeros((2, 2, 2))), "holds an array of shape (2, 2, 2)"),
        (npy(np.float64(3.0)), "holds an array of shape ()"),
        (npy(np.zeros((0, 4))), "has 0 rows and 4 columns"),
        (npy(np.array([[True, False], [False, True]])), "holds truth values"),
        (npy(np.array([[1j, 2], [3, 4]])), "holds complex128"),
        (npy(np.array([["a", "b"], ["c", "d"]])), "holds <U1"),
        (npy(np.array([[(1, 2.0)] * 2] * 2, dtype=[("a", int), ("b", float)])), "m.npy holds [('a'"),
        (npy(np.array([["2020-01-01"] * 2] * 2, dtype="datetime64[D]")), "holds datetime64"),
        (npy(np.array([[Explosive()] * 2] * 2, dtype=object), allow_pickle=True), "holds Python objects (pickled"),
        (pickle.dumps(Explosive()), "is no NPY file"),
        (npy(np.ones((3, 3)))[:-1], "is cut off: 71 of the 72 bytes"),
        (npy(np.ones((3, 3)))[:40], "is no NPY file"),
        (npy(np.ones((3, 3)))[:8], "is no NPY file"),
        (npy(np.ones((3, 3))).replace(b"(3, 3), }", b"(-3, 3), }"), "holds an array of shape (-3, 3)"),
        (b"1,2\n3,4\n", "is no NPY file"),
        (npy(np.array([[1, np.inf], [3, 4]])), "infinite entry in row 1, column 2"),
        (npy(np.full((2, 2), NAN)), "Every entry of m.npy is missing"),
    ],
)
def test_an_array_that_is_no_matrix_is_one_sentence(content, sentence, tmp_path):
    assert sentence in refusal(write(tmp_path, content, "m.npy"))


def test_a_header_that_promises_too_much_sets_nothing_aside(tmp_path):
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(stream, {"descr": "<f8", "fortran_order": False, "shape": (10**9, 10**9)})
    assert "is cut off: 0 of the 8,000,000,000,000,000,000 bytes" in refusal(
        write(tmp_path, stream.getvalue(), "m.npy")
    )


def test_a_number_that_double_precision_cannot_hold_is_infinite(tmp_path):
    if np.finfo(np.longdouble).max == np.finfo(float).max:
        pytest.skip("long doubles are doubles here")
    huge = np.full((2, 2), np.longdouble(10) ** 400)
    assert "infinite entry" in refusal(write(tmp_path, npy(huge), "m.npy"))


@pytest.mark.parametrize("name", ["m.txt", "m.npz", "m.csv.gz", "matrix", "m.pkl", "m.xlsx"])
def test_other_endings_are_refused_with_those_that_are_read(name, tmp_path):
    sentence = refusal(write(tmp_path, b"1", name))
    assert ".npy file" in sentence if name == "m.npz" else ".csv, .tsv, .npy, .parquet" in sentence


def test_what_is_no_file_is_one_sentence(tmp_path):
    assert f"There is no file nowhere.csv (looked for at {tmp_path.cwd()}" in refusal("nowhere.csv")
    assert "is a folder" in refusal(tmp_path)
    (tmp_path / "folder.csv").mkdir()
    assert "is a folder" in refusal(tmp_path / "folder.csv")
    assert "names no file" in refusal("")
    assert "names no file" in refusal(3)
    assert "no ordinary file" in refusal(write_fifo(tmp_path))


def write_fifo(folder):
    import os

    os.mkfifo(folder / "pipe.csv")
    return folder / "pipe.csv"


def test_a_file_that_is_too_large_is_not_read(tmp_path):
    path = write(tmp_path, b"1,2\n")
    with path.open("r+b") as file:
        file.truncate(1_000_000_001)  # a hole, which takes no space
    assert "has 1,000,000,001 bytes" in refusal(path)


def test_parquet_with_nulls_and_an_index(tmp_path):
    pytest.importorskip("pyarrow")
    frame = pd.DataFrame({"a": [1, 2], "b": [0.5, None]})
    frame.to_parquet(tmp_path / "m.parquet")
    matrix = read_matrix(tmp_path / "m.parquet")
    np.testing.assert_array_equal(entries(matrix), [[1, 0.5], [2, NAN]])
    assert matrix.notes == ()
    frame.astype({"a": "Int64"}).assign(a=pd.array([None, 3], dtype="Int64"), name=["x", "y"]).set_index(
        "name"
    ).to_parquet(tmp_path / "named.parquet")
    matrix = read_matrix(tmp_path / "named.parquet")
    np.testing.assert_array_equal(entries(matrix), [[NAN, 0.5], [3, NAN]])
    assert "Its index was taken as names of the rows." in matrix.notes


@pytest.mark.parametrize(
    ("column", "kind"),
    [
        (["x", "y"], "str"),
        ([True, False], "bool"),
        (pd.to_datetime(["2020", "2021"]), "datetime64"),
        ([[1], [2]], "object"),
    ],
)
def test_parquet_columns_that_are_no_numbers_are_named(column, kind, tmp_path):
    pytest.importorskip("pyarrow")
    pd.DataFrame({"a": [1, 2], "other": column}).to_parquet(tmp_path / "m.parquet")
    sentence = refusal(tmp_path / "m.parquet")
    assert f"Column 'other' of m.parquet holds {kind}" in sentence


def test_broken_parquet(tmp_path):
    pytest.importorskip("pyarrow")
    pd.DataFrame({"a": [1.0, 2.0], "b": [3.0, 4.0]}).to_parquet(tmp_path / "whole.parquet")
    content = (tmp_path / "whole.parquet").read_bytes()
    for broken in (content[:-20], content[: len(content) // 2], b"1,2\n3,4\n", b"PAR1" + bytes(50) + b"PAR1"):
        assert "is no Parquet file that can be read" in refusal(write(tmp_path, broken, "m.parquet"))


def test_without_pyarrow_a_sentence_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    sentence = refusal(write(tmp_path, b"PAR1", "m.parquet"))
    assert "pip install --upgrade pyarrow" in sentence
    assert ".csv or .npy" in sentence


def test_names_from_a_file_are_escaped_on_a_page(tmp_path):
    matrix = read_matrix(write(tmp_path, "<b>x</b>,y\n1,2\n3,4\n"))
    assert "<b>" in str(matrix)
    assert "<b>" not in matrix._repr_html_()
    assert "&lt;b&gt;" in matrix._repr_html_()


def test_the_arrays_cannot_be_changed(tmp_path):
    matrix = read_matrix(write(tmp_path, "1,2\n3,4\n"))
    with pytest.raises(ValueError, match="read-only"):
        matrix.values[0, 0] = 5


_NUMBERS = st.one_of(st.just(NAN), st.floats(-1e99, 1e99, allow_subnormal=False))


@settings(max_examples=50, deadline=None)
@given(arrays(float, st.tuples(st.integers(1, 6), st.integers(2, 6)), elements=_NUMBERS), st.sampled_from([",", ";"]))
def test_what_numpy_writes_is_read_again_exactly(array, separator):
    stream = io.BytesIO()
    np.savetxt(stream, array, delimiter=separator)
    found, notes = parse_text(stream.getvalue(), "m.csv")
    np.testing.assert_allclose(found, array, rtol=1e-15)
    assert notes == (() if separator == "," else ("Its fields are separated by semicolons.",))
