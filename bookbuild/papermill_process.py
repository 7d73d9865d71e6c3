"""Executes one notebook by papermill, in a process that ends when the one that started it does.

Run as a script, so that it imports papermill and nothing else: importing the package would bring PyTorch and Sphinx,
some four seconds of a processor for every notebook. Its argument holds those of `papermill.execute_notebook` as JSON.
Nothing comes through standard input, which the operating system closes once the process at its other end is gone,
however it ended.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
import threading

import papermill


def end_with_input() -> None:
    """Wait for the end of standard input, then end this process: papermill shuts its kernel down."""
    # Not through `sys.stdin`, whose lock a waiting thread would hold when the interpreter ends.
    while os.read(0, 1):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    threading.Thread(target=end_with_input, daemon=True).start()
    papermill.execute_notebook(**json.loads(sys.argv[1]), kernel_name="python3", progress_bar=False)
