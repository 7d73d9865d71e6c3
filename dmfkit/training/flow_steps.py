"""The steps that the flow's integrator takes: how long, with how many stages, and how stiff the flow was there."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dmfkit.errors import InputError
from dmfkit.factorizations.factorization import Factorization
from dmfkit.gradients.choice import execution_for
from dmfkit.gradients.threads import Workers
from dmfkit.problems.losses import Problem
from dmfkit.training.chebyshev import stages_for
from dmfkit.training.flow import Flow
from dmfkit.training.flow_integration import RADIUS_MARGIN
from dmfkit.training.loop import ActiveRuns, check


@dataclass(frozen=True, eq=False)
class FlowSteps:
    """Accepted steps of one run, but for the last, which is cut where the run ends.

    Attributes
    ----------
    times : ndarray, shape (steps,)
        Flow time at the beginning of every step.
    sizes : ndarray, shape (steps,)
        Flow time that a step covers.
    radii : ndarray, shape (steps,)
        Estimate of the Jacobian's spectral radius that was in use, without its margin.
    stages : ndarray of int, shape (steps,)
        Stages of a step, each an evaluation of the gradient.
    n_evaluations : int
        Evaluations of the gradient in all: those of rejected steps and of the estimates of the radius included.
    n_rejected : int
    """

    times: NDArray[np.float64]
    sizes: NDArray[np.float64]
    radii: NDArray[np.float64]
    stages: NDArray[np.int64]
    n_evaluations: int
    n_rejected: int

    @property
    def spans(self) -> NDArray[np.float64]:
        """Size times spectral radius: an explicit step of Euler or Heun would have to keep it below 2."""
        return self.sizes * self.radii


def flow_steps(problem: Problem, start: Factorization, settings: Flow) -> FlowSteps:
    """Follow the gradient flow as `gradient_flow` does, and keep its steps.

    Raises
    ------
    InputError
        If there is more than one run.
    """
    if start.n_runs != 1:
        raise InputError(f"{start.n_runs} runs were given: give one at a time.")
    check(problem, start, settings)
    times, radii, attempts = [0.0], [], 0
    with Workers(execution_for(problem, start.widths, 1)) as workers, workers.library_threads():
        training = settings.start(ActiveRuns(problem, start), workers)
        while training.running:
            training.advance()
            attempts += 1
            if training.running and training.t[0] > times[-1]:
                times.append(float(training.t[0]))
                radii.append(float(training.radius[0]))
    result = training.result()
    sizes, with_margin = np.diff(times), np.array(radii)
    return FlowSteps(
        times=np.array(times[:-1]),
        sizes=sizes,
        radii=with_margin / RADIUS_MARGIN,
        stages=stages_for(sizes * with_margin),
        n_evaluations=int(result.n_evaluations[0]),
        n_rejected=attempts - int(result.n_steps[0]),
    )
