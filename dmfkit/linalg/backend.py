"""Which library multiplies batches of matrices, and sums squares: NumPy's on a CPU, PyTorch's on other devices.

NumPy's wheels bring OpenBLAS, which multiplies small matrices with AVX-512 on every processor that has it; PyTorch's
bring MKL, which does so on Intel's processors only. NumPy also multiplies every matrix of a batch by itself, so that a
run's numbers do not depend on the batch it is in.

Calling a function for several numbers: one after the other here, side by side where `Workers` has threads for it.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor

# A tensor as a library sees it.
Operand = Any

# From this many entries on, a second operand that is stored by columns is first copied row by row: OpenBLAS's kernels
# for small matrices are a third slower on it (25 us against 2.5 + 16 at 100 x 100), while tiny products cost no more
# than the copy.
TRANSPOSE_FROM = 2500
# OpenBLAS's inner products wait for a second thread above this length, which takes longer than they do.
ONE_THREAD = 10_000


class Products(NamedTuple):
    """A library's batched product ``multiply(left, right, out=target)``, and how it sees a tensor.

    `transposes` says whether second operands that are stored by columns are copied first.
    """

    multiply: Callable[..., object]
    operand: Callable[[Tensor], Operand]
    tensor: Callable[[Operand], Tensor]
    transposes: bool


BY_NUMPY = Products(np.matmul, Tensor.numpy, torch.from_numpy, transposes=True)
BY_TORCH = Products(torch.bmm, lambda tensor: tensor, lambda operand: operand, transposes=False)


def products_for(device: torch.device) -> Products:
    """Return the library for a device; it depends on nothing else, so that the same machine gives the same digits."""
    return BY_NUMPY if device.type == "cpu" else BY_TORCH


def quiet_overflow() -> np.errstate:
    """Keep NumPy from warning of numbers that grow too large; runs that diverge are found by their loss.

    For blocks of steps and single evaluations; within a step it would cost as much as a small product.
    """
    return np.errstate(over="ignore", invalid="ignore")


def sum_of_squares(values: Tensor) -> Tensor:
    """Sum of squares of everything but the first dimension, ``(runs,)``."""
    if products_for(values.device) is BY_TORCH:
        result: Tensor = torch.linalg.vector_norm(values.flatten(start_dim=1), dim=1).square()
        return result
    runs = values.shape[0]
    pieces = values.numpy().reshape(runs, _pieces(values.numel() // max(runs, 1)), -1)
    sums = np.vecdot(pieces, pieces)
    return torch.from_numpy(sums[:, 0] if sums.shape[1] == 1 else sums.sum(axis=1))


@lru_cache
def _pieces(length: int) -> int:
    """Least number of equal pieces, each short enough for one thread."""
    return next(number for number in range(max(1, -(-length // ONE_THREAD)), length + 1) if length % number == 0)


Made = TypeVar("Made")
# Calls a function for the numbers from 0 up to another; returns what it gave, in their order.
ParallelMap = Callable[[Callable[[int], Made], int], list[Made]]


def serial_map(function: Callable[[int], Made], number: int) -> list[Made]:
    """Call a function for the numbers from 0 up to `number`, one after the other."""
    return [function(each) for each in range(number)]
