"""Seconds and gradient evaluations until one run of Figure 1 of Arora et al. (2019) has reached its stop.

The matrix is rescaled as in the released code. GroupRMSprop, at that code's rate, and the flow minimise the mean of
squares; fixed-step descent minimises the half-sum at the paper's rate, with which the mean would take a thousand times
as many steps. The stop is the same for all: a mean squared residual below 1e-6.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

import torch

from benchmarks import autograd
from benchmarks.rows import Row, compared
from benchmarks.steps import REFERENCE
from dmfkit import CompletionTask, Descent, Flow, Start, gradient_descent, gradient_flow
from dmfkit.experiments.progress import Progress
from dmfkit.training.result import Result, Status

STOP, RATE = 1e-6, 1e-3


def rows(task: CompletionTask, start: Start, device: torch.device, limit_seconds: float) -> list[Row]:
    """Measure each way once, from the same initial factors; what is compiled has been before.

    Parameters
    ----------
    task : CompletionTask
    start : Start
    device : torch.device
    limit_seconds : float
        The reference is ended after so many seconds; its rows then say "at least".
    """
    problem = replace(task, normalisation="mean").problem().to(device)
    half_sum = replace(task, normalisation="half_sum").problem().to(device)
    first = start.begin(problem).factorization
    descent = Descent(lr=RATE, stop=STOP)
    # The first call of all compiles, which can take longer than a run.
    gradient_flow(problem, first, Flow(max_evaluations=20))
    gradient_descent(problem, first, replace(descent, max_steps=20))
    ways: dict[str, Callable[[], Result]] = {
        "dmfkit flow": lambda: gradient_flow(problem, first, Flow(stop=STOP)),
        "dmfkit GroupRMSprop": lambda: gradient_descent(problem, first, replace(descent, rule="group_rmsprop")),
        "dmfkit fixed-step descent, half-sum": lambda: gradient_descent(half_sum, first, descent),
    }
    with Progress(1 + len(ways), "to the stop") as progress:
        began = time.perf_counter()
        _, steps, ended = autograd.train(problem, first, RATE, descent.max_steps, STOP, limit_seconds)
        seconds = time.perf_counter() - began
        progress.advance(1)
        name = REFERENCE if ended else f"{REFERENCE}, ended early: at least"
        reference = Row(f"to the stop, depth {start.depth}: {name}", seconds, "s")
        counts = [Row(f"evaluations to the stop: {name}", float(steps + 1), "")]
        found = [reference]
        for label, way in ways.items():
            began = time.perf_counter()
            result = way()
            seconds = time.perf_counter() - began
            progress.advance(1)
            note = "" if int(result.status[0]) == Status.CONVERGED else ", without reaching it"
            found.append(compared(f"to the stop, depth {start.depth}: {label}{note}", seconds, "s", reference))
            evaluations = float(result.n_evaluations[0])
            counts.append(compared(f"evaluations to the stop: {label}{note}", evaluations, "", counts[0]))
    return [*found, *counts]
