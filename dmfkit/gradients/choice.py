"""Which evaluation of loss and gradient is the fastest for a problem and the widths of its factors."""

from __future__ import annotations

from enum import Enum
from typing import Any

from dmfkit.gradients.blocks import BLOCK, BlockwiseEvaluator
from dmfkit.gradients.compiled import CompiledEvaluator
from dmfkit.gradients.entries import EntrywiseEvaluator, SparseEvaluator
from dmfkit.gradients.tensors import AnyEvaluator, Evaluator
from dmfkit.linalg.backend import Spread, serially
from dmfkit.problems.losses import FullObservation, MatrixCompletion, Problem
from dmfkit.problems.sparse_completion import SparseCompletion

# Below this share of observed entries, in matrices of at least this many, the entry-wise residual is cheaper than the
# others. Measured on a CPU, see `python -m benchmarks compression`; fixed numbers, because a choice by the clock would
# change last digits from run to run.
SPARSE_SHARE, SPARSE_SIZE = 0.09, 250_000
# Above this inner width the dense products win again, whatever the share.
SPARSE_WIDTH = 100


class Way(Enum):
    """How the residual is formed, and from it the gradient.

    Attributes
    ----------
    ENTRIES
        Entry by entry: for problems that keep their entries alone, and for sparse completion by thin factors.
    BLOCKS
        In blocks of rows: for large matrices with thin factors.
    LOOPS
        As a whole, one run after the other, by compiled loops.
    TENSORS
        As a whole, all runs at once, by tensor operations.
    """

    ENTRIES = "entries"
    BLOCKS = "blocks"
    LOOPS = "loops"
    TENSORS = "tensors"


def way(problem: Problem, widths: tuple[int, ...]) -> Way:
    """Return the fastest way to evaluate factors of these widths; it depends on nothing else."""
    if isinstance(problem, SparseCompletion):
        return Way.ENTRIES
    if problem.device.type != "cpu" or not isinstance(problem, MatrixCompletion | FullObservation):
        return Way.TENSORS
    inner, size = widths[1:-1], problem.values.numel()
    if not inner:
        return Way.LOOPS
    few = isinstance(problem, MatrixCompletion) and problem.n_observations < SPARSE_SHARE * size
    if few and max(inner) <= SPARSE_WIDTH and size >= SPARSE_SIZE:
        return Way.ENTRIES
    # With wider factors the products take longer than the residual, and are faster on whole matrices: measured, a
    # matrix should have a block for every unit of width.
    return Way.BLOCKS if size >= BLOCK * max(2, *inner) else Way.LOOPS


def evaluator_for(
    problem: Problem, widths: tuple[int, ...], n_runs: int, spread: Spread[Any] = serially
) -> AnyEvaluator:
    """Return the evaluator of the fastest way, for batches of at most `n_runs` runs.

    `spread` calls a function for several numbers; entries and blocks of rows are shared among threads by it.

    Raises
    ------
    InputError
        If a problem that keeps its entries alone meets a single factor, which is the matrix itself.
    """
    fastest = way(problem, widths)
    if isinstance(problem, SparseCompletion):
        return SparseEvaluator(problem, widths, spread)
    if isinstance(problem, MatrixCompletion) and fastest is Way.ENTRIES:
        return EntrywiseEvaluator(problem, widths, n_runs, spread)
    if isinstance(problem, MatrixCompletion | FullObservation):
        if fastest is Way.BLOCKS:
            return BlockwiseEvaluator(problem, widths, n_runs, spread)
        if fastest is Way.LOOPS:
            return CompiledEvaluator(problem, widths)
    return Evaluator(problem, widths, n_runs)
