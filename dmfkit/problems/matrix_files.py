"""Reads a matrix of the reader's own, some entries missing, from a CSV, TSV, NPY or Parquet file.

Nothing is guessed in silence: what is not an entry (names of rows or columns, another separator) is said in the
result's notes, and what could be read in two ways is refused. A parser for every format makes an array and notes of a
file's bytes; what must hold of a matrix from any of them is checked in one place.
"""

from __future__ import annotations

import csv
import hashlib
import html
import io
import math
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache, partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from dmfkit.errors import InputError, brief

# How a missing entry may be spelt, besides an empty field; capital letters do not matter.
MISSING = frozenset({"", "nan", "na", "n/a", "null", "none"})
# The commonest capitals, which pandas compares fast; other spellings are found field by field.
_MISSING_TO_PANDAS = sorted({spelt for word in MISSING for spelt in (word, word.upper(), word.title())} | {"NaN"})
_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)(e[+-]?[0-9]+)?|[+-]?inf(inity)?", re.IGNORECASE)
_DECIMAL_COMMA = re.compile(r"[+-]?\d+,\d+")
_BLANK_END = re.compile(rb"(\r?\n *)+\Z")
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
    content = _without_blank_end(content, name)
    start = content.partition(b"\n")[0]
    chosen = separator or (";" if b";" in start else "\t" if b"\t" in start and b"," not in start else ",")
    first, n_rows = _check_rows(content, name, chosen)
    named = [_number(field) is None for field in first]
    header = all(named[1:]) and (named[0] or (first[0] == "" and len(first) > 1))
    if header and n_rows == 1:
        raise InputError(f"{name} has a row of names and no row of numbers: give at least two rows of numbers.")
    read = partial(_read_csv, content, name, sep=chosen, header=0 if header else None)
    frame = read(na_values=_MISSING_TO_PANDAS)
    # Looked at as text: columns in which pandas met anything but numbers, and one without a name, which may hold names
    # that are numbers.
    unclear = [j for j, kind in enumerate(frame.dtypes) if kind.kind not in "iuf" or (j == 0 and first[0] == "")]
    texts = dict[int, list[str]]()
    if unclear:
        fields = read(usecols=unclear, dtype=object, na_filter=False)
        texts = {j: [text.strip() for text in fields.iloc[:, at]] for at, j in enumerate(unclear)}
    if frame.shape != (n_rows - header, len(first)):
        raise InputError(f"{name} cannot be read as CSV (its rows end in other places for pandas): correct it.")
    array, is_text = np.empty(frame.shape), np.zeros(frame.shape, dtype=bool)
    for j in range(len(first)):
        if j in texts:
            numbers = [_number(text) for text in texts[j]]
            array[:, j], is_text[:, j] = numbers, [number is None for number in numbers]
        else:
            array[:, j] = frame.iloc[:, j]
    across, down = [str(i) for i in range(len(first) - 1)], [str(i) for i in range(n_rows - 1)]
    if across and down and not header and first == ["", *across] and texts[0] == ["", *down]:
        raise InputError(
            f"The first row and column of {name} look like the row and column numbers that pandas writes, not like "
            "entries: write the file with header=False and index=False, or spell a missing first entry as NaN."
        )
    index = header and len(first) > 1 and (first[0] == "" or bool(is_text[:, 0].all()))
    wrong = np.argwhere(is_text[:, index:])
    if wrong.size:
        row, column = int(wrong[0][0]), int(wrong[0][1]) + index
        line, _ = next(islice(_rows(content, name, chosen), header + row, None))
        raise InputError(_about_text(name, line, column + 1, texts[column][row]))
    notes = tuple[str, ...]()
    if chosen != "," and not separator:
        notes += (f"Its fields are separated by {_SEPARATORS[chosen]}.",)
    if header:
        notes += (f"Its first row, {_quoted(first)}, was taken as names of the columns.",)
    if index:
        notes += (f"Its first column, {_quoted(texts[0])}, was taken as names of the rows.",)
    return array[:, index:], notes


def _without_blank_end(content: bytes, name: str) -> bytes:
    """Return UTF-8 text without its byte order mark and the blank lines at its end."""
    content = content.removeprefix(b"\xef\xbb\xbf")
    try:
        blank = not content.decode("utf-8").strip()
    except UnicodeDecodeError as error:
        raise InputError(
            f"{name} is no text in UTF-8 (byte {error.start + 1}): save it as plain text in UTF-8."
        ) from error
    if b"\0" in content:
        raise InputError(f"{name} holds bytes that no text has: save it as plain text in UTF-8.")
    if blank:
        raise InputError(f"{name} is empty: give a file with at least two rows and two columns of numbers.")
    return _BLANK_END.sub(b"\n", content)


def _rows(content: bytes, name: str, separator: str) -> Iterator[tuple[int, list[str]]]:
    """Line number and fields of every row."""
    reader = csv.reader(io.TextIOWrapper(io.BytesIO(content), "utf-8", newline=""), delimiter=separator)
    try:
        for row in reader:
            yield reader.line_num, row
    except csv.Error as error:
        raise InputError(f"Line {reader.line_num} of {name} cannot be read as CSV ({error}): correct it.") from error


def _check_rows(content: bytes, name: str, separator: str) -> tuple[list[str], int]:
    """Return the fields of the first row and the number of rows, all of which must have as many fields.

    By Python's reader, because pandas' fills a short row with missing entries and does not say so, and because messages
    need the numbers of lines.
    """
    first, n_rows = list[str](), 0
    for line, row in _rows(content, name, separator):
        if not row or (len(row) == 1 and not row[0].strip()):
            raise InputError(f"Line {line} of {name} is empty: remove it, or write NaN for entries that are missing.")
        first = first or [field.strip() for field in row]
        if len(row) != len(first):
            raise InputError(
                f"Line {line} of {name} has another number of fields ({len(row)}) than the first row ({len(first)}): "
                f"every row must have the same number, separated by {_SEPARATORS[separator]}, with empty fields for "
                "missing entries."
            )
        n_rows += 1
    return first, n_rows


def _read_csv(content: bytes, name: str, **options: Any) -> pd.DataFrame:
    options |= {"index_col": False, "keep_default_na": False, "skip_blank_lines": False, "low_memory": False}
    try:
        return pd.read_csv(io.BytesIO(content), **options)
    except pd.errors.ParserError as error:
        reason = str(error).strip().removeprefix("Error tokenizing data. C error: ")
        raise InputError(f"{name} cannot be read as CSV ({reason}): correct its quotation marks.") from error


def _number(text: str) -> float | None:
    """Value of a field, ``nan`` if it is missing, ``None`` if it is neither."""
    if text.lower() in MISSING:
        return math.nan
    return float(text) if _NUMBER.fullmatch(text) else None


def _about_text(name: str, line: int, column: int, text: str) -> str:
    where = f"Line {line}, column {column} of {name} has the text {brief(text)} where a number should be"
    if _DECIMAL_COMMA.fullmatch(text):
        return f"{where}: write decimal points, not commas."
    return (
        f"{where}: leave the field of a missing entry empty; names may only stand in the first row, one for every "
        "column, and below such a row in the first column."
    )


def _quoted(names: list[str]) -> str:
    quoted = [f'"{name[:30]}"' for name in names[:3] if name]
    return ", ".join(quoted) + (", ..." if len(names) > 3 else "")


def _parse_npy(content: bytes, name: str) -> tuple[NDArray[np.float64], tuple[str, ...]]:
    """Read the array of an NPY file; pickled objects are never loaded.

    Its header is looked at first, because `numpy.load` sets aside as much memory as that asks for, and has one kind of
    error for all that can be wrong.
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
    expected, there = math.prod(shape) * dtype.itemsize, len(content) - stream.tell()
    if there < expected:
        raise InputError(
            f"{name} is cut off: {there:,} of the {expected:,} bytes of its array are there, so save it again."
        )
    with np.errstate(over="ignore"):  # too large for double precision: infinite, and refused as such
        return np.load(io.BytesIO(content), allow_pickle=False).astype(np.float64), ()


def _parse_parquet(content: bytes, name: str) -> tuple[NDArray[np.float64], tuple[str, ...]]:
    """Read the columns of a Parquet file; null values are missing, and an index that pandas wrote is left out."""
    try:
        import pyarrow

        frame = pd.read_parquet(io.BytesIO(content), engine="pyarrow")
    except ImportError as error:
        raise InputError(
            f"{name} cannot be read: Parquet files need the package pyarrow, which is not installed here or too old, "
            "so install it (pip install --upgrade pyarrow) or save the matrix as .csv or .npy."
        ) from error
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
    notes = () if isinstance(frame.index, pd.RangeIndex) else ("Its index was taken as names of the rows.",)
    return frame.to_numpy(dtype=np.float64, na_value=np.nan), notes


# From a file's bytes and name, for messages, to an array, nan where an entry is missing, and notes on what is no entry.
_Parser = Callable[[bytes, str], tuple[NDArray[np.float64], tuple[str, ...]]]
_PARSERS: dict[str, _Parser] = {
    ".csv": parse_text,
    ".tsv": partial(parse_text, separator="\t"),
    ".npy": _parse_npy,
    ".parquet": _parse_parquet,
}
SUFFIXES = tuple(_PARSERS)
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
        raise InputError(f"{path!r} names no file: give the path of a file that ends in {', '.join(SUFFIXES)}.")
    file = Path(path).expanduser()
    try:
        if file.is_dir():
            raise InputError(f"{path} is a folder: give the path of a file that ends in {', '.join(SUFFIXES)}.")
        if not file.exists():
            raise InputError(f"There is no file {path} (looked for at {file.absolute()}): correct its path.")
        if file.suffix.lower() not in _PARSERS:
            raise InputError(f"{path} cannot be read: {_about_suffix(file.suffix)}.")
        if not file.is_file():
            raise InputError(f"{path} is no ordinary file: give the path of a file that ends in {', '.join(SUFFIXES)}.")
        size = file.stat().st_size
        if size > LARGEST_FILE:
            raise InputError(f"{path} has {size:,} bytes: at most {LARGEST_FILE:,} are read, so take a part of it.")
        content = file.read_bytes()
    except (OSError, RuntimeError) as error:  # RuntimeError: a home folder that cannot be found
        raise InputError(f"{path} cannot be read ({getattr(error, 'strerror', None) or error}).") from error
    if not content.strip():
        raise InputError(f"{path} is empty: give a file with at least two rows and two columns of numbers.")
    return content


def _about_suffix(suffix: str) -> str:
    if suffix.lower() == ".npz":
        return "a .npz file holds several arrays, so save the one that you mean by numpy.save as a .npy file"
    found = f"the ending {suffix} is not one of" if suffix else "it has no ending, which should be one of"
    return f"{found} {', '.join(SUFFIXES)}, so save it as one of these"


def _checked(array: NDArray[np.float64], name: str, sha256: str, notes: tuple[str, ...]) -> ObservedMatrix:
    """Refuse what no method could complete, and say what the reader has to know."""
    rows, columns = array.shape
    if min(rows, columns) < 2:
        raise InputError(
            f"{name} has {rows} row{'s' * (rows != 1)} and {columns} column{'s' * (columns != 1)} of numbers: at least "
            "two of each are needed, because a matrix of one row or column has rank one whatever its entries are."
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
