"""What happens on a worker: its software is compared, and a task is run or interrupted."""

from __future__ import annotations

import ctypes
import hashlib
import platform
from collections.abc import Callable, Set
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import torch

from dmfkit import store
from dmfkit.errors import InputError
from dmfkit.provenance import PACKAGES

if TYPE_CHECKING:
    from distributed import Worker

Returned = TypeVar("Returned")

# Taken when the module is loaded: a worker that was started before the files changed still computes with the old ones.
_SOURCES = hashlib.sha256(
    b"".join(path.read_text(encoding="utf-8").encode() for path in sorted(Path(__file__).parent.rglob("*.py")))
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
