"""One process at a time in an output folder."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dmfkit.errors import InputError


@contextmanager
def only_one_in(folder: Path, what: str) -> Iterator[None]:
    """Hold a lock on an output folder, which is made; the operating system releases it even after a kill.

    Raises
    ------
    InputError
        If another process has it, or the folder cannot be made or written to; `what` says what that process does.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / ".lock").open("w")
    except OSError as error:
        raise InputError(
            f"The output folder {folder} cannot be written to ({error.strerror}): name another one by --output."
        ) from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(
                f"Another {what} writes to {folder}: wait for it, or name another folder by --output."
            ) from None
        yield
