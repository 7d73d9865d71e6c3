"""Seconds per step in the steady state, of several ways to take it, interleaved."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping

import numpy as np
import torch
from numpy.typing import NDArray

from dmfkit.progress import Progress

# What is added to the shorter of two runs takes about so long.
LEAST_SECONDS = 0.3


def step_seconds(
    ways: Mapping[str, Callable[[int], object]], repeats: int, label: str, least_seconds: float | None = None
) -> dict[str, NDArray[np.float64]]:
    """Seconds per step of each way, once for every repetition.

    A way is called with a number of steps. What a call costs beside its steps cancels: a repetition is the difference
    between a longer and a shorter call. Repetitions of all ways are interleaved, so that a machine that slows down
    slows all of them.

    Parameters
    ----------
    ways : mapping of str to callable
    repeats : int
    label : str
        What the progress bar says.
    least_seconds : float, optional
        What is added to the shorter of two calls takes about so long; 0.3 if not given.
    """
    least = LEAST_SECONDS if least_seconds is None else least_seconds
    short = 2
    counts = {}
    for name, way in ways.items():
        way(short)  # compiles, warms up
        counts[name] = _enough(way, short, least)
    found: dict[str, list[float]] = {name: [] for name in ways}
    with Progress(repeats, label) as progress:
        for _ in range(repeats):
            for name, way in ways.items():
                longer = _seconds(way, short + counts[name])
                found[name].append((longer - _seconds(way, short)) / counts[name])
            progress.advance(1)
    return {name: np.array(values) for name, values in found.items()}


def _enough(way: Callable[[int], object], steps: int, least: float) -> int:
    """Steps that take that many seconds, roughly; found by longer and longer calls, since short ones say little."""
    while (seconds := _seconds(way, steps)) < least / 4:
        steps *= 2
    return max(steps, math.ceil(steps * least / seconds)) if seconds < least else steps


def _seconds(way: Callable[[int], object], steps: int) -> float:
    wait()
    began = time.perf_counter()
    way(steps)
    wait()
    return time.perf_counter() - began


def wait() -> None:
    """Wait until the GPU, if there is one in use, has done what it was given."""
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        torch.cuda.synchronize()
