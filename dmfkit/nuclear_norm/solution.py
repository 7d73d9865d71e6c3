"""Minimum nuclear norm by a general solver through CVXPY, with a certificate that does not rest on the solver."""

from __future__ import annotations

import importlib.metadata
import time
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dmfkit.errors import InputError, SolverError

if TYPE_CHECKING:
    import cvxpy as cp

# Those of CVXPY's solvers that take semidefinite programs of this size, by their names in CVXPY and on PyPI.
_PACKAGES = {"SCS": "scs", "CLARABEL": "clarabel", "MOSEK": "mosek", "COPT": "coptpy", "CVXOPT": "cvxopt"}


@dataclass(frozen=True, eq=False)
class NuclearNormSolution:
    """A matrix of least nuclear norm that agrees with observations: dual_bound <= minimum <= value, up to rounding.

    Attributes
    ----------
    matrix : ndarray, shape (d, d')
        The solver's matrix, then moved to the nearest one that agrees with the observations.
    value : float
        Nuclear norm of `matrix`, which is feasible: an upper bound of the minimum.
    status : str
        What the solver reported: "optimal"; or "limit" if `least_nuclear_norm` met its limit of iterations first.
    max_violation : float
        Largest error on an observation: of a general solver's own matrix, before it was moved; of `matrix` itself where
        `least_nuclear_norm` found it.
    certificate : ndarray, shape (d, d')
        ``Y = A^dagger(multipliers)``, with largest singular value 1; zero outside of observed entries.
    multipliers : ndarray, shape (m,)
        Dual variables of the observations, for observed entries in the order of the mask's true entries.
    dual_bound : float
        ``<multipliers, y> = <Y, W>``: by duality of nuclear and spectral norm a lower bound of the minimum.
    gap : float
        (value - dual_bound) / value.
    solver, solver_version : str
        The solver, by CVXPY's name, and its version.
    iterations : int or None
        The solver's iterations, where it tells.
    seconds : float
        Wall time of setting up and solving.
    """

    matrix: NDArray[np.float64]
    value: float
    status: str
    max_violation: float
    certificate: NDArray[np.float64]
    multipliers: NDArray[np.float64]
    dual_bound: float
    gap: float
    solver: str
    solver_version: str
    iterations: int | None
    seconds: float


def minimum_nuclear_norm(
    values: ArrayLike, mask: ArrayLike, *, solver: str = "SCS", **options: Any
) -> NuclearNormSolution:
    """Complete a matrix with the least nuclear norm: minimise ||W||_* with W = `values` where `mask`.

    Parameters
    ----------
    values : array_like, shape (d, d')
        The observed entries; what stands outside of `mask` is not read.
    mask : array_like of bool, shape (d, d')
        Which entries are observed.
    solver : str
        A semidefinite solver by CVXPY's name: "SCS" (first order, scales further) or "CLARABEL"
        (interior point, accurate, for sizes up to about 40).
    **options
        Passed to the solver, such as ``eps=1e-7, max_iters=20_000`` for SCS. It sees the problem divided by
        the largest observed absolute value, so that its tolerances are relative to that.

    Returns
    -------
    solution : NuclearNormSolution
        The completion, its bounds and where they come from.

    Raises
    ------
    InputError
        If the arrays do not fit each other, nothing or only zeros are observed, or the solver or an option
        does not exist.
    SolverError
        If the solver ends with any status but "optimal".

    Notes
    -----
    The dual problem is to maximise <Y, values> over Y supported on the observed entries with spectral norm at
    most 1 (Candès and Recht, Foundations of Computational Mathematics 9, 2009).
    """
    import cvxpy as cp  # takes as long to load as PyTorch does, and most chapters need none of it

    observed, where = _check(values, mask)
    installed = [name for name in _PACKAGES if name in cp.installed_solvers()]
    if solver not in installed:
        raise InputError(f"The solver {solver!r} is not available here: choose one of {', '.join(installed)}.")
    rows, columns = np.nonzero(where)
    scale = np.abs(observed).max()
    start = time.perf_counter()
    unknown = cp.Variable(where.shape)
    agreement = unknown[rows, columns] == observed / scale
    problem = cp.Problem(cp.Minimize(cp.normNuc(unknown)), [agreement])
    _solve(problem, solver, options)
    seconds = time.perf_counter() - start

    matrix = scale * np.asarray(unknown.value)
    max_violation = float(np.abs(matrix[where] - observed).max())
    matrix[where] = observed
    value = float(np.linalg.norm(matrix, "nuc"))
    # CVXPY's multiplier of W = values is minus a subgradient of the nuclear norm.
    certificate = np.zeros(where.shape)
    certificate[rows, columns] = -np.asarray(agreement.dual_value)
    certificate /= np.linalg.norm(certificate, 2)
    dual_bound = float(certificate[where] @ observed)
    return NuclearNormSolution(
        matrix=matrix,
        value=value,
        status=problem.status,
        max_violation=max_violation,
        certificate=certificate,
        multipliers=certificate[where],
        dual_bound=dual_bound,
        gap=(value - dual_bound) / value,
        solver=solver,
        solver_version=importlib.metadata.version(_PACKAGES[solver]),
        iterations=problem.solver_stats.num_iters,
        seconds=seconds,
    )


def _check(values: ArrayLike, mask: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Return the observed values, in the order of `mask`'s true entries, and the mask."""
    matrix, where = np.asarray(values, dtype=np.float64), np.asarray(mask)
    if matrix.ndim != 2 or where.shape != matrix.shape or where.dtype != bool:
        raise InputError(
            f"values and mask must be a matrix and a boolean matrix of the same shape, but they have shapes "
            f"{matrix.shape} and {where.shape} and the mask's type is {where.dtype}."
        )
    observed = matrix[where]
    if not np.isfinite(observed).all():
        raise InputError("An observed value is not finite: take it out of the mask or correct it.")
    if not observed.any():
        raise InputError("No observed value differs from zero, so the completion is the zero matrix: observe more.")
    return observed, where


def _solve(problem: cp.Problem, solver: str, options: dict[str, Any]) -> None:
    import cvxpy as cp

    try:
        with warnings.catch_warnings():
            # "Solution may be inaccurate": its status is not "optimal", which is an error below.
            warnings.filterwarnings("ignore", message="Solution may be inaccurate", category=UserWarning)
            problem.solve(solver=solver, **options)
    except (TypeError, ValueError) as error:
        raise InputError(f"{solver} cannot be run with the options {options}: {error}") from error
    except cp.SolverError as error:
        raise SolverError(f"{solver} failed ({error}): try another solver or other options.") from error
    if problem.status != cp.OPTIMAL:
        raise SolverError(
            f"{solver} ended with status {problem.status!r} instead of 'optimal', so its matrix is not used: "
            "allow more iterations, loosen its tolerance or choose another solver."
        )
