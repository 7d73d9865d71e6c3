"""Reads a matrix from text: fields separated by commas, semicolons or tabs."""

from __future__ import annotations

import csv
import io
import re

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
