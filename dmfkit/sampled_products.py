"""The three products of entry-wise completion: entries of a product of thin matrices, and a sparse matrix times thin.

Measured choices, see `python -m benchmarks size`. On the CPU entries are computed in chunks that stay in the cache,
by NumPy: gathers of whole arrays are bound by memory. Both products with the sparse residual use one index: row by row
for the one, and scattering over the columns for the transposed one, so that no second, reordered copy is kept.
"""

from __future__ import annotations

import warnings
from typing import Protocol

import numpy as np
import torch
from scipy.sparse import csc_array, csr_array
from torch import Tensor

# Numbers in each of the two gathered chunks: half a megabyte in double precision.
CHUNK = 65_536


class SampledProducts(Protocol):
    """Products with a sparse matrix ``R`` of fixed pattern, of shape ``(d, d_in)``, that `residual` fills."""

    def residual(self, left: Tensor, right: Tensor) -> Tensor:
        """Fill ``R`` with ``left right^T - values`` at the observed entries; return these, ``(m,)``.

        `left` is ``(d, k)``, `right` is ``(d_in, k)``, both contiguous. What is returned is the memory of ``R``.
        """

    def times(self, right: Tensor) -> Tensor:
        """``R right``, ``(d, k)``."""

    def transposed_times(self, left: Tensor) -> Tensor:
        """``R^T left``, ``(d_in, k)``."""


def sampled_products(rows: Tensor, columns: Tensor, values: Tensor, shape: tuple[int, int]) -> SampledProducts:
    """Products for entries in the order of rows, then columns, where they are kept."""
    kind = HostProducts if values.device.type == "cpu" else DeviceProducts
    return kind(rows, columns, values, shape)


def entries(left: Tensor, right: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Entries of ``left right^T``, ``(m,)``, at the given places."""
    out = torch.empty(len(rows), dtype=left.dtype)
    host = [part.cpu().contiguous().numpy() for part in (left, right, rows, columns)]
    _fill(out.numpy(), *host)
    return out.to(left.device)


def row_starts(rows: Tensor, n_rows: int) -> Tensor:
    """Where each row begins in entries sorted by row, ``(n_rows + 1,)``."""
    counts = torch.bincount(rows, minlength=n_rows)
    return torch.cat([counts.new_zeros(1), counts.cumsum(0)])


def csr_tensor(starts: Tensor, columns: Tensor, values: Tensor, shape: tuple[int, int]) -> Tensor:
    """Sparse matrix in compressed rows, unchecked."""
    with warnings.catch_warnings():
        # torch calls its compressed sparse rows a beta feature, once a process.
        warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta state")
        return torch.sparse_csr_tensor(starts, columns, values, shape, check_invariants=False)


class HostProducts:
    """On the CPU, by NumPy and SciPy; on one thread, so that no last digit depends on the number of threads."""

    def __init__(self, rows: Tensor, columns: Tensor, values: Tensor, shape: tuple[int, int]) -> None:
        self._rows, self._columns, self._values = rows.numpy(), columns.numpy(), values.numpy()
        self._data = np.empty_like(self._values)
        starts = row_starts(rows, shape[0]).int().numpy()
        self._matrix = csr_array((self._data, self._columns, starts), shape=shape)
        # Read as compressed columns, the same three arrays are the transpose.
        self._transposed = csc_array((self._data, self._columns, starts), shape=shape[::-1])

    def residual(self, left: Tensor, right: Tensor) -> Tensor:
        _fill(self._data, left.numpy(), right.numpy(), self._rows, self._columns)
        np.subtract(self._data, self._values, out=self._data)
        return torch.from_numpy(self._data)

    def times(self, right: Tensor) -> Tensor:
        return torch.from_numpy(self._matrix @ right.numpy())

    def transposed_times(self, left: Tensor) -> Tensor:
        return torch.from_numpy(self._transposed @ left.numpy())


class DeviceProducts:
    """On any device, by torch; its transposed product needs the entries in a second order."""

    def __init__(self, rows: Tensor, columns: Tensor, values: Tensor, shape: tuple[int, int]) -> None:
        self._values, self._shape = values, shape
        self._order = torch.argsort(columns.long() * shape[0] + rows)
        self._index = (row_starts(rows, shape[0]).int(), columns)
        self._index_t = (row_starts(columns[self._order], shape[1]).int(), rows[self._order])
        self._data = torch.empty_like(values)

    def residual(self, left: Tensor, right: Tensor) -> Tensor:
        observed = csr_tensor(*self._index, self._values, self._shape)
        found = torch.sparse.sampled_addmm(observed, left, right.mT, beta=-1.0)
        return self._data.copy_(found.values())

    def times(self, right: Tensor) -> Tensor:
        return csr_tensor(*self._index, self._data, self._shape) @ right

    def transposed_times(self, left: Tensor) -> Tensor:
        return csr_tensor(*self._index_t, self._data[self._order], self._shape[::-1]) @ left


def _fill(out: np.ndarray, left: np.ndarray, right: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> None:
    """Write the inner products of the rows of `left` and `right` at the given places to `out`."""
    width = left.shape[1]
    size = max(1, CHUNK // width)
    gathered = np.empty((2, min(size, len(out)), width), dtype=left.dtype)
    for first in range(0, len(out), size):
        here = slice(first, first + size)
        places = rows[here], columns[here]
        # "clip" writes straight to `out`; the default would check the indices in a copy. They are known to be good.
        mine, other = (
            np.take(side, place, axis=0, out=buffer[: len(place)], mode="clip")
            for side, place, buffer in zip((left, right), places, gathered, strict=True)
        )
        np.einsum("ij,ij->i", mine, other, out=out[here])
