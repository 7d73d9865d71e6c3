"""Calling a function for several numbers: one after the other here, side by side where `cores` has threads for it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

Made = TypeVar("Made")
# Calls a function for the numbers from 0 up to another; returns what it gave, in their order.
Spread = Callable[[Callable[[int], Made], int], list[Made]]


def serially(function: Callable[[int], Made], number: int) -> list[Made]:
    """Call a function for the numbers from 0 up to `number`, one after the other."""
    return [function(each) for each in range(number)]
