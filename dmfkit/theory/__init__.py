"""The papers' theory as functions: right-hand sides, closed forms and certificates."""

from dmfkit.theory.barrier import barrier_slope, barrier_value, minimise_barrier, unseen_directions
from dmfkit.theory.blocks import BlockStructure, block_structure, carried_frames, inert_space, lemma_residuals
from dmfkit.theory.coefficients import (
    depth_weights,
    inverse_square_differences,
    off_diagonal,
    rotation_rates,
    square_differences,
)
from dmfkit.theory.commuting import CommutingProblem, Endpoint, flow_endpoint, random_commuting
from dmfkit.theory.compression_checks import compression_check
from dmfkit.theory.counterexample import perturbed_limit, schatten_counterexample
from dmfkit.theory.duality import Certificate, TraceSolution, adjoint, certify, least_slack, measure, minimum_trace
from dmfkit.theory.end_to_end import balanced_factorization, end_to_end_velocity, field_asymmetry, product_velocity
from dmfkit.theory.flow_path import FlowPath, Witness, accurate_flow, flow_toward
from dmfkit.theory.integrate import (
    FactorPath,
    factor_velocity,
    identity_factors,
    integrate_eigenvalues,
    integrate_factors,
    naive_path,
    product,
    settling_time,
)
from dmfkit.theory.invariant import (
    bounded_lr,
    compression_bound,
    compression_gap,
    equal_scale_decay,
    largest_factor,
    middle_scales,
    monotone_lr,
    others_squared,
    step_size_map,
    unequal_scale_limits,
)
from dmfkit.theory.linear import DiagonalOptimum
from dmfkit.theory.one_measurement import (
    conserved,
    diverges_at,
    first_singular_value,
    largest_start_ratio,
    saturation_level,
    singular_value_speed,
)
from dmfkit.theory.one_measurement_flow import (
    MatrixFlow,
    Measurement,
    aligned_factors,
    matrix_flow,
    singular_value_flow,
)
from dmfkit.theory.precise import PreciseEndpoint, precise_endpoint
from dmfkit.theory.samples import SmoothPath, crossing_pair, singular_passage, spread_matrix
from dmfkit.theory.scalar import blow_up_integral, blow_up_time, scalar_solution
from dmfkit.theory.sharpness import flattest_sharpness, minimum_sharpness
from dmfkit.theory.singular_values import depth_factor, singular_value_velocity
from dmfkit.theory.singular_vectors import (
    left_velocity,
    left_velocity_as_printed,
    mixing,
    right_velocity,
    right_velocity_as_printed,
    vectors_from_velocity,
)
from dmfkit.theory.speeds import SingularValueSpeeds
from dmfkit.theory.stationarity import (
    alignment_constant,
    complement_constant,
    misalignment,
    movement,
    movement_map,
    unaligned_part,
)
from dmfkit.theory.symmetric import SymmetricEnd, pair_completion, symmetric_completion, symmetric_flow

__all__ = [
    "BlockStructure",
    "Certificate",
    "CommutingProblem",
    "DiagonalOptimum",
    "Endpoint",
    "FactorPath",
    "FlowPath",
    "MatrixFlow",
    "Measurement",
    "PreciseEndpoint",
    "SingularValueSpeeds",
    "SmoothPath",
    "SymmetricEnd",
    "TraceSolution",
    "Witness",
    "accurate_flow",
    "adjoint",
    "aligned_factors",
    "alignment_constant",
    "balanced_factorization",
    "barrier_slope",
    "barrier_value",
    "block_structure",
    "blow_up_integral",
    "blow_up_time",
    "bounded_lr",
    "carried_frames",
    "certify",
    "complement_constant",
    "compression_bound",
    "compression_check",
    "compression_gap",
    "conserved",
    "crossing_pair",
    "depth_factor",
    "depth_weights",
    "diverges_at",
    "end_to_end_velocity",
    "equal_scale_decay",
    "factor_velocity",
    "field_asymmetry",
    "first_singular_value",
    "flattest_sharpness",
    "flow_endpoint",
    "flow_toward",
    "identity_factors",
    "inert_space",
    "integrate_eigenvalues",
    "integrate_factors",
    "inverse_square_differences",
    "largest_factor",
    "largest_start_ratio",
    "least_slack",
    "left_velocity",
    "left_velocity_as_printed",
    "lemma_residuals",
    "matrix_flow",
    "measure",
    "middle_scales",
    "minimise_barrier",
    "minimum_sharpness",
    "minimum_trace",
    "misalignment",
    "mixing",
    "monotone_lr",
    "movement",
    "movement_map",
    "naive_path",
    "off_diagonal",
    "others_squared",
    "pair_completion",
    "perturbed_limit",
    "precise_endpoint",
    "product",
    "product_velocity",
    "random_commuting",
    "right_velocity",
    "right_velocity_as_printed",
    "rotation_rates",
    "saturation_level",
    "scalar_solution",
    "schatten_counterexample",
    "settling_time",
    "singular_passage",
    "singular_value_flow",
    "singular_value_speed",
    "singular_value_velocity",
    "spread_matrix",
    "square_differences",
    "step_size_map",
    "symmetric_completion",
    "symmetric_flow",
    "unaligned_part",
    "unequal_scale_limits",
    "unseen_directions",
    "vectors_from_velocity",
]
