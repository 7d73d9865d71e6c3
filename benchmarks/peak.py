"""What this machine's matrix products can do, and how much of it steps of gradient descent attain."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from threadpoolctl import threadpool_limits

from benchmarks import compiled
from benchmarks.rows import Row, medians
from dmfkit import CompletionTask, Descent, full_widths, gradient_descent, initialise
from dmfkit.experiments.step_timings import step_seconds
from dmfkit.gradients.flop_counts import full_count

# Products that one call multiplies side by side; the best of them is the machine's rate.
BATCHES = (1, 2, 4, 12, 24, 96)


def rows(task: CompletionTask, depths: Sequence[int], runs: int, device: torch.device, repeats: int) -> list[Row]:
    """Rates in float64, interleaved; one multiplication and one addition are two operations.

    A step at depth ``N`` is counted as the ``3 (N - 1)`` products that its gradient needs, nothing else.
    """
    d = task.d
    ways: dict[tuple[str, int], Callable[[int], object]] = {
        (name, size): way(d, size, device) for name, way in _libraries(device).items() for size in BATCHES
    }
    operations: dict[tuple[str, int], float] = {(name, size): 2.0 * d**3 * size for name, size in ways}
    problem = task.problem().to(device)
    steps = []
    for depth in depths:
        for size in (1, runs):
            start = initialise("gaussian", full_widths(task.shape, depth), [1e-3] * size, range(size), device=device)
            steps.append((f"descent, depth {depth}, {size} run{'s' if size > 1 else ''}", size))
            ways[steps[-1]] = lambda steps, start=start: gradient_descent(  # type: ignore[misc]
                problem, start, Descent(lr=1e-6, stop=0.0, max_steps=steps)
            )
            operations[steps[-1]] = 2.0 * full_count(d, depth) * size
    if compiled.available():
        left, right = (tensor[0].cpu().numpy() for tensor in _operands(d, 1, device))
        ways["products compiled by JAX", 1] = compiled.multiplier(left, right)
        operations["products compiled by JAX", 1] = 2.0 * d**3
    named = {f"{name}, {size}": way for (name, size), way in ways.items()}
    seconds = medians(step_seconds(named, repeats, "rates"))
    rates = {key: operations[key] / seconds[f"{key[0]}, {key[1]}"] / 1e9 for key in operations}
    found, best = [], {}
    for name in (*_libraries(device), *(["products compiled by JAX"] if compiled.available() else [])):
        best[name], size = max((rate, size) for (way, size), rate in rates.items() if way == name)
        found.append(Row(f"rate of {name}, {d} x {d}, float64, best of batches (here {size})", best[name], "GFLOP/s"))
    for key in steps:
        found.append(Row(f"rate of {key[0]}", rates[key], "GFLOP/s"))
        found += [
            Row(f"share of the rate of {name}: {key[0]}", 100.0 * rates[key] / best[name], "%")
            for name in _libraries(device)
        ]
    return found


def _libraries(device: torch.device) -> dict[str, Callable[[int, int, torch.device], Callable[[int], object]]]:
    """Ways to multiply batches on a device."""
    return {"torch.bmm": _by_torch, **({"numpy.matmul on all cores": _by_numpy} if device.type == "cpu" else {})}


def _operands(d: int, size: int, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    left, right = (torch.randn(size, d, d, generator=generator, dtype=torch.float64) for _ in range(2))
    return (left / d**0.5).to(device), right.to(device)


def _by_torch(d: int, size: int, device: torch.device) -> Callable[[int], object]:
    left, right = _operands(d, size, device)
    out = torch.empty_like(left)

    def way(steps: int) -> object:
        for _ in range(steps):
            torch.bmm(left, right, out=out)
        return out

    return way


def _by_numpy(d: int, size: int, device: torch.device) -> Callable[[int], object]:
    """Every core multiplies a batch of its own, as many in all as there are in one; OpenBLAS has no threads then."""
    operands = [tensor.numpy() for tensor in _operands(d, size, device)]
    number = min(torch.get_num_threads(), size)
    parts = [
        (left, right, np.empty_like(left))
        for left, right in zip(*(np.array_split(operand, number) for operand in operands), strict=True)
    ]

    def way(steps: int) -> object:
        def multiply(part: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
            left, right, out = part
            for _ in range(steps):
                np.matmul(left, right, out=out)

        with threadpool_limits(limits=1, user_api="blas"), ThreadPoolExecutor(number) as threads:
            list(threads.map(multiply, parts))
        return parts

    return way
