"""Runs papermill for as long as the process lives that asked for it; run as a script, so that it imports nothing else.

A worker that is killed stops nothing itself: without this, its notebook would go on and take the cores from the retry.
"""

from __future__ import annotations

import os
import runpy
import signal
import sys
import threading
import time

POLL_SECONDS = 1.0


def end_with(parent: int) -> None:
    """End this process as a terminal would, once its parent is no longer the one of that number."""
    while os.getppid() == parent:
        time.sleep(POLL_SECONDS)
    os.kill(os.getpid(), signal.SIGTERM)  # papermill shuts its kernel down


if __name__ == "__main__":
    threading.Thread(target=end_with, args=(int(sys.argv[1]),), daemon=True).start()
    sys.argv = ["papermill", *sys.argv[2:]]
    runpy.run_module("papermill", run_name="__main__")
