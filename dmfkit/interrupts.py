"""Ctrl-C that is not lost: Python drops an exception that is raised within the callback of a weak reference."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


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
