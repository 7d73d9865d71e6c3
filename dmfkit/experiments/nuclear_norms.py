"""Grids of minimum-nuclear-norm solutions, stored together with what proves them.

Every stored solution holds its matrix and its dual multipliers, so that `reproduce.certified` can establish from the
task alone that it agrees with the observations and that no other such matrix has a smaller nuclear norm.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, get_args

import torch
import xarray as xr

from dmfkit.errors import InputError
from dmfkit.experiments.experiment import (
    Batch,
    LatestProblem,
    check_grid,
    find_or_compute,
    grid_points,
    numbered,
    on_grid,
)
from dmfkit.experiments.store import Store
from dmfkit.linalg import spectra
from dmfkit.nuclear_norm.solution import NuclearNormSolution, minimum_nuclear_norm
from dmfkit.nuclear_norm.splitting import least_nuclear_norm
from dmfkit.problems.losses import Problem
from dmfkit.problems.tasks import CompletionTask, SensingTask
from dmfkit.training.result import Status
from dmfkit.values import field_names, key_values, plain_value, with_fields

Solver = Literal["douglas-rachford", "SCS", "CLARABEL"]


@plain_value
@dataclass(frozen=True)
class NuclearNorm:
    """How the least nuclear norm is found.

    Attributes
    ----------
    solver : {"douglas-rachford", "SCS", "CLARABEL"}
        Our own first-order method, or a solver of CVXPY's (for observed entries only).
    tolerance : float
        Relative gap between the bounds at which our own method ends; ``eps`` for SCS. CLARABEL has its own.
    max_iterations : int
    """

    solver: Solver = "douglas-rachford"
    tolerance: float = 1e-7
    max_iterations: int = 20_000

    def __post_init__(self) -> None:
        if self.solver not in get_args(Solver):
            raise InputError(f"solver = {self.solver!r} is not allowed: choose one of {', '.join(get_args(Solver))}.")
        if not 0 < self.tolerance < 1:
            raise InputError(f"tolerance = {self.tolerance} is not allowed: it lies between 0 and 1, such as 1e-7.")
        if self.max_iterations < 1:
            raise InputError(f"max_iterations = {self.max_iterations} is not allowed: it must be at least 1.")

    def solve(self, problem: Problem) -> NuclearNormSolution:
        """Find the matrix of least nuclear norm that agrees with a problem's observations."""
        if self.solver == "douglas-rachford":
            return least_nuclear_norm(problem, tolerance=self.tolerance, max_iterations=self.max_iterations)
        if problem.mask is None:
            raise InputError(f"{self.solver} is only used for observed entries here: choose 'douglas-rachford'.")
        options: dict[str, Any] = {"max_iter": self.max_iterations}
        if self.solver == "SCS":
            options = {"eps": self.tolerance, "max_iters": self.max_iterations}
        mask = problem.mask.bool()
        values = torch.zeros_like(problem.mask).masked_scatter_(mask, problem.observed_values)
        return minimum_nuclear_norm(values.cpu().numpy(), mask.cpu().numpy(), solver=self.solver, **options)


@dataclass(frozen=True)
class NuclearNormGrid:
    """A grid of minimum-nuclear-norm problems, described by plain values only.

    Attributes
    ----------
    task, method
        What is observed, and how the minimum is found; fields named in `grid` are replaced point by point.
    grid : mapping
        Names of fields, each with the values that it takes; their order is the order of dimensions.
    """

    kind: ClassVar[str] = "nuclear_norm"
    counted: ClassVar[str] = "n_iterations"

    task: CompletionTask | SensingTask
    method: NuclearNorm
    grid: Mapping[str, tuple[Any, ...]]

    def __post_init__(self) -> None:
        check_grid(self.grid, field_names(self.task) | field_names(self.method))

    @property
    def specification(self) -> dict[str, Any]:
        """Everything that determines the numbers, as plain values."""
        return {
            "task": key_values(self.task),
            "method": key_values(self.method),
            "grid": {name: list(values) for name, values in self.grid.items()},
        }

    @property
    def points(self) -> list[dict[str, Any]]:
        """Grid points in the order of the grid's dimensions, last dimension fastest."""
        return grid_points(self.grid)

    def at(self, point: Mapping[str, Any]) -> tuple[CompletionTask | SensingTask, NuclearNorm]:
        """Task and method at one grid point."""
        return with_fields(self.task, point), with_fields(self.method, point)

    def batches(self) -> list[Batch]:
        """Every point by itself; all tasks are checked before anything is solved."""
        resolved = [self.at(point) for point in self.points]
        for task, _ in resolved:
            task.check()
        return [Batch((index,), (each,)) for index, each in enumerate(resolved)]

    def run(
        self, batch: Batch, device: torch.device, on_end: Callable[[int], None] | None, problems: LatestProblem
    ) -> xr.Dataset:
        """Solve one problem."""
        ((task, method),) = batch.points
        problem = problems.of(task, device, torch.float64)
        dataset = _dataset(problem, method.solve(problem)).expand_dims(run=list(batch.indices))
        if on_end is not None:
            on_end(1)
        return dataset

    def assemble(self, parts: list[xr.Dataset]) -> xr.Dataset:
        """Put the solutions together in the dimensions of the grid, and name their solvers."""
        solvers = {f"{part.attrs['solver']} {part.attrs['solver_version']}" for part in parts}
        return on_grid(parts, self.grid).assign_attrs(solvers=", ".join(sorted(solvers)))


def nuclear_norm_solutions(
    task: CompletionTask | SensingTask,
    method: NuclearNorm | None = None,
    *,
    name: str = "",
    store: Store | None = None,
    recompute: bool = False,
    device: str = "auto",
    **grid: Sequence[Any],
) -> xr.Dataset:
    """Find the matrix of least nuclear norm that agrees with the observations, at every point of a grid.

    Parameters
    ----------
    task : CompletionTask or SensingTask
    method : NuclearNorm, optional
    name, store, recompute, device
        As in `sweep`. CVXPY's solvers use the CPU in any case.
    **grid
        Fields of the task or the method, such as ``n_observed`` and ``data_seed``, each with the values it takes.

    Returns
    -------
    xarray.Dataset
        Dimensions are the swept names. ``value`` (the nuclear norm of the solution, an upper bound of the minimum),
        ``dual_bound`` (a lower bound), ``gap`` (their relative distance), ``max_violation`` (as in
        `NuclearNormSolution`); ``relative_error``, ``effective_rank`` and ``singular_value`` of the solution;
        ``truth_nuclear_norm`` and ``truth_effective_rank`` of the ground truth; ``status`` (see `Status`: CONVERGED or
        LIMIT), ``n_iterations`` (-1 where the solver does not tell), ``wall_seconds``; and the proof: ``matrix`` and
        ``multiplier``. Attributes say what made it.

    Raises
    ------
    InputError
        For names that cannot be swept, empty or doubled values, impossible parameters; all before any computation.
    SolverError
        If a solver of CVXPY's fails.
    """
    planned = NuclearNormGrid(task, method or NuclearNorm(), {key: tuple(values) for key, values in grid.items()})
    return find_or_compute(planned, name or "nuclear-norms", store=store, recompute=recompute, device=device)


def _dataset(problem: Problem, solution: NuclearNormSolution) -> xr.Dataset:
    """One solution with what is measured of it; attributes name the solver."""
    truth = problem.ground_truth
    assert truth is not None  # both kinds of task know it
    matrix = torch.from_numpy(solution.matrix).to(truth)
    values, true_values = spectra.singular_values(matrix), spectra.singular_values(truth)
    numbers: dict[str, Any] = {
        "value": solution.value,
        "dual_bound": solution.dual_bound,
        "gap": solution.gap,
        "max_violation": solution.max_violation,
        "relative_error": float(spectra.relative_error(matrix, truth)),
        "effective_rank": float(spectra.effective_rank(values)),
        "truth_nuclear_norm": float(spectra.nuclear_norm(true_values)),
        "truth_effective_rank": float(spectra.effective_rank(true_values)),
        "status": int(Status.CONVERGED if solution.status == "optimal" else Status.LIMIT),
        "n_iterations": -1 if solution.iterations is None else int(solution.iterations),
        "wall_seconds": solution.seconds,
    }
    arrays = {
        "singular_value": ("index", values.cpu().numpy()),
        "matrix": (("row", "column"), solution.matrix),
        "multiplier": ("observation", solution.multipliers),
    }
    dataset = numbered(xr.Dataset({name: ((), value) for name, value in numbers.items()} | arrays))
    return dataset.assign_attrs(solver=solution.solver, solver_version=solution.solver_version)
