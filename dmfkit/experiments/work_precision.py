"""Work against precision: how many gradients, and seconds, each integrator needs to end how near to the flow's end."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise, product
from pathlib import Path

import torch
import xarray as xr
from torch import Tensor

from dmfkit.errors import SolverError
from dmfkit.experiments.ode_solvers import SOLVERS, CountedField, has_torchdiffeq
from dmfkit.experiments.progress import Progress
from dmfkit.experiments.provenance import hardware, run_provenance
from dmfkit.experiments.store import Store, find_or_compute, specification_key
from dmfkit.factorizations.factorization import Factorization
from dmfkit.factorizations.starts import Start
from dmfkit.problems.losses import Problem
from dmfkit.problems.tasks import Task, key_values
from dmfkit.training.descent import Descent
from dmfkit.training.flow import Flow
from dmfkit.training.loop import Method, train

CHEBYSHEV, DESCENT = "Runge-Kutta-Chebyshev", "gradient descent"
# LSODA makes dense n x n Jacobians by n evaluations each, and factorizes them: beyond this n it is left out.
MOST_PARAMETERS_WITH_JACOBIAN = 1000
# The reference, and a second one that says how good it is.
REFERENCE_RTOLS = (1e-12, 1e-11)
# A run is timed so often, or until this many seconds have gone; the least time counts. It is time of the processor, so
# that what else a machine does matters little.
REPEATS, ENOUGH_SECONDS = 3, 3.0

Run = Callable[[], tuple[Tensor, int]]


@dataclass(frozen=True)
class Contest:
    """One flow, and the settings with which it is followed to one and the same time.

    Attributes
    ----------
    task : Task
    start : Start
    rtols : tuple of float
        Tolerances of every integrator.
    lr_shares : tuple of float
        Learning rates of gradient descent, relative to the largest stable one.
    stop : float
        The flow is followed to the time at which its mean squared residual has fallen to this.
    """

    task: Task
    start: Start
    rtols: Sequence[float]
    lr_shares: Sequence[float]
    stop: float = 1e-6

    @property
    def solvers(self) -> tuple[str, ...]:
        """Names of the integrators that can be asked, gradient descent last."""
        widths = self.start.widths(self.task.shape)
        n_parameters = sum(high * wide for wide, high in pairwise(widths))
        kept = [name for name in SOLVERS if name != "LSODA" or n_parameters <= MOST_PARAMETERS_WITH_JACOBIAN]
        return (CHEBYSHEV, *kept, DESCENT)

    @property
    def settings(self) -> list[tuple[str, float]]:
        """Every run: its solver, and its tolerance or share of the largest stable learning rate."""
        pairs = product(self.solvers, self.rtols)
        return [pair for pair in pairs if pair[0] != DESCENT] + [(DESCENT, share) for share in self.lr_shares]


def work_precision(
    contest: Contest, *, name: str = "work-precision", store: Store | None = None, recompute: bool = False
) -> xr.Dataset:
    """Follow one flow by several integrators and compare with a reference that none of the others takes part in.

    Parameters
    ----------
    contest : Contest
    name, store, recompute
        As in `sweep`. Seconds are the processor's, on the device that the attributes name. Without torchdiffeq, its
        runs are ``nan`` and the result is not kept.

    Returns
    -------
    xarray.Dataset
        Over ``run``: ``solver``, ``setting``, ``n_evaluations``, ``error`` (Frobenius distance of all factors from the
        reference's, relative to its norm), ``seconds``; ``nan`` where a solver gave up. Scalars: ``flow_time``,
        ``stable_lr``, ``reference_evaluations`` and ``reference_error``, by which two reference runs differ.
    """
    specification = {
        "work_precision": {
            "solvers": list(contest.solvers),
            "rtols": list(contest.rtols),
            "lr_shares": list(contest.lr_shares),
            "stop": contest.stop,
        },
        "task": key_values(contest.task),
        "start": key_values(contest.start),
    }
    key = specification_key(specification)
    if store is not None and not has_torchdiffeq() and store.find(name, key) is None:
        store = None

    def compute(parts: Path | None) -> xr.Dataset:  # noqa: ARG001
        began = time.perf_counter()
        dataset = _measure(contest, name)
        return dataset.assign_attrs(
            specification=json.dumps(specification, sort_keys=True),
            total_wall_seconds=time.perf_counter() - began,
            total_evaluations=int(dataset["n_evaluations"].sum()),
            **run_provenance(hardware(torch.device("cpu"))),
        )

    return find_or_compute(store, name, key, compute, recompute=recompute)


def _measure(contest: Contest, label: str) -> xr.Dataset:
    contest.task.check()
    problem = contest.task.problem()
    start = contest.start.begin(problem).factorization
    horizon, stable_lr = horizon_of(contest, problem, start)
    reference, cost = reference_end(problem, start, horizon, REFERENCE_RTOLS[0])
    second, _ = reference_end(problem, start, horizon, REFERENCE_RTOLS[1])
    rows = []
    with Progress(len(contest.settings), label) as progress:
        for solver, setting in contest.settings:
            rows.append(_timed(runner(problem, start, horizon, stable_lr, solver, setting), solver, reference))
            progress.advance(1)
    evaluations, errors, seconds = (list(column) for column in zip(*rows, strict=True))
    return xr.Dataset(
        {
            "solver": ("run", [solver for solver, _ in contest.settings]),
            "setting": ("run", [setting for _, setting in contest.settings]),
            "n_evaluations": ("run", evaluations),
            "error": ("run", errors),
            "seconds": ("run", seconds),
            "flow_time": ((), horizon),
            "stable_lr": ((), stable_lr),
            "reference_evaluations": ((), cost),
            "reference_error": ((), _distance(second, reference)),
        }
    )


def horizon_of(contest: Contest, problem: Problem, start: Factorization) -> tuple[float, float]:
    """Flow time at which the stop is met, and the largest stable learning rate up to there."""
    followed = train(problem, start, Flow(rtol=1e-5, stop=contest.stop))
    return float(followed.time[0]), float(followed.stable_lr[0])


def reference_end(problem: Problem, start: Factorization, horizon: float, rtol: float) -> tuple[Tensor, int]:
    """End of the flow by DOP853 at a tolerance near rounding, and its number of evaluations."""
    field = CountedField(problem, start.widths)
    return SOLVERS["DOP853"](field, start.state[0], horizon, rtol), field.n_evaluations


def runner(
    problem: Problem, start: Factorization, horizon: float, stable_lr: float, solver: str, setting: float
) -> Run:
    """Return a function that follows the flow once and gives its end and the number of evaluations."""

    def run() -> tuple[Tensor, int]:
        if solver in SOLVERS:
            field = CountedField(problem, start.widths)
            return SOLVERS[solver](field, start.state[0], horizon, setting), field.n_evaluations
        # A whole number of steps, so that all end at the same time.
        steps = max(1, round(horizon / (setting * stable_lr)))
        ours: dict[str, Method] = {
            CHEBYSHEV: Flow(rtol=setting, stop=0.0, horizon=horizon),
            DESCENT: Descent(lr=horizon / steps, stop=0.0, max_steps=steps),
        }
        found = train(problem, start, ours[solver])
        return found.factorization.state[0], int(found.n_evaluations[0])

    return run


def _timed(run: Run, solver: str, reference: Tensor) -> tuple[float, float, float]:
    """Evaluations, error, and the least seconds of a few repeats."""
    if solver == "dopri5" and not has_torchdiffeq():
        return (float("nan"),) * 3
    least, spent, repeats = float("inf"), 0.0, 0
    while repeats < REPEATS and spent < ENOUGH_SECONDS:
        began = time.process_time()
        try:
            end, evaluations = run()
        except SolverError:  # it gave up: nothing to compare
            return (float("nan"),) * 3
        seconds = time.process_time() - began
        least, spent, repeats = min(least, seconds), spent + seconds, repeats + 1
    return float(evaluations), _distance(end, reference), least


def _distance(end: Tensor, reference: Tensor) -> float:
    return float(torch.linalg.vector_norm(end - reference) / torch.linalg.vector_norm(reference))
