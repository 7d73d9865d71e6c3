"""What this machine's matrix products can do, and how much of it steps of gradient descent attain."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch

from benchmarks import compiled
from benchmarks.clock import step_seconds
from benchmarks.rows import Row
from dmfkit import CompletionTask, Descent, full_widths, gradient_descent, initialise
from dmfkit.multiplications import full_count

# Products that one call multiplies side by side; the best of them is the machine's rate.
BATCHES = (1, 2, 4, 12, 24, 96)


def rows(task: CompletionTask, depths: Sequence[int], runs: int, device: torch.device, repeats: int) -> list[Row]:
    """Rates in float64, interleaved; one multiplication and one addition are two operations.

    A step at depth ``N`` is counted as the ``3 (N - 1)`` products that its gradient needs, nothing else.
    """
    d = task.d
    ways: dict[str, Callable[[int], object]] = {f"products {size}": _products(d, size, device) for size in BATCHES}
    operations = {f"products {size}": 2.0 * d**3 * size for size in BATCHES}
    problem = task.problem().to(device)
    for depth in depths:
        for size in (1, runs):
            start = initialise("gaussian", full_widths(task.shape, depth), [1e-3] * size, range(size), device=device)
            name = f"descent, depth {depth}, {size} run{'s' if size > 1 else ''}"
            ways[name] = lambda steps, start=start: gradient_descent(  # type: ignore[misc]
                problem, start, Descent(lr=1e-6, stop=0.0, max_steps=steps)
            )
            operations[name] = 2.0 * full_count(d, depth) * size
    others = _others(d)
    operations |= dict.fromkeys(others, 2.0 * d**3)
    seconds = step_seconds({**ways, **others}, repeats, "rates")
    rates = {name: operations[name] / seconds[name] / 1e9 for name in operations}
    products = {size: rates[f"products {size}"] for size in BATCHES}
    best = max(products, key=lambda size: products[size])
    found = [Row(f"rate of torch.bmm, {d} x {d}, float64, best of batches (here {best})", products[best], "GFLOP/s")]
    for name in list(ways)[len(BATCHES) :]:
        found += [
            Row(f"rate of {name}", rates[name], "GFLOP/s"),
            Row(f"share of the rate of torch.bmm: {name}", 100.0 * rates[name] / products[best], "%"),
        ]
    return [*found, *(Row(f"rate of {name}, {d} x {d}, float64", rates[name], "GFLOP/s") for name in others)]


def _others(d: int) -> dict[str, Callable[[int], object]]:
    """Products by other libraries: whether the machine could do more than PyTorch's library makes of it."""
    generator = np.random.default_rng(0)
    left, right = (generator.standard_normal((d, d)) / d**0.5 for _ in range(2))
    out = np.empty_like(left)

    def numpy_way(steps: int) -> object:
        for _ in range(steps):
            np.matmul(left, right, out=out)
        return out

    ways: dict[str, Callable[[int], object]] = {"numpy.matmul": numpy_way}
    if compiled.available():
        ways["products compiled by JAX"] = compiled.multiplier(left, right)
    return ways


def _products(d: int, size: int, device: torch.device) -> Callable[[int], object]:
    generator = torch.Generator().manual_seed(0)
    left, right = (torch.randn(size, d, d, generator=generator, dtype=torch.float64).to(device) for _ in range(2))
    out = torch.empty_like(left)

    def way(steps: int) -> object:
        for _ in range(steps):
            torch.bmm(left, right, out=out)
        return out

    return way
