"""How training uses a processor's cores: parts of a batch side by side, or every product on all of them.

PyTorch's operations and OpenBLAS's products have threads of their own, which wait for work by spinning. Side by side
they take the cores from each other: a step of 1 ms was seen to take 8. So only one of the two has them: OpenBLAS where
single products are large and runs are few, PyTorch where the loss is formed by its own products, and neither where
parts of a batch are trained, or blocks of rows or groups of entries evaluated, side by side.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import lru_cache
from itertools import pairwise
from typing import TypeVar

import torch
from threadpoolctl import ThreadpoolController, threadpool_limits

from dmfkit.gradients.choice import Way, way
from dmfkit.problems.losses import Problem

# Multiplications in an evaluation of a part below which handing it to a thread costs more than it brings.
PART_WORK = 4_000_000
# Multiplications in a product from which OpenBLAS spreads it well over the cores.
LARGE_PRODUCT = 8_000_000
# Up to here runs side by side are still faster, measured at 4 to 40 %, where they leave few cores idle; beyond,
# their memory counts.
LARGEST_SIDE_BY_SIDE, BUSY = 1_000_000_000, 0.9

Given = TypeVar("Given")
Made = TypeVar("Made")


class Cores:
    """What `cores` gives: how many parts of a batch are to be trained side by side, and threads for them.

    Where there is one part only, its evaluations may be spread over `lanes` threads. Runs with large products are
    parts, too, where they occupy that many cores: `crowd`.
    """

    def __init__(
        self, most: int, work: int, pool: ThreadPoolExecutor, lanes: int = 1, crowd: int | None = None
    ) -> None:
        self._most, self._work, self._pool, self._lanes, self._crowd = most, work, pool, lanes, crowd
        self._limit: threadpool_limits | None = None
        self.stop = threading.Event()

    def work(self, n_runs: int) -> int:
        """Multiplications in an evaluation of `n_runs` runs."""
        return n_runs * self._work

    def worth_threads(self, n_runs: int, steps: int) -> bool:
        """Whether so many steps take longer than handing them to threads."""
        return steps * self.work(n_runs) >= 2 * PART_WORK

    def parts(self, n_runs: int, steps: int = 1) -> int:
        """How many parts of a batch of `n_runs` runs are worth a thread each, for so many steps at once."""
        return max(1, min(self._most, n_runs, steps * self.work(n_runs) // PART_WORK))

    def divide(self, n_runs: int, steps: int) -> int:
        """The same, of runs that leave the batch one by one: where they leave cores idle, large products get them."""
        if self._crowd is None:
            return self.parts(n_runs, steps)
        crowded = n_runs >= BUSY * self._crowd * -(-n_runs // self._crowd)
        if crowded and self._limit is None:
            self._limit = _libraries().limit(limits=1, user_api="blas")
        elif not crowded and self._limit is not None:
            self._limit.restore_original_limits()
            self._limit = None
        return self._crowd if crowded else 1

    def map(self, function: Callable[[Given], Made], given: Sequence[Given]) -> list[Made]:
        """Call a function for everything that is given, side by side.

        A long function should look at `stop`, which is set when this is interrupted.
        """
        if len(given) == 1:
            return [function(given[0])]
        try:
            return list(self._pool.map(function, given))
        except BaseException:
            self.stop.set()
            raise

    def spread(self, function: Callable[[int], Made], number: int) -> list[Made]:
        """Call a function for the numbers from 0 up to `number`, side by side; return what it gave, in their order."""
        lanes = min(self._lanes, number)

        def go_through(lane: int) -> list[Made]:
            return [function(each) for each in range(lane, number, lanes)]

        # This thread takes a share: waking another takes as long as some of the work.
        others = [self._pool.submit(go_through, lane) for lane in range(1, lanes)]
        found = [go_through(0), *(other.result() for other in others)]
        return [found[each % lanes][each // lanes] for each in range(number)]


@contextmanager
def cores(problem: Problem, widths: tuple[int, ...]) -> Iterator[Cores]:
    """Divide the cores for training factorizations of these widths, and take the division back afterwards."""
    number = torch.get_num_threads()
    first, *others = widths
    products = [first * columns * rows for columns, rows in pairwise(others)]
    if problem.device.type != "cpu" or number == 1:
        with ThreadPoolExecutor(1) as pool:
            yield Cores(1, 3 * sum(products), pool)
        return
    large = max(products, default=0) >= LARGE_PRODUCT
    fastest = way(problem, widths)
    by_torch = fastest is Way.TENSORS  # products with the measurements of sensing
    by_pieces = fastest in (Way.ENTRIES, Way.BLOCKS)
    side_by_side = not (large or by_torch or by_pieces)
    try:
        if not by_torch:
            torch.set_num_threads(1)
        with (
            _libraries().limit(limits=1 if by_torch or by_pieces or side_by_side else None, user_api="blas"),
            ThreadPoolExecutor(number, initializer=torch.set_num_threads, initargs=(1,)) as pool,
        ):
            yield Cores(
                number if side_by_side else 1,
                3 * sum(products),
                pool,
                number if by_pieces else 1,
                number if large and fastest is Way.LOOPS and max(products) <= LARGEST_SIDE_BY_SIDE else None,
            )
    finally:
        torch.set_num_threads(number)


@lru_cache(maxsize=1)
def _libraries() -> ThreadpoolController:
    """The libraries with threads that are loaded; looking for them takes milliseconds."""
    return ThreadpoolController()
