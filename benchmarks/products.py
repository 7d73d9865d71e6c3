"""Ways to compute the products of entry-wise completion, side by side: why `dmfkit.sampled_products` is as it is."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from benchmarks.rows import Row, compared
from dmfkit.sampled_products import DeviceProducts, HostProducts, csr_tensor, row_starts
from dmfkit.sparse_completion import SparseCompletion

# Entries in one chunk of the variants by torch.
CHUNK = 16_384


def rows(problem: SparseCompletion, width: int, repeats: int) -> list[Row]:
    """Residual, product and transposed product at thin factors of this width; what is used comes first."""
    generator = torch.Generator().manual_seed(0)
    left, right = (torch.randn(side, width, generator=generator, dtype=torch.float64) for side in problem.shape)
    parts = problem.rows, problem.columns, problem.values, problem.size
    host, device = HostProducts(*parts), DeviceProducts(*parts)
    host.residual(left, right)
    device.residual(left, right)
    long_rows, long_columns = problem.rows.long(), problem.columns.long()
    starts = row_starts(problem.rows, problem.size[0])
    # The index of the torch matrices that most code has, 64-bit, is converted in every product.
    wide = csr_tensor(starts, long_columns, problem.values, problem.size)
    order = torch.argsort(long_columns * problem.size[0] + long_rows)
    ways: dict[str, dict[str, Callable[[], object]]] = {
        "residual": {
            "NumPy, in chunks": lambda: host.residual(left, right),
            "torch.sparse.sampled_addmm": lambda: device.residual(left, right),
            "torch.sparse.sampled_addmm, 64-bit index": lambda: torch.sparse.sampled_addmm(wide, left, right.mT),
            "torch gathers, in chunks": lambda: _gathered(left, right, long_rows, long_columns, problem.values, CHUNK),
            "torch gathers, whole": lambda: _gathered(
                left, right, long_rows, long_columns, problem.values, len(long_rows)
            ),
        },
        "product": {
            "SciPy": lambda: host.times(right),
            "torch, 32-bit index": lambda: device.times(right),
            "torch, 64-bit index": lambda: wide @ right,
        },
        "transposed product": {
            "SciPy, scattering": lambda: host.transposed_times(left),
            "torch, values reordered": lambda: device.transposed_times(left),
            "torch, values reordered by indexing": lambda: problem.values[order],
            "torch, transposed view": lambda: (
                csr_tensor(starts.int(), problem.columns, problem.values, problem.size).transpose(0, 1) @ left
            ),
        },
    }
    found: list[Row] = []
    for what, variants in ways.items():
        seconds = _medians(variants, repeats)
        first, *others = (Row(f"{what}: {name}", one, "s") for name, one in seconds.items())
        found += [first, *(compared(row.name, row.value, "s", first) for row in others)]
    return found


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
