"""Ways to compute what entry-wise completion needs, side by side: why `dmfkit.linalg.sampled_products` is as it is."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import torch
from scipy.sparse import csc_array, csr_array
from torch import Tensor

from benchmarks.rows import Row, compared
from dmfkit.linalg.sampled_products import DeviceProducts, HostProducts, csr_tensor, entries, row_starts
from dmfkit.problems.completion import Completion

# Numbers in each of the chunks of the variants by NumPy and torch: half a megabyte in double precision.
CHUNK = 65_536


def rows(problem: Completion, width: int, repeats: int) -> list[Row]:
    """Residual, and both its products, at thin factors of this width; what is used comes first."""
    generator, observed = torch.Generator().manual_seed(0), problem.observed
    left, right = (torch.randn(side, width, generator=generator, dtype=torch.float64) for side in problem.shape)
    parts = observed.rows, observed.columns, observed.values, problem.shape
    one = torch.eye(width, dtype=torch.float64)
    given = left, one, right, 1.0, torch.empty_like(left), torch.empty_like(one)
    host, device = HostProducts(*parts), DeviceProducts(*parts)
    long_rows, long_columns = observed.rows.long(), observed.columns.long()
    # The index of the torch matrices that most code has, 64-bit, is converted in every product.
    wide = csr_tensor(row_starts(observed.rows, problem.shape[0]), long_columns, observed.values, problem.shape)
    gather = long_rows, long_columns, observed.values
    ways: dict[str, dict[str, Callable[[], object]]] = {
        "residual": {
            "compiled loop": lambda: entries(left, right, observed.rows, observed.columns) - observed.values,
            "NumPy, in chunks": lambda: _by_numpy(left, right, problem),
            "torch.sparse.sampled_addmm": lambda: device.residual(left, right),
            "torch.sparse.sampled_addmm, 64-bit index": lambda: torch.sparse.sampled_addmm(wide, left, right.mT),
            "torch gathers, in chunks": lambda: _gathered(left, right, *gather, CHUNK // width),
            "torch gathers, whole": lambda: _gathered(left, right, *gather, len(long_rows)),
        },
        "residual and both products": {
            "compiled loop, one pass": lambda: host.square_and_gradients(*given),
            "NumPy in chunks, SciPy": lambda: by_scipy(left, right, problem),
            "torch, a second order for the transpose": lambda: device.square_and_gradients(*given),
        },
    }
    found: list[Row] = []
    for what, variants in ways.items():
        seconds = _medians(variants, repeats)
        first, *others = (Row(f"{what}: {name}", one, "s") for name, one in seconds.items())
        found += [first, *(compared(row.name, row.value, "s", first) for row in others)]
    return found


def by_scipy(left: Tensor, right: Tensor, problem: Completion) -> tuple[np.ndarray, np.ndarray]:
    """Products of the residual, and of its transpose, with `right` and `left`; one index serves both."""
    observed, residual = problem.observed, _by_numpy(left, right, problem)
    starts = row_starts(observed.rows, problem.shape[0]).int().numpy()
    parts = residual, observed.columns.numpy(), starts
    # Read as compressed columns, the same three arrays are the transpose.
    transposed = csc_array(parts, shape=problem.shape[::-1])
    return csr_array(parts, shape=problem.shape) @ right.numpy(), transposed @ left.numpy()


def _by_numpy(left: Tensor, right: Tensor, problem: Completion) -> np.ndarray:
    """Residual by gathers of chunks that stay in the cache."""
    observed = problem.observed
    size, out = CHUNK // left.shape[1], np.empty(len(observed))
    for first in range(0, len(out), size):
        here = slice(first, first + size)
        mine, other = (
            left.numpy()[observed.rows[here].numpy()],
            right.numpy()[observed.columns[here].numpy()],
        )
        np.einsum("ij,ij->i", mine, other, out=out[here])
    result: np.ndarray = np.subtract(out, observed.values.numpy(), out=out)
    return result


def _gathered(left: Tensor, right: Tensor, rows_: Tensor, columns: Tensor, values: Tensor, size: int) -> Tensor:
    """Residual by `index_select`, a chunk at a time."""
    chunks = zip(rows_.split(size), columns.split(size), values.split(size), strict=True)
    return torch.cat([(left.index_select(0, r) * right.index_select(0, c)).sum(1) - v for r, c, v in chunks])


def _medians(variants: dict[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Median seconds of each, interleaved; a first call of each is not counted."""
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    for _ in range(repeats + 1):
        for name, one in variants.items():
            began = time.perf_counter()
            one()
            seconds[name].append(time.perf_counter() - began)
    return {name: float(np.median(all_[1:])) for name, all_ in seconds.items()}
