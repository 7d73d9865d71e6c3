"""What every computation over a grid needs: checks, points, a device, and one problem at a time."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Set
from typing import Any

import torch

from dmfkit.errors import InputError
from dmfkit.problems.losses import Problem
from dmfkit.problems.tasks import Task


def check_grid(grid: Mapping[str, tuple[Any, ...]], known: Set[str]) -> None:
    """Raise `InputError` unless every swept name is `known` and has values, each of them once."""
    for name, values in grid.items():
        if name not in known:
            raise InputError(f"{name!r} cannot be swept: choose from {', '.join(sorted(known))}.")
        if not len(values):
            raise InputError(f"{name} is an empty list: give it at least one value.")
        if len(set(values)) != len(values):
            raise InputError(f"{name} = {list(values)} has a value twice: give every value once.")


def grid_points(grid: Mapping[str, tuple[Any, ...]]) -> list[dict[str, Any]]:
    """Grid points in the order of the grid's dimensions, last dimension fastest."""
    return [dict(zip(grid, values, strict=True)) for values in itertools.product(*grid.values())]


def choose_device(device: str) -> torch.device:
    """Device of that name; ``auto`` takes a GPU where there is one.

    Raises
    ------
    InputError
        If a GPU is asked for where there is none.
    """
    if device not in ("auto", "cpu", "cuda"):
        raise InputError(f"device = {device!r} is not allowed: choose 'auto', 'cpu' or 'cuda'.")
    if device == "cuda" and not torch.cuda.is_available():
        raise InputError("device = 'cuda' was asked for, but there is no CUDA GPU here: choose 'auto' or 'cpu'.")
    return torch.device("cuda" if device != "cpu" and torch.cuda.is_available() else "cpu")


class LatestProblem:
    """The problem that was asked for last, so that neighbours on a grid share it.

    Never holds two: the operator of 5000 measurements of a 100 x 100 matrix takes 400 MB.
    """

    def __init__(self) -> None:
        self._key: Any = None
        self._problem: Problem | None = None

    def of(self, task: Task, device: torch.device, dtype: torch.dtype) -> Problem:
        """Return the task's problem there and in that precision; made anew only if the last one was another."""
        if self._problem is None or self._key != (task, device, dtype):
            self._problem = None  # let go before the next one is made
            self._problem, self._key = task.problem().to(device, dtype), (task, device, dtype)
        return self._problem
