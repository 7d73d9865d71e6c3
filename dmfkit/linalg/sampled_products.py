"""What entry-wise completion needs of its residual: the square, and products with thin matrices.

On a CPU all of it is one pass over the entries, row by row, which keeps no residual; the transposed product scatters
over the columns, so that there is no second, reordered copy of the entries.
"""

from __future__ import annotations

import warnings
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from dmfkit.linalg.backend import ParallelMap, serial_map

# Rows are gone through in at most so many groups, whatever the number of threads, so that it changes no last digit.
MOST_GROUPS = 8


class SampledProducts(Protocol):
    """The residual ``R`` of products ``left core right^T`` at fixed entries of a matrix of shape ``(d, d_in)``.

    `left` is ``(d, h)``, `core` ``(h, k)`` and `right` ``(d_in, k)``, all contiguous.
    """

    def square(self, left: Tensor, core: Tensor, right: Tensor) -> Tensor:
        """Sum of squared residuals."""

    def square_and_gradients(
        self, left: Tensor, core: Tensor, right: Tensor, scale: float, to_left: Tensor, to_core: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The same, and ``scale R^T left core``, which may be memory that the next call uses again.

        ``scale R right core^T`` and ``scale left^T R right`` are written to `to_left` and `to_core`.
        """


def sampled_products(
    rows: Tensor, columns: Tensor, values: Tensor, shape: tuple[int, int], parallel_map: ParallelMap[Any] = serial_map
) -> SampledProducts:
    """Products for entries in the order of rows, then columns, where they are kept."""
    if values.device.type == "cpu":
        return HostProducts(rows, columns, values, shape, parallel_map)
    return DeviceProducts(rows, columns, values, shape)


def entries(left: Tensor, right: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Entries of ``left right^T``, ``(m,)``, at the given places."""
    from dmfkit.linalg import compiled_loops as loops  # Numba takes a third of a second to load

    out = torch.empty(len(rows), dtype=left.dtype)
    host = [part.cpu().contiguous().numpy() for part in (left, right, rows, columns)]
    loops.inner_products(*host, out.numpy())
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
    """On the CPU, by compiled loops; groups of rows are shared among threads.

    A group has a sum of its own for the transposed product. There are as many as take a quarter of the memory of the
    entries, so few or only one where entries are few.
    """

    def __init__(
        self,
        rows: Tensor,
        columns: Tensor,
        values: Tensor,
        shape: tuple[int, int],
        parallel_map: ParallelMap[Any] = serial_map,
    ) -> None:
        from dmfkit.linalg import compiled_loops  # Numba takes a third of a second to load

        self._loops = compiled_loops
        self._entries = row_starts(rows, shape[0]).numpy(), columns.numpy(), values.numpy()
        self._shape, self._parallel_map = shape, parallel_map
        self._sums = np.empty((0, 0, 0))

    def square(self, left: Tensor, core: Tensor, right: Tensor) -> Tensor:
        matrices, edges = (left.numpy(), core.numpy(), right.numpy()), self._edges(right.shape[1])
        squares = self._parallel_map(
            lambda group: self._loops.square(*matrices, *self._entries, edges[group], edges[group + 1]),
            len(edges) - 1,
        )
        return torch.as_tensor(sum(squares), dtype=left.dtype)

    def square_and_gradients(
        self, left: Tensor, core: Tensor, right: Tensor, scale: float, to_left: Tensor, to_core: Tensor
    ) -> tuple[Tensor, Tensor]:
        matrices, edges = (left.numpy(), core.numpy(), right.numpy()), self._edges(right.shape[1])
        n_groups, out = len(edges) - 1, to_left.numpy()
        if self._sums.shape[1:] != right.shape:
            self._sums = np.empty((n_groups, *right.shape), right.numpy().dtype)
        cores = np.empty((n_groups, *core.shape), self._sums.dtype)

        def of_group(group: int) -> float:
            sums = out, cores[group], self._sums[group]
            result: float = self._loops.square_and_gradients(
                *matrices, *self._entries, edges[group], edges[group + 1], scale, *sums
            )
            return result

        square = sum(self._parallel_map(of_group, n_groups))
        self._loops.add_up(self._sums)
        np.sum(cores, axis=0, out=to_core.numpy())
        return torch.as_tensor(square, dtype=left.dtype), torch.from_numpy(self._sums[0])

    def _edges(self, width: int) -> list[int]:
        """Where groups of rows with like numbers of entries begin, and where the last ends."""
        starts, _, values = self._entries
        affordable = 1 + len(values) // (2 * width * self._shape[1])
        n_groups = 1 << (min(affordable, MOST_GROUPS).bit_length() - 1)
        shares = np.arange(1, n_groups) * len(values) / n_groups
        return [0, *np.searchsorted(starts, shares).tolist(), self._shape[0]]


class DeviceProducts:
    """On any device, by torch; its transposed product needs the entries in a second order."""

    def __init__(self, rows: Tensor, columns: Tensor, values: Tensor, shape: tuple[int, int]) -> None:
        self._values, self._shape = values, shape
        self._order = torch.argsort(columns.long() * shape[0] + rows)
        self._index = (row_starts(rows, shape[0]).int(), columns)
        self._index_t = (row_starts(columns[self._order], shape[1]).int(), rows[self._order])

    def square(self, left: Tensor, core: Tensor, right: Tensor) -> Tensor:
        residual = self.residual(left @ core, right)
        return torch.dot(residual, residual)

    def square_and_gradients(
        self, left: Tensor, core: Tensor, right: Tensor, scale: float, to_left: Tensor, to_core: Tensor
    ) -> tuple[Tensor, Tensor]:
        inner = left @ core
        residual = self.residual(inner, right)
        square = torch.dot(residual, residual)
        residual = residual.mul_(scale)
        times_right = csr_tensor(*self._index, residual, self._shape) @ right
        to_left.copy_(times_right @ core.mT)
        to_core.copy_(left.mT @ times_right)
        return square, csr_tensor(*self._index_t, residual[self._order], self._shape[::-1]) @ inner

    def residual(self, left: Tensor, right: Tensor) -> Tensor:
        """``left right^T`` less the values at the observed entries, ``(m,)``."""
        observed = csr_tensor(*self._index, self._values, self._shape)
        result: Tensor = torch.sparse.sampled_addmm(observed, left, right.mT, beta=-1.0).values()
        return result
