"""Deep matrix factorization: problems, factorizations, gradient descent and gradient flow, and labelled sweeps of them.

The book's chapters use what is listed here; everything else is machinery.
"""

from dmfkit.claims import Difference, Erratum, claim, not_testable
from dmfkit.convex import NuclearNormSolution, minimum_nuclear_norm
from dmfkit.data import Ratings, movielens_100k, synthetic_ratings
from dmfkit.descent import Descent, gradient_descent
from dmfkit.errors import InputError
from dmfkit.factorization import Factorization, full_widths, gaussian_std
from dmfkit.flow import Flow, gradient_flow, largest_stable_lr
from dmfkit.initialisation import initialise
from dmfkit.nuclear_norms import NuclearNorm, nuclear_norm_solutions
from dmfkit.nuclear_splitting import least_nuclear_norm
from dmfkit.origin import Origin
from dmfkit.parameters import Parameters, read_parameters
from dmfkit.problems import (
    FullObservation,
    MatrixCompletion,
    MatrixSensing,
    matrix_completion,
    matrix_sensing,
    random_low_rank,
)
from dmfkit.record import GROUPS, Alignment, AlignmentGroups, EffectiveRank, Loss, RelativeError, SingularValues
from dmfkit.result import Result, Status
from dmfkit.spectra import effective_rank, nuclear_norm, relative_error, schatten, schatten_norm, singular_values
from dmfkit.store import Store, open_store
from dmfkit.sweeps import sweep
from dmfkit.tasks import CompletionTask, RatingsTask, SensingTask, Start

__all__ = [
    "GROUPS",
    "Alignment",
    "AlignmentGroups",
    "CompletionTask",
    "Descent",
    "Difference",
    "EffectiveRank",
    "Erratum",
    "Factorization",
    "Flow",
    "FullObservation",
    "InputError",
    "Loss",
    "MatrixCompletion",
    "MatrixSensing",
    "NuclearNorm",
    "NuclearNormSolution",
    "Origin",
    "Parameters",
    "Ratings",
    "RatingsTask",
    "RelativeError",
    "Result",
    "SensingTask",
    "SingularValues",
    "Start",
    "Status",
    "Store",
    "claim",
    "effective_rank",
    "full_widths",
    "gaussian_std",
    "gradient_descent",
    "gradient_flow",
    "initialise",
    "largest_stable_lr",
    "least_nuclear_norm",
    "matrix_completion",
    "matrix_sensing",
    "minimum_nuclear_norm",
    "movielens_100k",
    "not_testable",
    "nuclear_norm",
    "nuclear_norm_solutions",
    "open_store",
    "random_low_rank",
    "read_parameters",
    "relative_error",
    "schatten",
    "schatten_norm",
    "singular_values",
    "sweep",
    "synthetic_ratings",
]
