"""Threads for training: the libraries' set as an `Execution` says, and a pool for what is done side by side."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from functools import lru_cache
from typing import TypeVar

import torch
from threadpoolctl import ThreadpoolController

from dmfkit.gradients.choice import Execution, Kernel, Sharing

Given = TypeVar("Given")
Made = TypeVar("Made")


class Workers:
    """Threads for one training; a context that lets go of them at its end.

    Parameters
    ----------
    execution : Execution

    Attributes
    ----------
    stop : Event
        Set when `map` is interrupted; a long function should look at it.
    """

    def __init__(self, execution: Execution) -> None:
        self.execution = execution
        self.stop = threading.Event()
        self._pool = ThreadPoolExecutor(execution.threads, initializer=torch.set_num_threads, initargs=(1,))

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown()

    @contextmanager
    def library_threads(self) -> Iterator[None]:
        """Give the libraries as many threads as they should have meanwhile, and afterwards those that they had."""
        execution, number = self.execution, torch.get_num_threads()
        if execution.sharing is Sharing.NOTHING:
            yield
            return
        by_torch = execution.kernel is Kernel.TENSORS  # products with the measurements of sensing
        blas = not by_torch and execution.sharing in (Sharing.PRODUCTS, Sharing.RUNS_OR_PRODUCTS)
        try:
            if not by_torch:
                torch.set_num_threads(1)
            with nullcontext() if blas else _libraries().limit(limits=1, user_api="blas"):
                yield
        finally:
            torch.set_num_threads(number)

    def map(self, function: Callable[[Given], Made], given: Sequence[Given]) -> list[Made]:
        """Call a function for everything that is given, side by side; products then have one thread each."""
        if len(given) == 1:
            return [function(given[0])]
        changes = self.execution.sharing is Sharing.RUNS_OR_PRODUCTS
        try:
            with _libraries().limit(limits=1, user_api="blas") if changes else nullcontext():
                return list(self._pool.map(function, given))
        except BaseException:
            self.stop.set()
            raise

    def parallel_map(self, function: Callable[[int], Made], number: int) -> list[Made]:
        """Call a function for the numbers from 0 up to `number`; return what it gave, in their order.

        Side by side where threads share the pieces of an evaluation, else one after the other.
        """
        threads = min(self.execution.threads if self.execution.sharing is Sharing.PIECES else 1, number)

        def share(thread: int) -> list[Made]:
            return [function(each) for each in range(thread, number, threads)]

        # This thread takes a share: waking another takes as long as some of the work.
        others = [self._pool.submit(share, thread) for thread in range(1, threads)]
        found = [share(0), *(other.result() for other in others)]
        return [found[each % threads][each // threads] for each in range(number)]


@lru_cache(maxsize=1)
def _libraries() -> ThreadpoolController:
    """The libraries with threads that are loaded; looking for them takes milliseconds."""
    # Compiled loops multiply with SciPy's BLAS; what is not loaded yet has no threads that could be limited.
    import scipy.linalg.cython_blas  # noqa: F401

    return ThreadpoolController()
