"""Ctrl-C that is not lost and does no harm.

Python drops an exception that is raised within the callback of a weak reference, and an object whose constructor was
interrupted is destroyed half made.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any


@contextmanager
def deferred_interrupts() -> Iterator[None]:
    """Let Ctrl-C and a request to terminate wait until the block is done: for a short one that must not end half-way.

    Does nothing outside of the main thread, and where a signal has no handler of Python's.
    """
    waiting: list[tuple[int, FrameType | None]] = []
    before: dict[int, Callable[[int, FrameType | None], Any]] = {}
    if threading.current_thread() is threading.main_thread():
        for each in (signal.SIGINT, signal.SIGTERM):
            if callable(handler := signal.getsignal(each)):
                before[each] = handler
    for number in before:
        signal.signal(number, lambda received, frame: waiting.append((received, frame)))
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        for number, frame in waiting[:1]:
            before[number](number, frame)


@contextmanager
def noticed_interrupts() -> Iterator[threading.Event]:
    """Give an event that is set by Ctrl-C, for loops to look at where the exception may have been dropped.

    Python drops an exception that is raised within the callback of a weak reference, of which the libraries that write
    results have many. Does nothing outside of the main thread, which alone is interrupted, and where interrupts are
    ignored.
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
