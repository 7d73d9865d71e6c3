"""Losses in the end-to-end matrix: what is observed of the matrix that is to be found.

Every problem holds observations of one unknown matrix of shape ``(d, d_in)`` and gives, for a batch of candidate
matrices ``W`` of shape ``(runs, d, d_in)``, the loss ``(runs,)`` and its gradient in ``W``. Two normalisations of the
squared residuals ``r_1 .. r_m`` are in use, and learning rates mean nothing until one is named:

``half_sum``
    ``0.5 * sum(r_i ** 2)``: Eq (2) of Arora et al. (2019), our literal reading of their experiments.
``mean``
    ``sum(r_i ** 2) / m``: what their released code minimises. Its gradient is ``2 / m`` times the other's.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, fields
from functools import cached_property
from typing import TYPE_CHECKING, Literal, Self, TypeVar, get_args

import torch
from torch import Tensor

from dmfkit.errors import InputError
from dmfkit.linalg.backend import quiet_overflow, sum_of_squares
from dmfkit.linalg.low_rank import LowRank
from dmfkit.problems.operators import Measurements, Observations

if TYPE_CHECKING:
    from scipy.sparse import csr_array

Normalisation = Literal["half_sum", "mean"]


def check_normalisation(normalisation: str) -> None:
    """Raise `InputError` unless `normalisation` is one of the two of this module."""
    if normalisation not in get_args(Normalisation):
        raise InputError(
            f"normalisation = {normalisation!r} is not allowed: choose 'half_sum' (0.5 * sum of squares) or 'mean'."
        )


def check_n_entries(shape: tuple[int, ...], n_observed: int) -> None:
    """Raise `InputError` unless a matrix of this shape has that many entries to observe."""
    if not 1 <= n_observed <= math.prod(shape):
        raise InputError(
            f"n_observed = {n_observed} is not allowed: a {shape[0]} x {shape[1]} matrix has {math.prod(shape)} "
            f"entries, so choose between 1 and {math.prod(shape)}."
        )


def check_measurements(n_observed: int, std: float) -> None:
    """Raise `InputError` unless that many Gaussian measurements of that standard deviation can be drawn."""
    if n_observed < 1:
        raise InputError(f"n_observed = {n_observed} is not allowed: take at least 1 measurement.")
    if not (math.isfinite(std) and std > 0):
        raise InputError(
            f"measurement_std = {std} is not allowed: a standard deviation is a positive finite number, such as 1.0."
        )


def check_stop(stop: float) -> None:
    """Raise `InputError` unless `stop` can be a threshold on a loss."""
    if not stop >= 0:
        raise InputError(f"stop = {stop} is not allowed: it must be at least 0 (0 never stops), such as 1e-6.")


Matrices = TypeVar("Matrices", Tensor, LowRank)


@dataclass(frozen=True, eq=False)
class Problem(ABC):
    """Squared loss over ``n_observations`` linear observations of a matrix.

    Attributes
    ----------
    normalisation : {"half_sum", "mean"}
        Normalisation of the loss and of its gradient.
    truth : Tensor of shape (d, d_in) or LowRank, optional
        The matrix behind the observations, where it is known; no loss or gradient uses it. By its factors: in a batch
        of one.
    """

    normalisation: Normalisation
    truth: Tensor | LowRank | None

    def __post_init__(self) -> None:
        check_normalisation(self.normalisation)
        # NaN stands for what is not observed.
        if bool(torch.isnan(self.observed_values).any()):
            raise InputError("an observed value is NaN: leave such entries out of the mask.")

    @property
    @abstractmethod
    def shape(self) -> tuple[int, int]:
        """Shape ``(d, d_in)`` of the unknown matrix."""

    @property
    @abstractmethod
    def observed_values(self) -> Tensor:
        """The numbers that were observed; their shape depends on the kind of observations."""

    @property
    def n_observations(self) -> int:
        """Number ``m`` of observations."""
        return self.observed_values.numel()

    @cached_property
    def ground_truth(self) -> Tensor | None:
        """The matrix behind the observations in full, ``(d, d_in)``; None where it is not known.

        Raises `InputError` if it is known by its factors, and too large.
        """
        if not isinstance(self.truth, LowRank):
            return self.truth
        self.check_formable()
        return self.truth.in_full()[0]

    def known_ground_truth(self, asked_by: str) -> Tensor:
        """Return `ground_truth`, or raise an `InputError` that says who needs it."""
        if self.ground_truth is None:
            raise InputError(f"{asked_by} needs a problem whose ground truth is known, and this one's is not.")
        return self.ground_truth

    @property
    def mask(self) -> Tensor | None:
        """One where an entry is observed, else zero, ``(d, d_in)``; None where it is not some entries that are."""
        return None

    @property
    def magnitude(self) -> float:
        """Frobenius norm of the ground truth, or where that is not known of what was observed, in the matrix's units.

        What is computed of matrices like it is uncertain by about the machine precision times this.
        """
        if isinstance(self.truth, LowRank):
            return float(self.truth.norm())
        known = self.lift(self.observed_values) if self.truth is None else self.truth
        return float(torch.linalg.vector_norm(known))

    @property
    def device(self) -> torch.device:
        """Where the observations are kept."""
        return self.observed_values.device

    @property
    def dtype(self) -> torch.dtype:
        """Precision of the observations."""
        return self.observed_values.dtype

    @abstractmethod
    def squares_and_residual_gradient(self, end_to_end: Tensor) -> tuple[Tensor, Tensor]:
        """Sum of squared residuals ``(runs,)`` and the half-sum gradient ``(runs, d, d_in)``.

        May overwrite `end_to_end` and return the gradient in its memory.
        """

    @property
    def gradient_scale(self) -> float:
        """Factor from the half-sum gradient to the gradient of this problem's own loss."""
        return 1.0 if self.normalisation == "half_sum" else 2.0 / self.n_observations

    def loss_scale(self, normalisation: Normalisation | None = None) -> float:
        """Factor from the sum of squared residuals to the loss in `normalisation` (default: the problem's own)."""
        return 0.5 if (normalisation or self.normalisation) == "half_sum" else 1.0 / self.n_observations

    def squares(self, end_to_end: Tensor | LowRank) -> Tensor:
        """Sum of squared residuals, ``(runs,)``, for matrices ``(runs, d, d_in)``."""
        matrix = end_to_end.in_full() if isinstance(end_to_end, LowRank) else end_to_end.clone()
        return self.squares_and_residual_gradient(matrix)[0]

    def loss(self, end_to_end: Tensor | LowRank, normalisation: Normalisation | None = None) -> Tensor:
        """Loss ``(runs,)`` at `end_to_end` of shape ``(runs, d, d_in)``."""
        with quiet_overflow():
            return self.squares(end_to_end) * self.loss_scale(normalisation)

    def gradient(self, end_to_end: Tensor) -> Tensor:
        """Gradient of the problem's own loss in the end-to-end matrix, ``(runs, d, d_in)``."""
        return self.squares_and_residual_gradient(end_to_end.clone())[1] * self.gradient_scale

    def to(self, device: torch.device | str, dtype: torch.dtype | None = None) -> Self:
        """Copy of the problem on another device or in another precision."""
        # Not by its constructor: what was checked once need not be, and a device would be waited for.
        copy = object.__new__(type(self))
        for item in fields(self):
            value = getattr(self, item.name)
            moved = value.to(device, dtype) if hasattr(value, "to") else value
            object.__setattr__(copy, item.name, moved)
        return copy

    def lift(self, end_to_end: Matrices) -> Matrices:
        """The matrix that `end_to_end` stands for, ``(runs, ...)`` shaped like the ground truth; usually itself."""
        return end_to_end

    def held_out_rmse(self, end_to_end: Tensor | LowRank) -> Tensor | None:  # noqa: ARG002
        """Root mean square error on held-out entries, ``(runs,)``; None where no entries are held out.

        `end_to_end` is in the matrix's own units, as `lift` gives it.
        """
        return None

    def by_entries(self, widths: tuple[int, ...]) -> bool:  # noqa: ARG002
        """Whether factors of these widths are best evaluated at the observed entries alone; depends on nothing else."""
        return False

    def check_formable(self) -> None:
        """Raise `InputError` if matrices of the problem's size are too large to be formed."""
        return

    def observed_matrix(self) -> Tensor | csr_array:
        """What is observed of the entries, ``(d, d_in)``, zero elsewhere, or an `InputError` if that is not entries."""
        raise InputError("frames are computed from observed entries; this problem does not observe entries.")

    def observation_operator(self) -> Observations:
        """Return the observations as a linear operator, or raise an `InputError` if it would not be surjective."""
        raise InputError(
            f"observations of kind {type(self).__name__} are not supported here: use entries or measurements."
        )

    def projected(self, left: Tensor, right: Tensor) -> Problem | None:  # noqa: ARG002
        """The problem of a core between frames ``(d, k)`` and ``(d_in, k)``; None unless every entry is observed."""
        return None


@dataclass(frozen=True, eq=False)
class FullObservation(Problem):
    """Every entry of a matrix is observed; `values`, of shape (d, d_in), is the matrix itself."""

    values: Tensor

    @property
    def shape(self) -> tuple[int, int]:
        return (self.values.shape[-2], self.values.shape[-1])

    @property
    def observed_values(self) -> Tensor:
        return self.values

    @property
    def values_or_nan(self) -> Tensor:
        """As for completion: all values, none of them NaN."""
        return self.values.contiguous()

    def squares_and_residual_gradient(self, end_to_end: Tensor) -> tuple[Tensor, Tensor]:
        residual = end_to_end.sub_(self.values)
        return sum_of_squares(residual), residual

    def gradient(self, end_to_end: Tensor) -> Tensor:
        # Plain operations, which can be differentiated once more; what trains does not come here.
        return (end_to_end - self.values) * self.gradient_scale

    def observed_matrix(self) -> Tensor:
        return self.values

    def projected(self, left: Tensor, right: Tensor) -> ProjectedObservation:
        values = left.mT @ self.values @ right
        # By the difference itself: the difference of two squared norms would lose half of the digits.
        outside = torch.linalg.matrix_norm(self.values - left @ values @ right.mT).square()
        return ProjectedObservation(self.normalisation, self.truth, values, left, right, outside, self.n_observations)


@dataclass(frozen=True, eq=False)
class ProjectedObservation(FullObservation):
    """A fully observed target seen through fixed frames, Eq (6) of Yaras et al. (2023); one run only.

    The residual of ``U C V^T`` against ``Phi`` splits into the small ``C - U^T Phi V``, whose entries are `values`, and
    what no ``C`` reaches. A step therefore costs products of ``2 r_hat x 2 r_hat`` matrices only.

    Attributes
    ----------
    left, right : Tensor of shape (d, 2 r_hat)
        ``U_{L,1}`` and ``V_{1,1}``.
    outside : Tensor of shape ()
        ``||Phi - U U^T Phi V V^T||_F^2``.
    entries : int
        Number of observed entries, ``d^2``.
    """

    left: Tensor
    right: Tensor
    outside: Tensor
    entries: int

    @property
    def n_observations(self) -> int:
        return self.entries

    def squares_and_residual_gradient(self, end_to_end: Tensor) -> tuple[Tensor, Tensor]:
        squares, residual = super().squares_and_residual_gradient(end_to_end)
        return squares + self.outside, residual

    def lift(self, end_to_end: Matrices) -> Matrices:
        """``U C V^T``, ``(runs, d, d)``."""
        if isinstance(end_to_end, LowRank):
            return LowRank(self.left @ end_to_end.left, self.right @ end_to_end.right)
        return self.left @ end_to_end @ self.right.mT


@dataclass(frozen=True, eq=False)
class MatrixSensing(Problem):
    """Inner products with measurement matrices are observed, Eq (2) of Arora et al. (2019).

    Attributes
    ----------
    values : Tensor of shape (m,)
        Labels ``y_i = <A_i, W*>``.
    measurements : Tensor of shape (m, d, d_in)
        The measurement matrices ``A_i``.
    """

    values: Tensor
    measurements: Tensor

    @property
    def shape(self) -> tuple[int, int]:
        return (self.measurements.shape[1], self.measurements.shape[2])

    @property
    def observed_values(self) -> Tensor:
        return self.values

    def squares_and_residual_gradient(self, end_to_end: Tensor) -> tuple[Tensor, Tensor]:
        # One matrix product over the batch each way; the m measurement matrices are never copied per run.
        flat = self.measurements.flatten(start_dim=1)
        residual = torch.addmm(self.values, end_to_end.flatten(start_dim=1), flat.mT, beta=-1)
        return sum_of_squares(residual), (residual @ flat).view_as(end_to_end)

    def gradient(self, end_to_end: Tensor) -> Tensor:
        # As for full observation: can be differentiated once more.
        flat = self.measurements.flatten(start_dim=1)
        residual = torch.addmm(self.values, end_to_end.flatten(start_dim=1), flat.mT, beta=-1)
        return (residual @ flat).view_as(end_to_end) * self.gradient_scale

    def observation_operator(self) -> Measurements:
        if self.n_observations > math.prod(self.shape):
            raise InputError(
                f"n_observed = {self.n_observations} is not allowed here: more measurements than the "
                f"{math.prod(self.shape)} entries of the matrix depend on each other."
            )
        return Measurements(self.values, self.measurements)


def full_observation(ground_truth: Tensor, normalisation: Normalisation = "half_sum") -> FullObservation:
    """Observe every entry of a matrix, Eq (1) of Yaras et al. (2023) with the half-sum."""
    return FullObservation(normalisation, ground_truth, ground_truth)


def matrix_sensing(
    ground_truth: Tensor,
    n_observed: int,
    seed: int,
    normalisation: Normalisation = "half_sum",
    *,
    measurement_std: float = 1.0,
) -> MatrixSensing:
    """Observe `n_observed` inner products with Gaussian measurement matrices.

    Parameters
    ----------
    ground_truth : Tensor of shape (d, d_in)
    n_observed : int
    seed : int
        For one seed the measurement matrices of a smaller number are the first of a larger one's.
    normalisation : {"half_sum", "mean"}
    measurement_std : float
        Standard deviation of the entries. Arora et al. (2019), Appendix D.2, say 1; their released code divides by
        ``d``, so that an inner product with a matrix of Frobenius norm ``d`` has variance 1.

    Raises
    ------
    InputError
        If nothing is to be measured, or the standard deviation is not positive.
    """
    check_measurements(n_observed, measurement_std)
    generator = torch.Generator().manual_seed(seed + 2**32)
    measurements = torch.randn(n_observed, *ground_truth.shape, generator=generator, dtype=ground_truth.dtype)
    # In place: a second tensor of this size would double the memory.
    measurements = measurements.mul_(measurement_std).to(ground_truth.device)
    labels = measurements.flatten(start_dim=1) @ ground_truth.flatten()
    return MatrixSensing(normalisation, ground_truth, labels, measurements)
