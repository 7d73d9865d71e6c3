"""Grids of minimum-nuclear-norm solutions, stored together with what proves them.

Every stored solution holds its matrix and its dual multipliers, so that `recheck.certified` can establish from the task
alone that it agrees with the observations and that no other such matrix has a smaller nuclear norm.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
import xarray as xr

from dmfkit.errors import InputError
from dmfkit.experiments.progress import Progress
from dmfkit.experiments.provenance import hardware, run_provenance
from dmfkit.experiments.store import Store, find_or_compute, read_part, specification_key, write
from dmfkit.experiments.sweeps import LatestProblem, check_grid, choose_device, grid_points
from dmfkit.linalg import spectra
from dmfkit.nuclear_norm.solution import NuclearNormSolution, minimum_nuclear_norm
from dmfkit.nuclear_norm.splitting import least_nuclear_norm
from dmfkit.problems.losses import Problem
from dmfkit.problems.tasks import CompletionTask, SensingTask, field_names, key_values, with_fields
from dmfkit.training.result import Status

Solver = Literal["douglas-rachford", "SCS", "CLARABEL"]


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

    def at(self, point: dict[str, Any]) -> tuple[CompletionTask | SensingTask, NuclearNorm]:
        """Task and method at one grid point."""
        return with_fields(self.task, point), with_fields(self.method, point)


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
    plan = NuclearNormGrid(task, method or NuclearNorm(), {key: tuple(values) for key, values in grid.items()})
    key, label = specification_key(plan.specification), name or "nuclear-norms"

    def compute(parts: Path | None) -> xr.Dataset:
        """Solve point by point, each kept in the folder `parts` as soon as it is solved."""
        for point in plan.points:
            plan.at(point)[0].check()
        chosen = choose_device(device)
        problems, finished = LatestProblem(), []
        with Progress(len(plan.points), label) as progress:
            for index, point in enumerate(plan.points):
                path = None if parts is None else parts / f"{index:06d}.nc"
                part = read_part(path)
                if part is None:
                    where, how = plan.at(point)
                    problem = problems.of(where, chosen, torch.float64)
                    part = _dataset(problem, how.solve(problem))
                    if path is not None:
                        write(path, part)
                finished.append(part)
                progress.advance(1)
        return _assemble(plan, finished, chosen)

    return find_or_compute(store, label, key, compute, recompute=recompute)


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
    dataset = xr.Dataset({name: ((), value) for name, value in numbers.items()} | arrays)
    # Numbered only until solutions are joined: those of different sizes are padded with nan.
    dataset = dataset.assign_coords({str(name): np.arange(size) for name, size in dataset.sizes.items()})
    return dataset.assign_attrs(solver=solution.solver, solver_version=solution.solver_version)


def _assemble(plan: NuclearNormGrid, parts: list[xr.Dataset], device: torch.device) -> xr.Dataset:
    """Put the solutions together in the dimensions of the grid."""
    joined = xr.concat(parts, dim="point", join="outer", data_vars="all", combine_attrs="drop")
    sizes = {name: len(values) for name, values in plan.grid.items()}
    shaped = {
        str(name): ((*sizes, *item.dims[1:]), item.values.reshape(*sizes.values(), *item.shape[1:]))
        for name, item in joined.data_vars.items()
    }
    coords = {name: list(values) for name, values in plan.grid.items() if all(item is not None for item in values)}
    dataset = xr.Dataset(shaped, coords=coords)
    solvers = {f"{part.attrs['solver']} {part.attrs['solver_version']}" for part in parts}
    return dataset.assign_attrs(
        specification=json.dumps(plan.specification, sort_keys=True),
        solvers=", ".join(sorted(solvers)),
        total_wall_seconds=float(dataset["wall_seconds"].sum()),
        total_evaluations=int(dataset["n_iterations"].clip(min=0).sum()),
        **run_provenance(hardware(device)),
    )
