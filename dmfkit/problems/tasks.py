"""What is to be learned, as plain values: the part of a stored result's key that says which problem was solved.

A task is a frozen dataclass of numbers and words. It makes its `Problem` on demand, so that a sweep can vary any of its
fields, write them into the result's attributes, and make the same problem again when a stored result is checked. There
are tasks of random low-rank matrices, dense or too large for that, of ratings, and of a file of the reader's own.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dmfkit.errors import InputError
from dmfkit.linalg.low_rank import LowRank
from dmfkit.problems.completion import (
    Completion,
    MatrixCompletion,
    SparseEntries,
    check_kept_by_entries,
    check_n_held_out,
    hold_out,
    matrix_completion,
)
from dmfkit.problems.ground_truths import (
    check_rank,
    check_target_norm,
    gaussian_factors,
    halving_spectrum,
    random_low_rank,
    truncated_gaussian,
)
from dmfkit.problems.losses import (
    FullObservation,
    MatrixSensing,
    Normalisation,
    Problem,
    check_measurements,
    check_n_entries,
    check_normalisation,
    full_observation,
    matrix_sensing,
)
from dmfkit.problems.matrix_files import ObservedMatrix, read_bytes, read_matrix_of
from dmfkit.problems.movielens import movielens_100k
from dmfkit.problems.ratings import MOVIELENS_ITEMS, MOVIELENS_USERS, Ratings, synthetic_ratings
from dmfkit.values import ADDED_LATER, plain_value

_TARGETS = {"product": random_low_rank, "truncated": truncated_gaussian, "halving": halving_spectrum}


class Task(Protocol):
    """Plain values from which a problem is made."""

    @property
    def shape(self) -> tuple[int, int]:
        """Shape ``(d, d_in)`` of the matrix to be found."""

    def check(self) -> None:
        """Raise the `InputError` that `problem` would raise, without drawing anything."""

    def problem(self) -> Problem:
        """Make the problem, on the CPU in float64."""


@dataclass(frozen=True)
class LowRankTask:
    """Find a random low-rank ``d x d`` matrix; the base of tasks that differ in what is known of it, and how.

    Attributes
    ----------
    d, rank : int
    data_seed : int
        Draws the matrix and what is observed of it.
    normalisation : {"half_sum", "mean"}
        Of the training loss.
    target_norm : float, optional
        Frobenius norm to which the matrix is rescaled; ``None`` leaves it raw.
    """

    d: int = 100
    rank: int = 5
    data_seed: int = 0
    normalisation: Normalisation = "half_sum"
    target_norm: float | None = None

    @property
    def shape(self) -> tuple[int, int]:
        """Shape ``(d, d)`` of the matrix."""
        return (self.d, self.d)

    def check(self) -> None:
        """Raise `InputError` unless there is such a problem; draws nothing."""
        check_rank(self.shape, self.rank)
        check_target_norm(self.target_norm)
        check_normalisation(self.normalisation)


@dataclass(frozen=True)
class TargetTask(LowRankTask):
    """Find a random low-rank matrix that is known in full; other fields as in `LowRankTask`.

    Attributes
    ----------
    target : {"product", "truncated", "halving"}
        ``product``: ``U V^T`` with Gaussian ``U, V`` (Arora et al. 2019). ``truncated``: the leading part of a Gaussian
        matrix (the code released with Yaras et al. 2023). ``halving``: the same singular vectors, each singular value
        half of the one before.
    """

    target: str = field(default="product", metadata=ADDED_LATER)

    def check(self) -> None:
        super().check()
        if self.target not in _TARGETS:
            raise InputError(f"target = {self.target!r} is not allowed: choose one of {', '.join(_TARGETS)}.")

    def ground_truth(self) -> Tensor:
        """Return the matrix to be found, ``(d, d)``."""
        self.check()
        return _TARGETS[self.target](self.shape, self.rank, self.data_seed, self.target_norm)


@plain_value
@dataclass(frozen=True)
class FullObservationTask(TargetTask):
    """Factorize the matrix itself, every entry of which is known; fields as in `TargetTask`."""

    def problem(self) -> FullObservation:
        """Make the problem, on the CPU in float64."""
        return full_observation(self.ground_truth(), self.normalisation)


@plain_value
@dataclass(frozen=True)
class CompletionTask(TargetTask):
    """Complete the matrix from `n_observed` of its entries; other fields as in `TargetTask`."""

    n_observed: int = 2000

    def check(self) -> None:
        super().check()
        check_n_entries(self.shape, self.n_observed)

    def problem(self) -> Completion:
        """Make the problem, on the CPU in float64."""
        return matrix_completion(self.ground_truth(), self.n_observed, self.data_seed, self.normalisation)


@plain_value
@dataclass(frozen=True)
class SparseCompletionTask(LowRankTask):
    """Complete a matrix of any size, known by its factors, from `n_observed` of its entries; nothing is dense.

    The matrix is that of a `CompletionTask` with equal fields; up to ``d = 2048`` so are the observed entries. Other
    fields as in `LowRankTask`.

    Attributes
    ----------
    n_observed : int
    n_held_out : int
        Number of further entries to test on.
    """

    d: int = 10_000
    n_observed: int = 500_000
    n_held_out: int = 0

    def check(self) -> None:
        super().check()
        check_n_entries(self.shape, self.n_observed)
        check_n_held_out(self.shape, self.n_observed, self.n_held_out)
        check_kept_by_entries(self.shape, self.n_observed + self.n_held_out)

    def ground_truth(self) -> LowRank:
        """Return the matrix to be found, by its factors, in a batch of one."""
        self.check()
        left, right = gaussian_factors(self.shape, self.rank, self.data_seed)
        truth = LowRank(left[None], right[None])
        return truth if self.target_norm is None else truth * (self.target_norm / truth.norm())

    def problem(self) -> Completion:
        """Make the problem, on the CPU in float64."""
        return matrix_completion(
            self.ground_truth(), self.n_observed, self.data_seed, self.normalisation, n_held_out=self.n_held_out
        )


@plain_value
@dataclass(frozen=True)
class SensingTask(TargetTask):
    """Find the matrix from `n_observed` Gaussian measurements; other fields as in `TargetTask`.

    Attributes
    ----------
    n_observed : int
    measurement_std : float
        Standard deviation of the entries of the measurement matrices.
    """

    n_observed: int = 2000
    measurement_std: float = 1.0

    def check(self) -> None:
        super().check()
        check_measurements(self.n_observed, self.measurement_std)

    def problem(self) -> MatrixSensing:
        """Make the problem, on the CPU in float64."""
        return matrix_sensing(
            self.ground_truth(),
            self.n_observed,
            self.data_seed,
            self.normalisation,
            measurement_std=self.measurement_std,
        )


@plain_value
@dataclass(frozen=True)
class RatingsTask:
    """Fit the known entries of a user x item rating matrix.

    Attributes
    ----------
    data : {"movielens-100k", "synthetic"}
        Which ratings; ``synthetic`` are made up with the same shape and unevenness.
    n_ratings : int, optional
        Only the first ratings, in file order; ``None`` takes all.
    n_users, n_items : int
        Shape; fixed for MovieLens 100K.
    data_seed : int
        For synthetic ratings.
    normalisation : {"half_sum", "mean"}
    source : str
        Where MovieLens is read from, see `movielens_100k`. Not part of a result's key: every source is checked against
        the same hash.
    """

    data: str = "movielens-100k"
    n_ratings: int | None = None
    n_users: int = MOVIELENS_USERS
    n_items: int = MOVIELENS_ITEMS
    data_seed: int = 0
    normalisation: Normalisation = "half_sum"
    source: str = field(default="auto", metadata={"in_key": False})

    @property
    def shape(self) -> tuple[int, int]:
        return (self.n_users, self.n_items)

    def ratings(self) -> Ratings:
        """Read or make the ratings."""
        if self.data == "movielens-100k":
            if self.shape != (MOVIELENS_USERS, MOVIELENS_ITEMS):
                raise InputError(
                    f"n_users = {self.n_users} and n_items = {self.n_items} are not allowed: MovieLens 100K has "
                    f"{MOVIELENS_USERS} and {MOVIELENS_ITEMS}; only synthetic ratings come in other sizes."
                )
            ratings = movielens_100k(self.source)
        elif self.data == "synthetic":
            ratings = synthetic_ratings(self.n_users, self.n_items, self.n_ratings or 100_000, seed=self.data_seed)
        else:
            raise InputError(f"data = {self.data!r} is not allowed: choose 'movielens-100k' or 'synthetic'.")
        return ratings if self.n_ratings is None else ratings.first(self.n_ratings)

    def check(self) -> None:
        """Raise `InputError` unless the ratings are to be had; reads them."""
        check_normalisation(self.normalisation)
        self.ratings()

    def problem(self) -> Completion:
        """Make the problem, on the CPU in float64."""
        values, mask = (torch.from_numpy(part) for part in self.ratings().matrix())
        return MatrixCompletion(self.normalisation, None, values.to(torch.float64), mask)


EXAMPLE = "example_matrix.csv"


@plain_value
@dataclass(frozen=True)
class FileTask:
    """Complete a matrix of which a file holds some entries.

    The matrix is divided by the root mean square of the entries that are trained on, see `Completion`.

    Attributes
    ----------
    path : str
        Of a CSV, TSV, NPY or Parquet file, see `read_matrix`; empty for the example that comes with the package. Not
        part of a result's key, the content of the file is.
    held_out : float
        Share of the known entries that is held out, at least 0 and below 1.
    data_seed : int
        Draws the held-out entries.
    normalisation : {"half_sum", "mean"}
        Of the training loss.
    sha256 : str
        Hash of the file's bytes; found when the task is made, and compared where it is given.

    Raises
    ------
    InputError
        If the file cannot be read, or its content is another one than `sha256` says.
    """

    path: str = field(default="", metadata={"in_key": False})
    held_out: float = 0.1
    data_seed: int = 0
    normalisation: Normalisation = "half_sum"
    sha256: str = ""

    def __post_init__(self) -> None:
        found = hashlib.sha256(read_bytes(self._file)).hexdigest()
        if self.sha256 not in ("", found):
            which = f"the file {self.path}" if self.path else "the example matrix"
            raise InputError(
                f"The task was made from another content than {which} has now: make a new task for every file, and "
                "name that file as path."
            )
        object.__setattr__(self, "sha256", found)

    @property
    def _file(self) -> str:
        return self.path or str(resources.files("dmfkit.problems").joinpath(EXAMPLE))

    def matrix(self) -> ObservedMatrix:
        """Return what the file holds."""
        return read_matrix_of(self._file, self.sha256)

    @property
    def shape(self) -> tuple[int, int]:
        """Shape ``(d, d_in)`` of the matrix."""
        rows, columns = self.matrix().values.shape
        return (rows, columns)

    @property
    def n_held_out(self) -> int:
        """Number of held-out entries: the share of the known ones, rounded."""
        return round(self.held_out * int(self.matrix().observed.sum()))

    def held_out_mask(self) -> NDArray[np.bool_]:
        """Which entries are held out, ``(d, d_in)``."""
        self.check()
        return hold_out(self.matrix().observed, self.n_held_out, self.data_seed)

    def check(self) -> None:
        """Raise `InputError` unless the matrix can be read, and entries held out with others left to train on."""
        check_normalisation(self.normalisation)
        if not 0 <= self.held_out < 1:
            raise InputError(
                f"held_out = {self.held_out} is not allowed: it is a share of the known entries, at least 0 and below "
                "1, such as 0.1."
            )
        known = int(self.matrix().observed.sum())
        if self.n_held_out == known or (self.held_out > 0 and self.n_held_out == 0):
            raise InputError(
                f"held_out = {self.held_out} is not allowed for {Path(self._file).name}: of its {known} known entries "
                f"{self.n_held_out} would be held out, but at least 1 must be, and at least 1 left to train on."
            )

    def problem(self) -> Completion:
        """Make the problem, on the CPU in float64.

        Raises
        ------
        InputError
            If every entry that is left to train on is zero.
        """
        matrix, held_out = self.matrix(), self.held_out_mask()
        train = matrix.observed & ~held_out
        largest = float(np.abs(matrix.values[train]).max())
        if largest == 0:
            raise InputError(
                f"Every entry of {matrix.name} that is not held out is 0, so there is nothing to find: hold out fewer "
                "entries, or others by another data_seed."
            )
        # Divided by the largest entry first, so that no square overflows.
        unit = largest * math.sqrt(float(np.square(matrix.values[train] / largest).mean()))
        scaled = torch.from_numpy(matrix.values / unit)
        observed, kept = (SparseEntries.of(scaled, torch.from_numpy(where)) for where in (train, held_out))
        return Completion(self.normalisation, None, observed, kept, unit)
