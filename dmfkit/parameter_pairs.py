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
    if "smaller_layer_scales" in values:
        _check_blocks(d, values)
    for name in ("n_observed", "path_n_observed", "fewer_n_observed"):
        _check_counts(name, values.get(name, ()), f"a {d} by {d} matrix (d = {d}) has only {d * d} entries", d * d, "d")
    _check_compression(values)
    if "hidden_widths" in values and "rank_bounds" in values:
        _check_widths(values)
    size = values.get("symmetric_d", 1)
    pairs = size * (size + 1) // 2
    there = f"a symmetric matrix of size {size} (symmetric_d = {size}) has only {pairs} pairs of entries"
    _check_counts("symmetric_n_observed", values.get("symmetric_n_observed", ()), there, pairs, "symmetric_d")
    if values.get("symmetric_rank", 0) > size:
        raise InputError(
            f"symmetric_rank = {values['symmetric_rank']} is not allowed with symmetric_d = {size}: it must "
            "be at most symmetric_d, so lower it or raise symmetric_d."
        )


def _check_compression(values: Mapping[str, Any]) -> None:
    """A bound of the rank is not below the rank, and compressed weights are smaller than the matrix."""
    small = "small_d" in values
    for bounds, rank, sizes in (
        ("rank_bound", "rank", ("d", "smaller_d")),
        ("rank_bounds", "small_rank" if small else "rank", ("small_d" if small else "d",)),
    ):
        for bound in _several(values.get(bounds, ())):
            if bound < values.get(rank, 1):
                raise InputError(
                    f"{bounds} = {bound} is not allowed with {rank} = {values[rank]}: it must be at least the rank, so "
                    f"raise it or lower {rank}."
                )
            for name in sizes:
                for size in _several(values.get(name, ())):
                    if 2 * bound >= size:
                        raise InputError(
                            f"{bounds} = {bound} is not allowed with {name} = {size}: compressed weights have "
                            f"2 * {bound} rows, which must be fewer, so lower it or raise {name}."
                        )


def _several(value: Any) -> tuple[Any, ...]:
    return value if isinstance(value, tuple) else (value,)


def _check_blocks(d: int, values: Mapping[str, Any]) -> None:
    """Theorem 1 of Yaras et al. (2023) needs 2 rank < d, and its chapter two layers and one more rank to compare."""
    rank = values["rank"]
    if 2 * (rank + 1) >= d:
        raise InputError(
            f"rank = {rank} is not allowed with d = {d}: the chapter also looks at rank + 1, and 2 * (rank + 1) must "
            "be less than d, so lower it or raise d."
        )
    if values["weight_decay"] == 0:
        raise InputError("weight_decay = 0.0 is not allowed: the chapter compares runs without and with weight decay.")
    for name, layers in (("depth", values["depth"]), ("layer_scales", len(values["layer_scales"]))):
        if layers < 2:
            raise InputError(f"{name} gives {layers} factor, but this chapter compares layers: give at least 2.")


def _check_counts(name: str, counts: Iterable[int], there: str, most: int, size: str) -> None:
    for n in counts:
        if n > most:
            raise InputError(
                f"{name} has {n}, but {there}: {name} must be at most {most}, so lower it or raise {size}."
            )


def _check_widths(values: Mapping[str, Any]) -> None:
    """Raise `InputError` if sizes of the chapter on width contradict each other."""
    small, d = values["smaller_d"], values["d"]
    for r in values["ranks"]:
        if not (r < small and sum(r <= width <= small for width in values["hidden_widths"]) >= 2):
            raise InputError(
                f"ranks has {r}, but hidden_widths = {list(values['hidden_widths'])} has fewer than two widths from "
                f"{r} to smaller_d = {small}: add widths or lower the rank."
            )
    if max(values["hidden_widths"]) > small:
        raise InputError(
            f"hidden_widths has {max(values['hidden_widths'])}, more than smaller_d = {small}: lower it or raise "
            "smaller_d."
        )
    if len(values["lrs"]) != len(values["depths"]):
        raise InputError(
            f"{len(values['lrs'])} lrs were given for {len(values['depths'])} depths: give one for each, in turn."
        )
    if len(values["depths"]) < 2 or min(values["depths"]) < 2:
        raise InputError("depths must have two values of at least 2: this chapter compares a shallow and a deep one.")
    bounds = values["rank_bounds"]
    for bound in values["larger_rank_bounds"]:
        if 2 * bound >= d:
            raise InputError(
                f"larger_rank_bounds has {bound}, which is not allowed with d = {d}: compressed weights have "
                f"2 * {bound} rows, which must be fewer than d, so lower it or raise d."
            )
    if list(bounds) != sorted(bounds) or min(values["larger_rank_bounds"]) <= bounds[-1]:
        raise InputError("rank_bounds must rise, and larger_rank_bounds must be larger than all of them.")
