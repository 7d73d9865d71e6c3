"""Deep matrix factorization: problems, factorizations, gradient descent and gradient flow, and labelled sweeps of them.

The book's chapters use what is listed here; everything else is machinery.
"""

from dmfkit.chapters.claims import Difference, Erratum, claim, not_testable
from dmfkit.chapters.outputs import Origin, hand_over
from dmfkit.chapters.parameters import Parameters
from dmfkit.chapters.settings import read_parameters
from dmfkit.errors import InputError, SolverError
from dmfkit.experiments.cluster import cluster
from dmfkit.experiments.nuclear_norms import NuclearNorm, nuclear_norm_solutions
from dmfkit.experiments.step_timings import step_timings
from dmfkit.experiments.store import Store, open_store
from dmfkit.experiments.sweeps import sweep
from dmfkit.experiments.trajectories import PrincipalComponents, compare_paths, diameter, distance_to_path, hold_last
from dmfkit.factorizations.compression import (
    InvariantFrames,
    completed_frames,
    compress,
    expand,
    gradient_frames,
    invariant_frames,
    project,
    with_frames,
)
from dmfkit.factorizations.factorization import Factorization, full_widths, gaussian_std
from dmfkit.factorizations.initialisation import initialise
from dmfkit.factorizations.starts import CompressedStart, OrthogonalStart, Start
from dmfkit.linalg.low_rank import LowRank
from dmfkit.linalg.spectra import effective_rank, nuclear_norm, relative_error, schatten, schatten_norm, singular_values
from dmfkit.nuclear_norm.solution import NuclearNormSolution, minimum_nuclear_norm
from dmfkit.nuclear_norm.splitting import least_nuclear_norm
from dmfkit.problems.completion import Completion, MatrixCompletion, SparseCompletion, matrix_completion
from dmfkit.problems.ground_truths import random_low_rank, truncated_gaussian
from dmfkit.problems.losses import FullObservation, MatrixSensing, full_observation, matrix_sensing
from dmfkit.problems.matrix_files import ObservedMatrix, read_matrix
from dmfkit.problems.movielens import movielens_100k
from dmfkit.problems.ratings import Ratings, synthetic_ratings
from dmfkit.problems.tasks import (
    CompletionTask,
    FileTask,
    FullObservationTask,
    LowRankTask,
    RatingsTask,
    SensingTask,
    SparseCompletionTask,
    TargetTask,
    Task,
)
from dmfkit.training.descent import Descent, gradient_descent
from dmfkit.training.flow import Flow, gradient_flow, largest_stable_lr
from dmfkit.training.recorders import (
    GROUPS,
    Alignment,
    AlignmentGroups,
    EffectiveRank,
    Factors,
    FrameCoordinates,
    FrameGeometry,
    HeldOutError,
    Loss,
    Recorder,
    RelativeError,
    SingularValues,
    TargetCoordinates,
    UnobservedError,
    principal_sines,
)
from dmfkit.training.result import Result, Status
from dmfkit.training.snapshot import Snapshot

__all__ = [
    "GROUPS",
    "Alignment",
    "AlignmentGroups",
    "Completion",
    "CompletionTask",
    "CompressedStart",
    "Descent",
    "Difference",
    "EffectiveRank",
    "Erratum",
    "Factorization",
    "Factors",
    "FileTask",
    "Flow",
    "FrameCoordinates",
    "FrameGeometry",
    "FullObservation",
    "FullObservationTask",
    "HeldOutError",
    "InputError",
    "InvariantFrames",
    "Loss",
    "LowRank",
    "LowRankTask",
    "MatrixCompletion",
    "MatrixSensing",
    "NuclearNorm",
    "NuclearNormSolution",
    "ObservedMatrix",
    "Origin",
    "OrthogonalStart",
    "Parameters",
    "PrincipalComponents",
    "Ratings",
    "RatingsTask",
    "Recorder",
    "RelativeError",
    "Result",
    "SensingTask",
    "SingularValues",
    "Snapshot",
    "SolverError",
    "SparseCompletion",
    "SparseCompletionTask",
    "Start",
    "Status",
    "Store",
    "TargetCoordinates",
    "TargetTask",
    "Task",
    "UnobservedError",
    "claim",
    "cluster",
    "compare_paths",
    "completed_frames",
    "compress",
    "diameter",
    "distance_to_path",
    "effective_rank",
    "expand",
    "full_observation",
    "full_widths",
    "gaussian_std",
    "gradient_descent",
    "gradient_flow",
    "gradient_frames",
    "hand_over",
    "hold_last",
    "initialise",
    "invariant_frames",
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
    "principal_sines",
    "project",
    "random_low_rank",
    "read_matrix",
    "read_parameters",
    "relative_error",
    "schatten",
    "schatten_norm",
    "singular_values",
    "step_timings",
    "sweep",
    "synthetic_ratings",
    "truncated_gaussian",
    "with_frames",
]
