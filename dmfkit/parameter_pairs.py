"""Parameters of a chapter that are allowed one by one, but not together."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from dmfkit.errors import InputError


def check_together(values: Mapping[str, Any]) -> None:
    """Raise `InputError` if two of a chapter's parameters contradict each other; names that it lacks do not matter."""
    d = values.get("d")
    if d is None:
        return
    for name in ("rank", "n_singular_values"):
        if values.get(name, 0) > d:
            raise InputError(
                f"{name} = {values[name]} is not allowed with d = {d}: {name} must be at most d, "
                "so lower it or raise d."
            )
    kept, rank = values.get("n_singular_values"), values.get("rank")
    if kept is not None and rank is not None and kept <= rank:
        raise InputError(
            f"n_singular_values = {kept} is not allowed with rank = {rank}: it must exceed the rank, because the "
            "chapter looks at the first value beyond it, so raise it or lower the rank."
        )
    bound = values.get("rank_bound")
    if bound is not None:
        _check_rank_bound(values, bound)
    if len(values.get("transition_times", (0, 1))) != 2:
        raise InputError("transition_times must have two times, the first and the last, such as [86.0, 106.0].")
    if "strength_ratio" in values and d < 2:
        raise InputError(f"d = {d} is not allowed: the chapter compares two singular values, so d must be at least 2.")
    start, reach = values.get("start_value"), values.get("reach")
    if start is not None and reach is not None and reach <= start:
        raise InputError(
            f"reach = {reach} is not allowed with start_value = {start}: the singular value is followed as it grows, "
            "so raise reach or lower start_value."
        )
    if values.get("n_measurements", 0) >= d:
        raise InputError(
            f"n_measurements = {values['n_measurements']} is not allowed with d = {d}: it must be less than d, "
            "so lower it or raise d."
        )
    if "alphas" in values and min(values["depths"]) < 2:
        raise InputError("depths has 1, but one factor is no factorization: in this chapter depths must be at least 2.")
    for name in ("n_observed", "path_n_observed", "fewer_n_observed", "n_observed_fewer"):
        given = values.get(name, ())
        counts = given if isinstance(given, tuple) else (given,)
        _check_counts(name, counts, f"a {d} by {d} matrix (d = {d}) has only {d * d} entries", d * d, "d")
    size = values.get("symmetric_d", 1)
    pairs = size * (size + 1) // 2
    there = f"a symmetric matrix of size {size} (symmetric_d = {size}) has only {pairs} pairs of entries"
    _check_counts("symmetric_n_observed", values.get("symmetric_n_observed", ()), there, pairs, "symmetric_d")
    if values.get("symmetric_rank", 0) > size:
        raise InputError(
            f"symmetric_rank = {values['symmetric_rank']} is not allowed with symmetric_d = {size}: it must "
            "be at most symmetric_d, so lower it or raise symmetric_d."
        )


def _check_rank_bound(values: Mapping[str, Any], bound: int) -> None:
    for name in ("d", "smaller_d"):
        if name in values and 2 * bound >= values[name]:
            raise InputError(
                f"rank_bound = {bound} is not allowed with {name} = {values[name]}: twice the bound must be less, so "
                f"lower rank_bound or raise {name}."
            )
    if values.get("rank", 0) > bound:
        raise InputError(
            f"rank = {values['rank']} is not allowed with rank_bound = {bound}: it is an upper bound, so raise it."
        )


def _check_counts(name: str, counts: Iterable[int], there: str, most: int, size: str) -> None:
    for n in counts:
        if n > most:
            raise InputError(
                f"{name} has {n}, but {there}: {name} must be at most {most}, so lower it or raise {size}."
            )
