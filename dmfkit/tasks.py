"""What is to be learned, as plain values: the part of a stored result's key that says which problem was solved.

A task is a frozen dataclass of numbers and words. It makes its `Problem` on demand, so that a sweep can vary any of its
fields, write them into the result's attributes, and make the same problem again when a stored result is checked.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from typing import Any, Protocol

import torch
from torch import Tensor

from dmfkit.data import Ratings, movielens_100k, synthetic_ratings
from dmfkit.errors import InputError
from dmfkit.problems import (
    FullObservation,
    MatrixCompletion,
    MatrixSensing,
    Normalisation,
    Problem,
    check_measurements,
    check_n_entries,
    check_normalisation,
    check_rank,
    check_target_norm,
    full_observation,
    halving_spectrum,
    matrix_completion,
    matrix_sensing,
    random_low_rank,
    truncated_gaussian,
)
from dmfkit.ratings import MOVIELENS_ITEMS, MOVIELENS_USERS

# Metadata of a field whose default means what was meant before there was the field.
ADDED_LATER = {"added_later": True}

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
    """Find a random low-rank ``d x d`` matrix; the base of tasks that differ in what is observed of it.

    Attributes
    ----------
    d, rank : int
    data_seed : int
        Draws the matrix and what is observed of it.
    normalisation : {"half_sum", "mean"}
        Of the training loss.
    target_norm : float, optional
        Frobenius norm to which the matrix is rescaled; ``None`` leaves it raw.
    target : {"product", "truncated", "halving"}
        ``product``: ``U V^T`` with Gaussian ``U, V`` (Arora et al. 2019). ``truncated``: the leading part of a Gaussian
        matrix (the code released with Yaras et al. 2023). ``halving``: the same singular vectors, each singular value
        half of the one before.
    """

    d: int = 100
    rank: int = 5
    data_seed: int = 0
    normalisation: Normalisation = "half_sum"
    target_norm: float | None = None
    target: str = field(default="product", metadata=ADDED_LATER)

    @property
    def shape(self) -> tuple[int, int]:
        """Shape ``(d, d)`` of the matrix."""
        return (self.d, self.d)

    def check(self) -> None:
        """Raise `InputError` unless there is such a matrix and such a loss; draws nothing."""
        check_rank(self.shape, self.rank)
        check_target_norm(self.target_norm)
        check_normalisation(self.normalisation)
        if self.target not in _TARGETS:
            raise InputError(f"target = {self.target!r} is not allowed: choose one of {', '.join(_TARGETS)}.")

    def ground_truth(self) -> Tensor:
        """Return the matrix to be found, ``(d, d)``."""
        self.check()
        return _TARGETS[self.target](self.shape, self.rank, self.data_seed, self.target_norm)


@dataclass(frozen=True)
class FullObservationTask(LowRankTask):
    """Factorize the matrix itself, every entry of which is known; fields as in `LowRankTask`."""

    def problem(self) -> FullObservation:
        """Make the problem, on the CPU in float64."""
        return full_observation(self.ground_truth(), self.normalisation)


@dataclass(frozen=True)
class CompletionTask(LowRankTask):
    """Complete the matrix from `n_observed` of its entries; other fields as in `LowRankTask`."""

    n_observed: int = 2000

    def check(self) -> None:
        super().check()
        check_n_entries(self.shape, self.n_observed)

    def problem(self) -> MatrixCompletion:
        """Make the problem, on the CPU in float64."""
        return matrix_completion(self.ground_truth(), self.n_observed, self.data_seed, self.normalisation)


@dataclass(frozen=True)
class SensingTask(LowRankTask):
    """Find the matrix from `n_observed` Gaussian measurements; other fields as in `LowRankTask`.

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

    def problem(self) -> MatrixCompletion:
        values, mask = self.ratings().matrix()
        known = torch.from_numpy(mask).to(torch.float64)
        return MatrixCompletion(self.normalisation, None, torch.from_numpy(values).to(torch.float64) * known, known)


def key_values(value: Any) -> dict[str, Any]:
    """Return the class and the fields of a dataclass instance that determine numbers, as plain values.

    A field that was `ADDED_LATER` is left out while it has its default, so that results stored before it was thought of
    keep their keys.
    """
    kept = {
        item.name: getattr(value, item.name)
        for item in fields(value)
        if item.metadata.get("in_key", True)
        and not (item.metadata.get("added_later", False) and getattr(value, item.name) == item.default)
    }
    return {"kind": type(value).__name__, **kept}


def field_names(value: Any) -> set[str]:
    """Names of the fields of a dataclass instance."""
    return {field.name for field in fields(value)}


def with_fields(value: Any, names: dict[str, Any]) -> Any:
    """Return the dataclass instance with those of `names` that it has replaced."""
    return replace(value, **{name: item for name, item in names.items() if name in field_names(value)})
