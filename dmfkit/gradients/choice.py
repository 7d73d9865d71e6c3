"""One decision: how the runs of a problem are evaluated, and what a processor's threads do meanwhile."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum
from itertools import pairwise
from typing import Any, cast

import torch

from dmfkit.gradients.entries import EntrywiseEvaluator
from dmfkit.gradients.evaluator import BLOCK, BaseEvaluator
from dmfkit.gradients.tensors import Evaluator
from dmfkit.linalg.backend import ParallelMap, serial_map
from dmfkit.problems.completion import Completion
from dmfkit.problems.losses import FullObservation, Problem

# Multiplications in an evaluation of some runs below which handing them to a thread costs more than it brings.
PART_WORK = 4_000_000
# Runs of a part whose tensors take more bytes than this fall out of a core's caches between two steps.
PART_BYTES = 8 * 2**20
# Multiplications in a product from which OpenBLAS shares it well among threads.
LARGE_PRODUCT = 8_000_000
# Up to here runs side by side are still faster, measured at 4 to 40 %, where they leave few threads idle; beyond,
# their memory counts.
LARGEST_SIDE_BY_SIDE, BUSY = 1_000_000_000, 0.9

# Steps of descent between two looks at which runs have ended. Ended runs stand still at once, on the device; they are
# only taken out of the batch, which needs the host, at the end of a block.
BLOCK_STEPS = 50
# Compiled steps are no operations of Python's: a block of them should take some hundredths of a second, so that an
# interruption does not wait. Multiplications of a block, and its least and greatest number of steps.
BLOCK_WORK, SHORTEST, LONGEST = 4_000_000_000, 5, 1000


class Kernel(Enum):
    """How the residual is formed, and from it the gradient.

    Attributes
    ----------
    ENTRIES
        Entry by entry: where few are observed of a large matrix, see `Completion.by_entries`.
    BLOCKS
        In blocks of rows: for large matrices with low-rank factors.
    LOOPS
        As a whole, one run after the other, by compiled loops.
    TENSORS
        As a whole, all runs at once, by tensor operations.
    """

    ENTRIES = "entries"
    BLOCKS = "blocks"
    LOOPS = "loops"
    TENSORS = "tensors"


class Sharing(Enum):
    """What threads share.

    Attributes
    ----------
    NOTHING
        There is one thread, or another device.
    RUNS
        Runs of a batch, side by side.
    RUNS_OR_PRODUCTS
        Runs while they keep all threads busy, else every product.
    PRODUCTS
        Every product, within its library.
    PIECES
        Blocks of rows, or groups of entries, of one run.
    """

    NOTHING = "nothing"
    RUNS = "runs"
    RUNS_OR_PRODUCTS = "runs or products"
    PRODUCTS = "products"
    PIECES = "pieces"


@dataclass(frozen=True)
class Execution:
    """How a batch is evaluated and trained; follows from shapes, the device and the number of threads alone.

    Attributes
    ----------
    problem : Problem
    widths : tuple of int
        ``(d_0, .., d_N)``.
    n_runs : int
        Number of runs, or the most that there are.
    kernel : Kernel
    threads : int
        Number of threads.
    sharing : Sharing
        What they share.
    """

    problem: Problem
    widths: tuple[int, ...]
    n_runs: int
    kernel: Kernel
    threads: int
    sharing: Sharing

    def of(self, n_runs: int) -> Execution:
        """The same for fewer runs."""
        return replace(self, n_runs=n_runs)

    @property
    def work(self) -> int:
        """Multiplications in an evaluation of all runs."""
        return 3 * sum(_products(self.widths)) * self.n_runs

    @property
    def batches(self) -> int:
        """How many batches are trained side by side, when runs stay in their batch to the end."""
        return self._side_by_side(1) if self.sharing is Sharing.RUNS else 1

    @property
    def parts(self) -> int:
        """How many parts a batch is evaluated in, when it is divided anew as soon as runs have ended."""
        if self.kernel is Kernel.LOOPS:
            return self.parts_at_once
        # Sensing multiplies all runs with its measurements at once; a GPU wants as much work at once as there is.
        if self.kernel is Kernel.TENSORS:
            return 1
        n_parameters = sum(columns * rows for columns, rows in pairwise(self.widths))
        fitting = max(1, PART_BYTES // (3 * self.problem.dtype.itemsize * n_parameters))
        return max(1, -(-self.n_runs // fitting))

    @property
    def parts_at_once(self) -> int:
        """How many of these parts are trained side by side."""
        if self.sharing is Sharing.RUNS:
            return self._side_by_side(LONGEST)
        if self.sharing is Sharing.RUNS_OR_PRODUCTS:
            busy = self.n_runs >= BUSY * self.threads * -(-self.n_runs // self.threads)
            return self.threads if busy else 1
        return 1

    @property
    def block(self) -> int:
        """Number of steps of descent that are worth taking before the next look at which runs have ended."""
        if self.kernel is not Kernel.LOOPS:
            return BLOCK_STEPS
        work = self.of(-(-self.n_runs // self.parts_at_once)).work
        return max(SHORTEST, min(LONGEST, BLOCK_WORK // max(1, work)))

    def worth_threads(self, steps: int) -> bool:
        """Whether so many steps take longer than handing them to threads."""
        return steps * self.work >= 2 * PART_WORK

    def evaluator(self, parallel_map: ParallelMap[Any] = serial_map) -> BaseEvaluator:
        """Make an evaluator, for one thread at a time.

        `parallel_map` calls a function for several numbers; entries and blocks of rows are shared among threads by it.

        Raises
        ------
        InputError
            If a matrix that is too large to be formed meets a single factor, which is that matrix.
        """
        # Compiled loops are loaded where something is to be trained: Numba takes a third of a second.
        from dmfkit.gradients.blocks import BlockwiseEvaluator
        from dmfkit.gradients.compiled import CompiledEvaluator

        problem, widths, n_runs = self.problem, self.widths, self.n_runs
        if self.kernel is Kernel.ENTRIES:
            return EntrywiseEvaluator(cast("Completion", problem), widths, n_runs, parallel_map)
        if self.kernel is Kernel.BLOCKS:
            return BlockwiseEvaluator(cast("Completion | FullObservation", problem), widths, n_runs, parallel_map)
        if self.kernel is Kernel.LOOPS:
            return CompiledEvaluator(cast("Completion | FullObservation", problem), widths)
        return Evaluator(problem, widths, n_runs)

    def _side_by_side(self, steps: int) -> int:
        """How many parts are worth a thread each, for so many steps at once."""
        return max(1, min(self.threads, self.n_runs, steps * self.work // PART_WORK))


def execution_for(problem: Problem, widths: tuple[int, ...], n_runs: int) -> Execution:
    """Decide how factorizations of these widths are evaluated and trained, on as many threads as PyTorch has.

    PyTorch's operations and OpenBLAS's products have threads of their own, which wait for work by spinning. Side by
    side they take the processor from each other: a step of 1 ms was seen to take 8. So only one of the two has them:
    OpenBLAS where single products are large and runs are few, PyTorch where the loss is formed by its own products, and
    neither where parts of a batch are trained, or blocks of rows or groups of entries evaluated, side by side.
    """
    kernel, threads = kernel_for(problem, widths), torch.get_num_threads()
    if problem.device.type != "cpu" or threads == 1:
        return Execution(problem, widths, n_runs, kernel, 1, Sharing.NOTHING)
    largest = max(_products(widths), default=0)
    if kernel in (Kernel.ENTRIES, Kernel.BLOCKS):
        sharing = Sharing.PIECES
    elif kernel is Kernel.TENSORS or largest > LARGEST_SIDE_BY_SIDE:
        sharing = Sharing.PRODUCTS
    else:
        sharing = Sharing.RUNS_OR_PRODUCTS if largest >= LARGE_PRODUCT else Sharing.RUNS
    return Execution(problem, widths, n_runs, kernel, threads, sharing)


def kernel_for(problem: Problem, widths: tuple[int, ...]) -> Kernel:
    """Return the fastest way to evaluate factors of these widths; it depends on nothing else."""
    if problem.by_entries(widths):
        return Kernel.ENTRIES
    if problem.device.type != "cpu" or not isinstance(problem, Completion | FullObservation):
        return Kernel.TENSORS
    inner, size = widths[1:-1], widths[0] * widths[-1]
    if not inner:
        return Kernel.LOOPS
    # With wider factors the products take longer than the residual, and are faster on whole matrices: measured, a
    # matrix should have a block for every unit of width.
    return Kernel.BLOCKS if size >= BLOCK * max(2, *inner) else Kernel.LOOPS


def evaluator_for(problem: Problem, widths: tuple[int, ...], n_runs: int) -> BaseEvaluator:
    """Return the fastest evaluator for batches of at most `n_runs` runs, which uses one thread."""
    return execution_for(problem, widths, n_runs).evaluator()


def _products(widths: tuple[int, ...]) -> list[int]:
    """Multiplications in each product on the way to the product matrix."""
    first, *others = widths
    return [first * columns * rows for columns, rows in pairwise(others)]
