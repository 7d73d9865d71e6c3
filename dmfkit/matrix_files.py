"""Reads a matrix of the reader's own, missing entries included, from a CSV, TSV, NPY or Parquet file.

Nothing is guessed in silence: what is not an entry (names of rows or columns, another separator) is said in the
result's notes, and what could be read in two ways is refused.
"""

from __future__ import annotations

import hashlib
import html
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dmfkit.errors import InputError
from dmfkit.matrix_arrays import parse_npy, parse_parquet
from dmfkit.matrix_text import parse_text

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
