"""Ctrl-C that does no harm: an object whose constructor was interrupted would be destroyed half made."""

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
