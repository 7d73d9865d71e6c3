"""Processes that tests start, wait for and interrupt; nothing here depends on how busy the machine is."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

# Seconds after which something is never going to happen, on the busiest of machines.
PATIENCE = 300.0
# What is to be stopped sleeps for so long: had it ended by itself, the wait for its end would have been given up.
ENDLESS = 3600


@contextmanager
def interruptible() -> Iterator[None]:
    """Let this process and those it starts be interrupted, even where a shell has started it to ignore that.

    Background jobs of a shell without job control, and what ``nohup`` or a service starts, ignore SIGINT, and so would
    all their children.
    """
    before = signal.getsignal(signal.SIGINT)
    if before is not signal.SIG_IGN:
        yield
        return
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def wait_until(condition: Callable[[], object], seconds: float = PATIENCE) -> None:
    """Wait for something to become true; an assertion fails if it does not."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


def alive(pid: int) -> bool:
    """Whether there is a process of this number that has not ended."""
    try:
        os.kill(pid, 0)
        # A zombie has ended; only its parent has not asked yet.
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (ProcessLookupError, FileNotFoundError):
        return False
