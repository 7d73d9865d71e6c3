"""Computing on any `concurrent.futures.Executor`, and opening Dask's on this machine or on a cluster.

What travels is small: a function's name, plain arguments, and what it returns. Dask is an optional package, and only
imported when `cluster` is called.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import math
import multiprocessing
import platform
import sys
from collections.abc import Callable, Generator, Hashable, Iterator, Mapping
from concurrent.futures import BrokenExecutor, CancelledError, Executor, Future, ThreadPoolExecutor, as_completed
from functools import lru_cache
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import torch

from dmfkit.errors import InputError
from dmfkit.experiments import store
from dmfkit.experiments.provenance import PACKAGES

if TYPE_CHECKING:
    from distributed import Client
    from distributed.deploy import Cluster

Name = TypeVar("Name", bound=Hashable)
Returned = TypeVar("Returned")

KEPT = "what was stored before is kept, so run again to go on from there."
# Seconds for a scheduler's answer: one that runs gives it in a fraction of one.
ANSWER_SECONDS = 10.0


def completed(
    executor: Executor, function: Callable[..., Returned], calls: Mapping[Name, tuple[Any, ...]]
) -> Generator[tuple[Name, Returned], None, None]:
    """Call a pure function with each of several sets of arguments; give back what it returns as it comes.

    Close the iterator, as by `contextlib.closing`, when no more results are wanted: calls that have not begun are then
    cancelled.

    Parameters
    ----------
    executor : concurrent.futures.Executor
    function : callable
        Importable on the workers, and without effect beside its value: after a fault it may be called again.
    calls : mapping
        Positional arguments of each call, by a name for it.

    Yields
    ------
    tuple
        A call's name and its value.

    Raises
    ------
    InputError
        If workers die, the executor is shut down or its scheduler lost, or a worker has other software. What
        `function` raises is raised as it is.
    """
    futures: dict[Future[Returned], Name] = {}
    threads = getattr(executor, "threads", None)
    try:
        with faults_in_one_sentence():
            for name, arguments in calls.items():
                try:
                    future = executor.submit(_call, software(), threads, function, *arguments)
                except RuntimeError as error:  # it was shut down, or a process of its own died
                    raise InputError(f"the executor takes no calls ({error}): open another one; {KEPT}") from None
                futures[future] = name
        for future in as_completed(futures):
            with faults_in_one_sentence():
                value = future.result()
            yield futures.pop(future), value
    finally:
        for future in futures:
            future.cancel()


def _call(
    expected: dict[str, Any], threads: int | None, function: Callable[..., Returned], *arguments: Any
) -> Returned:
    """Call a function where a worker is, if the software there is what is expected, with so many threads of PyTorch."""
    check_software(expected, software(), f"a worker on {platform.node()}")
    if threads is not None:
        # Not set back afterwards: other threads of the worker may be computing.
        torch.set_num_threads(threads)
    return function(*arguments)


def description(executor: Executor) -> str:
    """What results say of the executor that computed them."""
    return str(getattr(executor, "description", type(executor).__name__))


@contextlib.contextmanager
def faults_in_one_sentence() -> Iterator[None]:
    """Turn what can become of an executor and its workers into one sentence each.

    A process of `concurrent.futures` that dies takes its executor along. Dask calls the function again elsewhere, as
    often as its setting ``distributed.scheduler.allowed-failures`` says, before it gives up.
    """
    try:
        yield
    except BrokenExecutor as error:
        raise InputError(
            f"a worker process died before its work was done ({type(error).__name__}): if it needs more memory than "
            f"there is, start fewer workers, or lower runs_per_batch; {KEPT}"
        ) from None
    except CancelledError:
        raise InputError(
            f"the executor dropped its calls, because it was shut down or lost the connection to its scheduler: {KEPT}"
        ) from None
    except ImportError as error:
        raise InputError(
            f"a worker has other software than this process ({error}): install the same there, and start it anew."
        ) from None
    except Exception as error:
        dask = sys.modules.get("distributed")
        if dask is not None and isinstance(error, dask.KilledWorker):
            raise InputError(
                f"one call's workers died {error.allowed_failures + 1} times in a row, the last one at "
                f"{error.last_worker.address}: if it needs more memory or time than a worker has, give more, or lower "
                f"runs_per_batch; {KEPT}"
            ) from None
        if dask is not None and isinstance(error, dask.comm.CommClosedError):
            raise InputError(f"the connection to the Dask scheduler was lost: {KEPT}") from None
        raise


def software() -> dict[str, Any]:
    """Return a checksum of this package's sources, the version of the numerics, and versions of packages."""
    return {"numerics": store.NUMERICS, **_installed()}


@lru_cache(maxsize=1)
def _installed() -> dict[str, str]:
    # Dask's own comparison, `Client.get_versions(check=True)`, only warns, and does not see sources. A build of PyTorch
    # for another processor, as in 2.13.0+cu130, is the same version.
    versions = {name: metadata.version(name).partition("+")[0] for name in PACKAGES}
    sources = sorted(Path(__file__).parents[1].rglob("*.py"))
    text = b"".join(path.read_text(encoding="utf-8").encode() for path in sources)
    return {"dmfkit": hashlib.sha256(text).hexdigest()[:12], **versions}


def check_software(expected: dict[str, Any], found: dict[str, Any], where: str) -> None:
    """Raise `InputError` unless there is the same software elsewhere as here.

    Parameters
    ----------
    expected, found : dict
        What `software` returned here and there.
    where : str
        Who has it, as the message begins.
    """
    differences = ", ".join(
        f"{name} {found.get(name)} instead of {value}" for name, value in expected.items() if found.get(name) != value
    )
    if differences:
        raise InputError(
            f"{where} has other software than this process ({differences}): install the same there, and start it anew."
        )


@contextlib.contextmanager
def cluster(
    where: str | Client | Cluster | None = None,
    *,
    workers: int | None = None,
    threads: int = 1,
    timeout: float = 60.0,
) -> Iterator[Executor]:
    """Open Dask workers that `sweep` can compute on; use it in a ``with`` block, whose end closes what was opened.

    Parameters
    ----------
    where : str, distributed.Client or cluster, optional
        Address of a Dask scheduler, such as ``"tcp://10.0.0.1:8786"``, or a Dask client or cluster, such as
        dask-jobqueue's ``SLURMCluster``; those stay open. Without one, workers are started on this machine.
    workers : int, optional
        Processes to start on this machine; if not given, as many as fill its cores.
    threads : int
        Threads of PyTorch in each batch. Results are the same to the bit as those of a process with as many.
    timeout : float
        Seconds to wait for the first worker, and, if it is less than ten, for the scheduler's answer.

    Yields
    ------
    concurrent.futures.Executor
        Dask's own, with the attributes ``description``, which results repeat, and ``threads``.

    Raises
    ------
    InputError
        If Dask is not installed, nobody answers, there is no worker, the scheduler has other software, or the arguments
        cannot be used.
    """
    try:
        import distributed
        from dask.system import CPU_COUNT
        from distributed.deploy import Cluster as AnyCluster
    except ImportError:
        raise InputError(
            "a cluster needs the package distributed, which is not installed: pip install distributed, or run without "
            "an executor."
        ) from None
    _check(where, workers, threads, timeout)
    with contextlib.ExitStack() as opened:
        if where is None:
            count = workers or max(1, CPU_COUNT // threads)
            said = f"Dask, {count} worker{'s' if count > 1 else ''} on this machine"
            client = opened.enter_context(_local(count, threads))
        elif isinstance(where, distributed.Client) and not where.asynchronous:
            client, said = where, f"Dask, {type(where.cluster or where).__name__}"
        elif isinstance(where, AnyCluster):
            client, said = where, f"Dask, {type(where).__name__}"
        elif isinstance(where, str):
            _check_answer(where, min(timeout, ANSWER_SECONDS))
            client, said = where, f"Dask, scheduler {where}"
        else:
            raise InputError(
                f"where = {where!r} cannot be used: give a scheduler's address, such as 'tcp://10.0.0.1:8786', a Dask "
                "client or cluster, or nothing for workers on this machine."
            )
        if not isinstance(client, distributed.Client):
            client = opened.enter_context(distributed.Client(client, timeout=timeout, set_as_default=False))
        _check_ready(client, said, timeout)
        executor = client.get_executor(pure=False)  # else equal calls are one
        executor.description, executor.threads = said, threads
        yield executor
        executor.shutdown()


def _check_ready(client: Client, said: str, timeout: float) -> None:
    """Raise `InputError` unless there is a worker, and the scheduler, which reads calls too, has the same software.

    Workers may come later, and compare their software before every call.
    """
    with faults_in_one_sentence():
        try:
            client.wait_for_workers(1, timeout=timeout)
        except TimeoutError:
            raise InputError(
                f"there was no worker for {timeout:g} s ({said}): start workers, or give dm.cluster a longer timeout."
            ) from None
        try:
            there = client.run_on_scheduler(software)
        except AttributeError as error:
            raise ImportError(error) from None  # a package of this name, with other content
        check_software(software(), there, "the scheduler")


def _local(count: int, threads: int) -> Cluster:
    """Start workers on this machine; each runs one call at a time."""
    import distributed

    guard = (
        "a script must call dm.cluster under the line if __name__ == '__main__':, since each worker loads the script."
    )
    if getattr(multiprocessing.current_process(), "_inheriting", False):
        raise InputError(f"this process is a worker that is just being started: {guard}")
    libraries = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    try:
        return distributed.LocalCluster(
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


def _check_answer(address: str, timeout: float) -> None:
    """Raise `InputError` unless Dask answers there.

    A client that cannot connect complains at its end, and waits for ever where a port takes connections and says
    nothing: `distributed.Client`'s own timeout does not hold for that, nor does that of `connect`.
    """
    from distributed import Security
    from distributed.comm import connect

    async def ask() -> None:
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
