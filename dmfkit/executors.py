"""Pure functions on the workers of a Dask cluster.

What travels is small: a function's name, plain arguments, and what it returns. Tasks whose worker dies are run again
by the scheduler, as often as its setting ``distributed.scheduler.allowed-failures`` says, three times if it says
nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
import time
from collections.abc import Callable, Generator, Hashable, Iterator, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

from dmfkit.errors import InputError
from dmfkit.interrupts import noticed_interrupts
from dmfkit.remote import check_software, interrupt_tasks, run_task, software

if TYPE_CHECKING:
    from distributed import Client, Future
    from distributed.deploy import Cluster

Name = TypeVar("Name", bound=Hashable)
Returned = TypeVar("Returned")

# Seconds between two looks at whether there still are workers.
LOOK_EVERY = 1.0
KEPT = "what was stored before is kept, so run again to go on from there."


@dataclass(frozen=True)
class Executor:
    """Workers that compute; `cluster` makes one, and the end of a ``with`` block closes it.

    Attributes
    ----------
    client : distributed.Client
    description : str
        What results say of where they were computed.
    threads : int
        Threads of PyTorch in each task.
    timeout : float
        Seconds to wait for a worker while there is none.
    owned : tuple
        What was opened for this executor and is closed with it.
    """

    client: Client
    description: str
    threads: int
    timeout: float
    owned: tuple[Client | Cluster, ...] = ()

    def run(
        self, function: Callable[..., Returned], calls: Mapping[Name, tuple[Any, ...]]
    ) -> Generator[tuple[Name, Returned], None, None]:
        """Call a pure function with each of several sets of arguments; give back what it returns as it comes.

        Close the iterator, as by `contextlib.closing`, when no more results are wanted: tasks that wait are then
        dropped, and those that have begun are interrupted.

        Parameters
        ----------
        function : callable
            Importable on the workers, and without effect beside its value: after a fault it is called again.
        calls : mapping
            Positional arguments of each call, by a name for it.

        Yields
        ------
        tuple
            A call's name and its value.

        Raises
        ------
        InputError
            If there is no worker for too long, the scheduler goes away, a task's workers died time and again, or a
            worker has other software. What `function` raises is raised as it is.
        """
        if not calls:
            return
        expected = self._common_software()
        finished: queue.SimpleQueue[Future] = queue.SimpleQueue()
        pending: dict[Any, tuple[Name, Future]] = {}
        with noticed_interrupts() as interrupted:
            try:
                for name, arguments in calls.items():
                    future = self.client.submit(run_task, expected, self.threads, function, arguments, pure=False)
                    pending[future.key] = (name, future)
                    future.add_done_callback(finished.put)
                while pending:
                    future = self._next(finished, interrupted)
                    with _faults_in_one_sentence():
                        try:
                            value = future.result(timeout=self.timeout)
                        except asyncio.TimeoutError:
                            if future.status == "error":
                                raise
                            # The worker died after its task and took the value along: the task is run again.
                            future.add_done_callback(finished.put)
                            continue
                    name, _ = pending.pop(future.key)
                    yield name, value
            finally:
                self._stop([future for _, future in pending.values()])

    def close(self) -> None:
        """Close what was opened for this executor; a client or cluster that was given stays open."""
        for each in self.owned:
            each.close()

    def _common_software(self) -> dict[str, Any]:
        """Wait for a worker, and compare the software of all of them and of the scheduler, which reads tasks too."""
        expected = software()
        with _faults_in_one_sentence():
            try:
                self.client.wait_for_workers(1, timeout=self.timeout)
            except asyncio.TimeoutError:
                raise self._no_worker() from None
            for address, found in self.client.run(software, on_error="return").items():
                # One that does not answer is on its way out, and gets no task.
                if not isinstance(found, OSError):
                    check_software(expected, found, f"worker {address}")
            try:
                there = self.client.run_on_scheduler(software)
            except (ImportError, AttributeError) as error:
                there = error
            check_software(expected, there, "the scheduler")
        return expected

    def _next(self, finished: queue.SimpleQueue[Future], interrupted: threading.Event) -> Future:
        """Wait for the next task to end, as long as there are workers."""
        seen = time.monotonic()
        while True:
            if interrupted.is_set():
                raise KeyboardInterrupt
            with contextlib.suppress(queue.Empty):
                return finished.get(timeout=LOOK_EVERY)
            with _faults_in_one_sentence():
                if self.client.nthreads():
                    seen = time.monotonic()
            if time.monotonic() - seen > self.timeout:
                raise self._no_worker()

    def _no_worker(self) -> InputError:
        return InputError(
            f"there was no worker for {self.timeout:g} s ({self.description}): start workers, or give dm.cluster a "
            f"longer timeout; {KEPT}"
        )

    def _stop(self, futures: list[Future]) -> None:
        """Drop tasks, and interrupt those that have begun."""
        if not futures:
            return
        keys = {future.key for future in futures}
        # If the scheduler is gone, so are the tasks.
        with contextlib.suppress(OSError, ValueError, asyncio.TimeoutError):
            busy = [worker for worker, tasks in self.client.processing().items() if keys.intersection(tasks)]
            self.client.cancel(futures, force=True)
            if busy:
                self.client.run(interrupt_tasks, keys, workers=busy, on_error="ignore")

    def __enter__(self) -> Executor:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


@contextlib.contextmanager
def _faults_in_one_sentence() -> Iterator[None]:
    """Turn the faults of a cluster into one sentence each."""
    from distributed import CancelledError, KilledWorker
    from distributed.comm import CommClosedError

    try:
        yield
    except KilledWorker as error:
        raise InputError(
            f"one task's workers died {error.allowed_failures + 1} times in a row, the last one at "
            f"{error.last_worker.address}: if it needs more memory or time than a worker has, give more, or lower "
            f"runs_per_batch; {KEPT}"
        ) from None
    except (CancelledError, CommClosedError) as error:
        raise InputError(f"the connection to the Dask scheduler was lost ({type(error).__name__}): {KEPT}") from None
