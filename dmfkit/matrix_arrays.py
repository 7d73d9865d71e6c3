"""Reads a matrix from files of arrays: NumPy's NPY format and Parquet."""

from __future__ import annotations

import io
import math

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from dmfkit.errors import InputError


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
