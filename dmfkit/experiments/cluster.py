"""Opening a cluster: on this machine, behind a scheduler's address, or one that was made by another package.

Dask is an optional package, and only imported when a cluster is asked for.

Pure functions on the workers of a Dask cluster.

What travels is small: a function's name, plain arguments, and what it returns. Tasks whose worker dies are run again
by the scheduler, as often as its setting ``distributed.scheduler.allowed-failures`` says, three times if it says
nothing.

Ctrl-C that is not lost: Python drops an exception that is raised within the callback of a weak reference.

What happens on a worker: its software is compared, and a task is run or interrupted.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import hashlib
import logging
import math
import multiprocessing
import platform
import queue
import signal
import threading
import time
from collections.abc import Callable, Generator, Hashable, Iterator, Mapping, Set
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

import torch

from dmfkit.errors import InputError
from dmfkit.experiments import store
from dmfkit.experiments.provenance import PACKAGES

if TYPE_CHECKING:
    from distributed import Worker
if TYPE_CHECKING:
    from distributed import Client, Future
    from distributed.deploy import Cluster
if TYPE_CHECKING:
    from distributed import Client
    from distributed.deploy import Cluster


@contextmanager
def noticed_interrupts() -> Iterator[threading.Event]:
    """Give an event that is set by Ctrl-C, whatever becomes of the exception; long loops look at it.

    Does nothing outside of the main thread, which alone is interrupted, and where interrupts are ignored.
    """
    seen, before = threading.Event(), signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or not callable(before):
        yield seen
        return

    def handle(number: int, frame: FrameType | None) -> None:
        seen.set()
        before(number, frame)

    signal.signal(signal.SIGINT, handle)
    try:
        yield seen
    finally:
        signal.signal(signal.SIGINT, before)


Returned = TypeVar("Returned")

# Taken when the module is loaded: a worker that was started before the files changed still computes with the old ones.
_SOURCES = hashlib.sha256(
    b"".join(path.read_text(encoding="utf-8").encode() for path in sorted(Path(__file__).parents[1].rglob("*.py")))
).hexdigest()[:12]


def software() -> dict[str, Any]:
    """Return a checksum of this package's sources, the version of the numerics, and versions of packages."""
    # A build of PyTorch for another processor, as in 2.13.0+cu130, is the same version.
    versions = {name: metadata.version(name).partition("+")[0] for name in PACKAGES}
    return {"dmfkit": _SOURCES, "numerics": store.NUMERICS, **versions}


def check_software(expected: dict[str, Any], found: dict[str, Any] | Exception, where: str) -> None:
    """Raise `InputError` unless there is the same software elsewhere as here.

    Parameters
    ----------
    expected : dict
        What `software` returned here.
    found : dict or Exception
        What it returned there, or why it did not.
    where : str
        Who has it, as the message begins.
    """
    if isinstance(found, Exception):
        differences = str(found)
    else:
        differences = ", ".join(
            f"{name} {found.get(name)} instead of {value}"
            for name, value in expected.items()
            if found.get(name) != value
        )
    if differences:
        raise InputError(
            f"{where} has other software than this process ({differences}): install the same there, and start it anew."
        )


def run_task(
    expected: dict[str, Any], threads: int, function: Callable[..., Returned], arguments: tuple[Any, ...]
) -> Returned:
    """Call a function where a worker is, with so many threads of PyTorch, if the software is what is expected there."""
    check_software(expected, software(), f"a worker on {platform.node()}")
    # Not set back afterwards: other threads of the worker may be computing.
    torch.set_num_threads(threads)
    return function(*arguments)


def interrupt_tasks(keys: Set[Any], dask_worker: Worker) -> None:
    """Raise an exception in the threads of a worker that run one of these tasks.

    Dask only forgets a task that has begun, so its worker would compute to the end what nobody wants any more. The
    exception is the one by which a task hands itself back, of which Dask makes no error.
    """
    from distributed import Reschedule

    # The lock is the one under which a thread ends its task: the exception cannot meet the next one.
    with dask_worker.active_threads_lock:
        for thread, key in dask_worker.active_threads.items():
            if key in keys:
                ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), ctypes.py_object(Reschedule))


Name = TypeVar("Name", bound=Hashable)

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
                        except TimeoutError:
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
            except TimeoutError:
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


# A scheduler that runs answers in a fraction of a second; a wrong address should not cost a minute.
ANSWER = 10.0


def cluster(
    where: str | Client | Cluster | None = None,
    *,
    workers: int | None = None,
    threads: int = 1,
    timeout: float = 60.0,
) -> Executor:
    """Open a cluster that `sweep` can compute on.

    Parameters
    ----------
    where : str, distributed.Client or cluster, optional
        Address of a Dask scheduler, such as ``"tcp://10.0.0.1:8786"``, or a Dask client or cluster, such as
        dask-jobqueue's ``SLURMCluster``. Without one, workers are started on this machine.
    workers : int, optional
        Processes to start on this machine; if not given, as many as fill its cores.
    threads : int
        Threads of PyTorch in each task. Results are the same to the bit as those of a process with as many.
    timeout : float
        Seconds to wait for a worker while there is none, and, if it is less than ten, for the scheduler's answer.

    Returns
    -------
    Executor
        Close it, or use it in a ``with`` block.

    Raises
    ------
    InputError
        If Dask is not installed, nobody answers, or the arguments cannot be used.
    """
    try:
        import distributed
        from distributed.deploy import Cluster as AnyCluster
    except ImportError:
        raise InputError(
            "a cluster needs the package distributed, which is not installed: pip install distributed, or run without "
            "an executor."
        ) from None
    _check(where, workers, threads, timeout)
    if where is None:
        return _local(workers, threads, timeout)
    if isinstance(where, distributed.Client) and not where.asynchronous:
        made_by = type(where.cluster or where).__name__
        return Executor(where, f"Dask, {made_by}", threads, timeout)
    if not isinstance(where, str | AnyCluster):
        raise InputError(
            f"where = {where!r} cannot be used: give a scheduler's address, such as 'tcp://10.0.0.1:8786', a Dask "
            "client or cluster, or nothing for workers on this machine."
        )
    description = f"Dask, scheduler {where}" if isinstance(where, str) else f"Dask, {type(where).__name__}"
    if isinstance(where, str):
        _check_answer(where, min(timeout, ANSWER))
    client = distributed.Client(where, timeout=timeout, set_as_default=False)
    return Executor(client, description, threads, timeout, (client,))


def _local(workers: int | None, threads: int, timeout: float) -> Executor:
    """Start workers on this machine; each runs one task at a time."""
    import distributed
    from dask.system import CPU_COUNT

    guard = (
        "a script must call dm.cluster under the line if __name__ == '__main__':, since each worker loads the script."
    )
    if getattr(multiprocessing.current_process(), "_inheriting", False):
        raise InputError(f"this process is a worker that is just being started: {guard}")
    count = workers or max(1, CPU_COUNT // threads)
    libraries = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    try:
        started = distributed.LocalCluster(
            n_workers=count,
            threads_per_worker=1,
            # Any free port, so that clusters can stand side by side; nothing listens to other machines.
            dashboard_address="127.0.0.1:0",
            silence_logs=logging.ERROR,
            env=dict.fromkeys(libraries, str(threads)),
            # Ctrl-C reaches all processes of a terminal; what it means is for this one to say.
            preload=["import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)"],
        )
    except RuntimeError as error:
        raise InputError(f"the workers on this machine did not start ({error}): {guard}") from None
    client = distributed.Client(started, timeout=timeout, set_as_default=False)
    description = f"Dask, {count} worker{'s' if count > 1 else ''} on this machine"
    return Executor(client, description, threads, timeout, (client, started))


def _check_answer(address: str, timeout: float) -> None:
    """Raise `InputError` unless Dask answers; a client that fails to connect would hang and complain at its end."""
    from distributed import Security
    from distributed.comm import connect

    async def ask() -> None:
        # Its own timeout does not hold for what comes after the connection.
        asked = connect(address, timeout=timeout, **Security().get_connection_args("client"))
        (await asyncio.wait_for(asked, timeout)).abort()

    try:
        # In a thread of its own, since a notebook's main thread already runs an event loop.
        with ThreadPoolExecutor(1) as pool:
            pool.submit(asyncio.run, ask()).result()
    except (TimeoutError, OSError, TypeError, ValueError) as error:
        reason = str(error).rstrip(".") or type(error).__name__
        raise InputError(
            f"no Dask scheduler answered at {address!r} within {timeout:g} s ({reason}): check the address, and that "
            "the scheduler runs and can be reached from here."
        ) from None


def _check(where: object, workers: int | None, threads: int, timeout: float) -> None:
    if workers is not None and where is not None:
        raise InputError("workers are only started on this machine: give either where or workers.")
    for name, value in (("workers", 1 if workers is None else workers), ("threads", threads)):
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise InputError(f"{name} = {value!r} is not allowed: it must be a whole number of at least 1.")
    if not (math.isfinite(timeout) and timeout > 0):
        raise InputError(f"timeout = {timeout} is not allowed: it must be a positive number of seconds.")
