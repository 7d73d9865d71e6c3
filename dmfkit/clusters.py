"""Opening a cluster: on this machine, behind a scheduler's address, or one that was made by another package.

Dask is an optional package, and only imported when a cluster is asked for.
"""

from __future__ import annotations

import asyncio
import logging
import math
import multiprocessing
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from dmfkit.errors import InputError
from dmfkit.executors import Executor

if TYPE_CHECKING:
    from distributed import Client
    from distributed.deploy import Cluster


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
    except (OSError, TypeError, ValueError, asyncio.TimeoutError) as error:
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
