"""Reads a matrix of the reader's own, missing entries included, from a CSV, TSV, NPY or Parquet file.

Nothing is guessed in silence: what is not an entry (names of rows or columns, another separator) is said in the
result's notes, and what could be read in two ways is refused.

Reads a matrix from text: fields separated by commas, semicolons or tabs.

Reads a matrix from files of arrays: NumPy's NPY format and Parquet.
"""

from __future__ import annotations

import csv
import hashlib
import html
import io
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from dmfkit.errors import InputError, brief

# How a missing entry may be spelt, besides an empty field; capital letters do not matter.
MISSING = frozenset({"", "nan", "na", "n/a", "null", "none"})
_DECIMAL_COMMA = re.compile(r"[+-]?\d+,\d+")
_BLANK_END = re.compile(r"(\r?\n *)+\Z")
_SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs"}


def parse_text(content: bytes, name: str, separator: str = "") -> tuple[NDArray[np.float64], tuple[str, ...]]:
    """Read the rows of a CSV file.

    A first row that holds a name in every column (the first column's may be empty) is taken as the columns' names. Then
    a first column is taken as the rows' names if it has no name itself, or if it holds text in every row. Otherwise no
    field may hold text.

    Parameters
    ----------
    content : bytes
        UTF-8.
    name : str
        Of the file, for messages.
    separator : str, optional
        Without one it is the semicolon if the first line has one; else the tab, if the line has one and no comma; else
        the comma.

    Returns
    -------
    array : ndarray of float64, shape (d, d_in)
        ``nan`` where an entry is missing.
    notes : tuple of str
        What was taken as names, and the separator unless it is the comma.

    Raises
    ------
    InputError
        If the rows differ in length, a line within is empty, a field holds text where a number should be, or numbers
        of rows and columns cannot be told from entries.
    """
    text = _decode(content, name)
    first_line = text.partition("\n")[0]
    chosen = separator or (";" if ";" in first_line else "\t" if "\t" in first_line and "," not in first_line else ",")
    lines, fields = _rows(text, name, chosen)
    flat = pd.Series(fields.ravel())
    missing = flat.str.lower().isin(MISSING)
    array = pd.to_numeric(flat.mask(missing), errors="coerce").to_numpy(dtype=np.float64).reshape(fields.shape)
    words = np.isnan(array) & ~missing.to_numpy().reshape(fields.shape)
    first_row, first_column = _names(fields, words, name)
    notes = tuple[str, ...]()
    if chosen != "," and not separator:
        notes += (f"Its fields are separated by {_SEPARATORS[chosen]}.",)
    if first_row:
        notes += (f"Its first row, {_shown(fields[0])}, was taken as names of the columns.",)
    if first_column:
        notes += (f"Its first column, {_shown(fields[1:, 0])}, was taken as names of the rows.",)
    wrong = np.argwhere(words[first_row:, first_column:])
    if wrong.size:
        row, column = int(wrong[0][0]) + first_row, int(wrong[0][1]) + first_column
        raise InputError(_about_word(name, lines[row], column + 1, str(fields[row, column])))
    return array[first_row:, first_column:], notes


def _decode(content: bytes, name: str) -> str:
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(
            f"{name} is no text in UTF-8 (byte {error.start + 1}): save it as plain text in UTF-8."
        ) from error
    if "\0" in text:
        raise InputError(f"{name} holds bytes that no text has: save it as plain text in UTF-8.")
    if not text.strip():
        raise InputError(f"{name} is empty: give a file with at least two rows and two columns of numbers.")
    return _BLANK_END.sub("\n", text)


def _rows(text: str, name: str, separator: str) -> tuple[list[int], NDArray[np.object_]]:
    """Line number and fields of every row; all rows have the same length."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator)
    lines, rows = list[int](), list[list[str]]()
    try:
        for row in reader:
            fields = [field.strip() for field in row]
            if fields in ([], [""]):
                raise InputError(
                    f"Line {reader.line_num} of {name} is empty: remove it, or write NaN for entries that are missing."
                )
            if rows and len(fields) != len(rows[0]):
                raise InputError(
                    f"Line {reader.line_num} of {name} has another number of fields ({len(fields)}) than the first "
                    f"row ({len(rows[0])}): every row must have the same number, separated by "
                    f"{_SEPARATORS[separator]}, with empty fields for missing entries."
                )
            lines.append(reader.line_num)
            rows.append(fields)
    except csv.Error as error:
        raise InputError(f"Line {reader.line_num} of {name} cannot be read as CSV ({error}): correct it.") from error
    return lines, np.array(rows, dtype=object)


def _names(fields: NDArray[np.object_], words: NDArray[np.bool_], name: str) -> tuple[int, int]:
    """Tell whether the first row and the first column hold names: 1 or 0 each."""
    corner, rest = fields[0, 0], words[0, 1:]
    if rest.all() and (words[0, 0] or (corner == "" and rest.size)):
        if len(fields) == 1:
            raise InputError(f"{name} has a row of names and no row of numbers: give at least two rows of numbers.")
        return 1, int(fields.shape[1] > 1 and (corner == "" or bool(words[1:, 0].all())))
    across, down = [str(i) for i in range(fields.shape[1] - 1)], [str(i) for i in range(len(fields) - 1)]
    if corner == "" and across and down and fields[0, 1:].tolist() == across and fields[1:, 0].tolist() == down:
        raise InputError(
            f"The first row and column of {name} look like the row and column numbers that pandas writes, not like "
            "entries: write the file with header=False and index=False, or spell a missing first entry as NaN."
        )
    return 0, 0


def _about_word(name: str, line: int, column: int, text: str) -> str:
    where = f"Line {line}, column {column} of {name} has the text {brief(text)} where a number should be"
    if _DECIMAL_COMMA.fullmatch(text):
        return f"{where}: write decimal points, not commas."
    return (
        f"{where}: leave the field of a missing entry empty; names may only stand in the first row, one for every "
        "column, and below such a row in the first column."
    )


def _shown(names: NDArray[np.object_]) -> str:
    quoted = [f'"{str(text)[:30]}"' for text in names[:3] if text]
    return ", ".join(quoted) + (", ..." if len(names) > 3 else "")


def parse_npy(content: bytes, name: str) -> tuple[NDArray[np.float64], tuple[str, ...]]:
    """Read the array of an NPY file; pickled objects are never loaded.

    Returns
    -------
    array : ndarray of float64, shape (d, d_in)
        ``nan`` where an entry is missing.
    notes : tuple of str
        None so far.

    Raises
    ------
    InputError
        If this is no NPY file, it is cut off, or its array is not a matrix of integers or real floating point numbers.
    """
    stream = io.BytesIO(content)
    try:
        version = np.lib.format.read_magic(stream)
        read_header = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
        shape, _, dtype = read_header[version](stream)
    except (ValueError, KeyError) as error:
        raise InputError(f"{name} is no NPY file that can be read: save the matrix by numpy.save.") from error
    if dtype.hasobject:
        raise InputError(
            f"{name} holds Python objects (pickled, and so never loaded here): save it by numpy.save as numbers, for "
            "example after matrix.astype(float)."
        )
    if dtype.kind == "b":
        raise InputError(
            f"{name} holds truth values: a mask is no matrix of numbers, so save the entries themselves, with NaN for "
            "those that are missing."
        )
    if dtype.kind not in "iuf":
        raise InputError(f"{name} holds {dtype}: save it as integers or as real floating point numbers.")
    if len(shape) != 2 or min(shape) < 0:
        raise InputError(f"{name} holds an array of shape {shape}: save a matrix, that is, an array of two dimensions.")
    # Before anything of that size is set aside.
    expected, there = math.prod(shape) * dtype.itemsize, len(content) - stream.tell()
    if there < expected:
        raise InputError(
            f"{name} is cut off: {there:,} of the {expected:,} bytes of its array are there, so save it again."
        )
    stream.seek(0)
    with np.errstate(over="ignore"):  # too large for double precision: infinite, and refused as such
        return np.lib.format.read_array(stream, allow_pickle=False).astype(np.float64), ()


def parse_parquet(content: bytes, name: str) -> tuple[NDArray[np.float64], tuple[str, ...]]:
    """Read the columns of a Parquet file as the columns of a matrix; an index that pandas wrote is left out.

    Returns and raises as `parse_npy` does; null values are missing. Also raises `InputError` where pyarrow is not
    installed.
    """
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise InputError(
            f"{name} cannot be read: Parquet files need the package pyarrow, which is not installed here, so install "
            "it (pip install pyarrow) or save the matrix as .csv or .npy."
        ) from error
    try:
        frame = pyarrow.parquet.read_table(pyarrow.BufferReader(content)).to_pandas()
    except (pyarrow.ArrowException, OSError, ValueError, TypeError) as error:
        raise InputError(
            f"{name} is no Parquet file that can be read ({type(error).__name__}): save it again."
        ) from error
    for column, kind in frame.dtypes.items():
        if kind.kind not in "iuf":
            raise InputError(
                f"Column {str(column)!r} of {name} holds {kind}: every column must hold integers or real floating "
                "point numbers, so drop or convert it."
            )
    named = not isinstance(frame.index, pd.RangeIndex)
    notes = ("Its index was taken as names of the rows.",) if named else ()
    return frame.to_numpy(dtype=np.float64, na_value=np.nan), notes


# Reads an array, nan where an entry is missing, and notes on what was no entry.
_Parser = Callable[[bytes, str], tuple[NDArray[np.float64], tuple[str, ...]]]
_PARSERS: dict[str, _Parser] = {
    ".csv": lambda content, name: parse_text(content, name),
    ".tsv": lambda content, name: parse_text(content, name, "\t"),
    ".npy": parse_npy,
    ".parquet": parse_parquet,
}
ENDINGS = tuple(_PARSERS)
# A dense matrix of this size could not be factorized here anyway.
LARGEST_FILE = 1_000_000_000
# Squares and their sums stay far from what double precision can hold.
LARGEST_ENTRY, SMALLEST_ENTRY = 1e100, 1e-100
# So many rows or columns are named in a note; more are counted.
NAMED = 8


@dataclass(frozen=True, eq=False, repr=False)
class ObservedMatrix:
    """A matrix of which some entries are known, as a file holds it; the arrays are read-only.

    Attributes
    ----------
    values : ndarray of float64, shape (d, d_in)
        The known entries, 0 where there is none.
    observed : ndarray of bool, shape (d, d_in)
        Which entries are known.
    name : str
        Name of the file, without its folder.
    sha256 : str
        Hash of the file's bytes.
    notes : tuple of str
        Sentences on what the reader has to know: what was taken as names, rows or columns without a known entry.
    """

    values: NDArray[np.float64]
    observed: NDArray[np.bool_]
    name: str
    sha256: str
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        known, all_entries = int(self.observed.sum()), self.observed.size
        size = f"{self.values.shape[0]} x {self.values.shape[1]}"
        counts = f"{known:,} of its {all_entries:,} entries known, {all_entries - known:,} missing"
        first = f"{self.name}: a {size} matrix, {counts}."
        return " ".join([first, *self.notes])

    __repr__ = __str__

    def _repr_html_(self) -> str:
        # Names come from the file and could be anything.
        return f"<p>{html.escape(str(self))}</p>"


def read_matrix(path: str | Path) -> ObservedMatrix:
    """Read a matrix from a file; its ending says how.

    Parameters
    ----------
    path : str or Path
        ``.csv`` (separated by commas, or by semicolons or tabs if its first line has those), ``.tsv`` (by tabs),
        ``.npy`` (two-dimensional, integers or real floating point numbers), or ``.parquet`` (numeric columns; needs
        pyarrow). Empty fields, ``NaN``, ``NA``, ``N/A``, ``null`` and null values are missing entries.

    Returns
    -------
    ObservedMatrix

    Raises
    ------
    InputError
        If there is no such file, it cannot be read as its ending says, it has an infinite entry, no known entry but
        zeros, or fewer than two rows or columns.
    """
    content = read_bytes(path)
    name = Path(path).name
    array, notes = _PARSERS[Path(path).suffix.lower()](content, name)
    return _checked(array, name, hashlib.sha256(content).hexdigest(), notes)


@lru_cache(maxsize=2)
def read_matrix_of(path: str, sha256: str) -> ObservedMatrix:
    """Read the matrix of a file whose content is known by its hash; the latest ones are kept.

    Raises
    ------
    InputError
        As `read_matrix` does, and if the file's content is another one.
    """
    matrix = read_matrix(path)
    if matrix.sha256 != sha256:
        raise InputError(f"The file {path} has changed since the task was made from it: make the task anew.")
    return matrix


def read_bytes(path: str | Path) -> bytes:
    """Read the bytes of a matrix file, checking the name and nothing inside.

    Raises
    ------
    InputError
        If there is no such file, it has an ending that is not known, is empty, too large or cannot be read.
    """
    if not isinstance(path, str | Path) or not str(path):
        raise InputError(f"{path!r} names no file: give the path of a file that ends in {', '.join(ENDINGS)}.")
    file = Path(path).expanduser()
    try:
        if file.is_dir():
            raise InputError(f"{path} is a folder: give the path of a file that ends in {', '.join(ENDINGS)}.")
        if not file.exists():
            raise InputError(f"There is no file {path} (looked for at {file.absolute()}): correct its path.")
        if file.suffix.lower() not in _PARSERS:
            raise InputError(f"{path} cannot be read: {_about_ending(file.suffix)}.")
        if not file.is_file():
            raise InputError(f"{path} is no ordinary file: give the path of a file that ends in {', '.join(ENDINGS)}.")
        size = file.stat().st_size
        if size > LARGEST_FILE:
            raise InputError(f"{path} has {size:,} bytes: at most {LARGEST_FILE:,} are read, so take a part of it.")
        content = file.read_bytes()
    except (OSError, RuntimeError) as error:  # RuntimeError: a home folder that cannot be found
        raise InputError(f"{path} cannot be read ({getattr(error, 'strerror', None) or error}).") from error
    if not content.strip():
        raise InputError(f"{path} is empty: give a file with at least two rows and two columns of numbers.")
    return content


def _about_ending(suffix: str) -> str:
    if suffix.lower() == ".npz":
        return "a .npz file holds several arrays, so save the one that you mean by numpy.save as a .npy file"
    found = f"the ending {suffix} is not one of" if suffix else "it has no ending, which should be one of"
    return f"{found} {', '.join(ENDINGS)}, so save it as one of these"


def _checked(array: NDArray[np.float64], name: str, sha256: str, notes: tuple[str, ...]) -> ObservedMatrix:
    """Refuse what no method could complete, and say what the reader has to know."""
    rows, columns = array.shape
    if min(rows, columns) < 2:
        raise InputError(
            f"{name} has {_count(rows, 'row')} and {_count(columns, 'column')} of numbers: at least two of each are "
            "needed, because a matrix of one row or column has rank one whatever its entries are."
        )
    infinite = np.argwhere(np.isinf(array))
    if infinite.size:
        row, column = infinite[0] + 1
        raise InputError(
            f"{name} has an infinite entry in row {row}, column {column} of the matrix: entries must be finite, so "
            "correct it or leave it missing."
        )
    observed = ~np.isnan(array)
    if not observed.any():
        raise InputError(f"Every entry of {name} is missing: at least one must be a number.")
    largest = float(np.abs(array[observed]).max())
    if largest == 0:
        raise InputError(f"Every known entry of {name} is 0, so there is nothing to find: give a matrix that is not 0.")
    if not SMALLEST_ENTRY <= largest <= LARGEST_ENTRY:
        raise InputError(
            f"The largest entry of {name} is {largest:.3g} in absolute value: it must lie between {SMALLEST_ENTRY:g} "
            f"and {LARGEST_ENTRY:g}, so give the matrix in other units."
        )
    values = np.where(observed, array, 0.0)
    notes += (*_unobserved("row", observed.any(axis=1)), *_unobserved("column", observed.any(axis=0)))
    if np.ptp(array[observed]) == 0:
        notes += (f"All known entries are {largest * np.sign(values.sum()):g}: a matrix of rank one fits them.",)
    for kept in (values, observed):
        kept.flags.writeable = False
    return ObservedMatrix(values, observed, name, sha256, notes)


def _unobserved(kind: str, known: Any) -> tuple[str, ...]:
    places = np.flatnonzero(~known) + 1
    if not places.size:
        return ()
    listed = ", ".join(map(str, places[:NAMED])) + (" and others" if places.size > NAMED else "")
    if places.size == 1:
        return (f"No entry of {kind} {listed} is known, so nothing can be said about it.",)
    return (f"No entry of {places.size} {kind}s ({listed}) is known, so nothing can be said about them.",)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
