"""Seconds per run and step: `dmfkit`, automatic differentiation through `nn.Linear`, and JAX, side by side.

All three compute the same trajectory, the released code's GroupRMSprop on the mean squared residual. Of the three only
JAX does not test the loss at every step.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch

from benchmarks import autograd, compiled
from benchmarks.rows import Row, compared, medians
from dmfkit import (
    CompletionTask,
    CompressedStart,
    Descent,
    Factorization,
    FullObservationTask,
    OrthogonalStart,
    full_widths,
    gradient_descent,
    initialise,
)
from dmfkit.experiments.step_timings import step_seconds
from dmfkit.factorizations.starts import AnyStart
from dmfkit.problems.losses import Problem

Way = Callable[[int], object]
REFERENCE = "autograd through nn.Linear"
LR = 1e-3
# At d = 1000: the compressed factorization of Yaras et al. (2023), Figure 3, and the full one beside it.
LAYER_SCALE, DISCREPANT_RATE = 1e-3, 0.01


def ways(problem: Problem, start: Factorization, descent: Descent) -> dict[str, Way]:
    """Ways to take steps of GroupRMSprop from `start`, each a function of the number of steps.

    A way returns factors, ``(runs, d_j, d_{j-1})`` each, except for the reference, which trains one run.
    """
    found: dict[str, Way] = {
        "dmfkit": lambda steps: (
            gradient_descent(problem, start, replace(descent, stop=0.0, max_steps=steps)).factorization.factors
        )
    }
    if start.n_runs == 1:
        found = {REFERENCE: lambda steps: autograd.train(problem, start, descent.lr, steps)[0], **found}
    if compiled.available() and problem.device.type == "cpu":
        found["JAX"] = compiled.trainer(
            problem, start, descent.lr, rule=descent.rule, factor_rates=descent.factor_rates
        )
    return found


def rows(
    task: CompletionTask, depths: Sequence[int], runs: int, dtypes: Sequence[str], device: torch.device, repeats: int
) -> list[Row]:
    """Measure every depth and precision, one run alone and `runs` of them in a batch."""
    return [row for dtype in dtypes for depth in depths for row in _rows(task, depth, runs, dtype, device, repeats)]


def _rows(task: CompletionTask, depth: int, runs: int, dtype: str, device: torch.device, repeats: int) -> list[Row]:
    precision = getattr(torch, dtype)
    problem = replace(task, normalisation="mean").problem().to(device, precision)
    widths = full_widths(task.shape, depth)
    start = initialise("gaussian", widths, [1e-3] * runs, range(runs), device=device, dtype=precision)
    first = Factorization(start.state[:1].clone(), widths)
    descent = Descent(lr=LR, rule="group_rmsprop", dtype=dtype)  # type: ignore[arg-type]
    alone = {f"{name}, 1 run": way for name, way in ways(problem, first, descent).items()}
    batch = {f"{name}, {runs} runs": way for name, way in ways(problem, start, descent).items()}
    where = f"step, depth {depth}, {dtype}"
    seconds = medians(step_seconds({**alone, **batch}, repeats, where))
    micro = {name: 1e6 * value / (runs if name in batch else 1) for name, value in seconds.items()}
    reference = Row(f"{where}: {REFERENCE}, 1 run", micro.pop(f"{REFERENCE}, 1 run"), "us/run")
    return [reference, *(compared(f"{where}: {name}", value, "us/run", reference) for name, value in micro.items())]


def wide_rows(d: int, rank: int, observed_share: float, device: torch.device, repeats: int) -> list[Row]:
    """Full and compressed steps of fixed-rate descent at a large `d`, beside the same compiled by JAX."""
    thin = CompressedStart(3, LAYER_SCALE, rank_bound=rank)
    completion = CompletionTask(d=d, rank=rank, n_observed=max(1, int(observed_share * d * d)), target="truncated")
    whole = FullObservationTask(d=d, rank=rank, target="truncated")
    cases: dict[str, tuple[CompletionTask | FullObservationTask, AnyStart]] = {
        "masked, full width": (completion, OrthogonalStart(3, LAYER_SCALE)),
        "masked, compressed": (completion, replace(thin, discrepant_rate=DISCREPANT_RATE)),
        "fully observed, compressed": (whole, thin),
    }
    found = []
    for label, (task, start) in cases.items():
        begun = start.begin(task.problem().to(device))
        descent = Descent(lr=1e-6, factor_rates=begun.factor_rates)
        there = ways(begun.problem, begun.factorization, descent)
        there.pop(REFERENCE)  # it knows neither factor rates nor projected problems
        seconds = medians(step_seconds(there, repeats, label))
        where = f"step, d = {d}, {label}"
        if "JAX" in seconds:
            jax = Row(f"{where}: JAX", 1e3 * seconds["JAX"], "ms")
            found += [jax, compared(f"{where}: dmfkit", 1e3 * seconds["dmfkit"], "ms", jax)]
        else:
            found.append(Row(f"{where}: dmfkit", 1e3 * seconds["dmfkit"], "ms"))
    return found
