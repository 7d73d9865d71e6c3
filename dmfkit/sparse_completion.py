"""Completion of matrices that do not fit in memory: entries by their indices, the ground truth by its factors."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from scipy.sparse import csr_array
from torch import Tensor

from dmfkit.errors import InputError
from dmfkit.low_rank import LowRank
from dmfkit.problems import Normalisation, Problem, check_n_entries
from dmfkit.sampled_products import entries, row_starts

# Indices are 32-bit numbers: half of the memory, and what sparse products take.
LARGEST = 2**31 - 1


@dataclass(frozen=True, eq=False)
class SparseEntries:
    """Some entries of a matrix, row by row and from left to right.

    Attributes
    ----------
    rows, columns : Tensor of shape (m,), int32
    values : Tensor of shape (m,)
    """

    rows: Tensor
    columns: Tensor
    values: Tensor

    def to(self, device: torch.device | str, dtype: torch.dtype | None = None) -> SparseEntries:
        """Copy on another device, or with values in another precision."""
        return SparseEntries(self.rows.to(device), self.columns.to(device), self.values.to(device, dtype))


@dataclass(frozen=True, eq=False)
class SparseCompletion(Problem):
    """Some entries of a matrix are observed, and only these are kept: `MatrixCompletion` for large sizes.

    `ground_truth` is None, since it would be a matrix of full size; what is known of it are `truth` and `held_out`.

    Attributes
    ----------
    values : Tensor of shape (m,)
    rows, columns : Tensor of shape (m,), int32
        Places of the values, row by row and from left to right, each once.
    size : tuple of int
        Shape ``(d, d_in)`` of the matrix.
    truth : LowRank, optional
        The matrix behind the observations, in a batch of one.
    held_out : SparseEntries, optional
        Entries that no loss or gradient uses, to test on.
    """

    rows: Tensor
    columns: Tensor
    size: tuple[int, int]
    truth: LowRank | None = None
    held_out: SparseEntries | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if max(*self.size, len(self.values)) > LARGEST:
            raise InputError(f"{self.size} with {len(self.values)} entries: each number may be at most {LARGEST}.")
        if self.rows.dtype != torch.int32 or self.columns.dtype != torch.int32:
            raise InputError("rows and columns must be int32 tensors: convert them by .to(torch.int32).")
        if not len(self.rows) == len(self.columns) == len(self.values) > 0:
            raise InputError(
                f"{len(self.rows)} rows, {len(self.columns)} columns and {len(self.values)} values were given: give "
                "one of each per observed entry, and at least one entry."
            )
        flat = self.rows.long() * self.size[1] + self.columns
        places = zip((self.rows, self.columns), self.size, strict=True)
        inside = all(bool(((place >= 0) & (place < side)).all()) for place, side in places)
        if not inside or not bool((flat[1:] > flat[:-1]).all()):
            raise InputError(
                f"entries must lie inside the {self.size[0]} x {self.size[1]} matrix, each once, row by row and from "
                "left to right: sort them by row, then column."
            )

    @property
    def shape(self) -> tuple[int, int]:
        return self.size

    @property
    def n_observations(self) -> int:
        return self.values.numel()

    def squares_and_residual_gradient(self, end_to_end: Tensor) -> tuple[Tensor, Tensor]:
        """As for any problem, with matrices in full: for sizes at which there are such matrices."""
        rows, columns = self.rows.long(), self.columns.long()
        residual = end_to_end[:, rows, columns] - self.values
        gradient = end_to_end.zero_()
        gradient[:, rows, columns] = residual
        return residual.square().sum(dim=-1), gradient

    def squares(self, product: LowRank) -> Tensor:
        """Sum of squared residuals, ``(runs,)``."""
        found = [
            (entries(left, right, self.rows, self.columns) - self.values).square().sum()
            for left, right in zip(product.left, product.right, strict=True)
        ]
        return torch.stack(found)

    def observed_matrix(self) -> csr_array:
        """What is observed, zero elsewhere, as a sparse matrix of SciPy's in double precision."""
        starts = row_starts(self.rows, self.size[0]).int()
        parts = (self.values.to(torch.float64), self.columns, starts)
        return csr_array(tuple(part.cpu().numpy() for part in parts), shape=self.size)

    def to(self, device: torch.device | str, dtype: torch.dtype | None = None) -> SparseCompletion:
        return replace(
            self,
            values=self.values.to(device, dtype),
            rows=self.rows.to(device),
            columns=self.columns.to(device),
            truth=None if self.truth is None else self.truth.to(device, dtype),
            held_out=None if self.held_out is None else self.held_out.to(device, dtype),
        )


def sparse_completion(
    truth: LowRank, n_observed: int, seed: int, normalisation: Normalisation = "half_sum", *, n_held_out: int = 0
) -> SparseCompletion:
    """Observe `n_observed` distinct entries of a low-rank matrix, chosen uniformly, and hold others out.

    All are the first of one random ordering of the entries, the observed ones before those held out, so that for one
    seed a smaller set of observations is part of every larger one.

    Parameters
    ----------
    truth : LowRank
        A batch of one.
    n_observed : int
    seed : int
    normalisation : {"half_sum", "mean"}
    n_held_out : int
        Number of further entries to test on.

    Raises
    ------
    InputError
        If the matrix does not have that many entries.
    """
    check_n_entries(truth.shape, n_observed)
    check_held_out(truth.shape, n_observed, n_held_out)
    chosen = first_entries(truth.shape, n_observed + n_held_out, seed)
    observed, held_out = (_looked_up(truth, places) for places in (chosen[:n_observed], chosen[n_observed:]))
    return SparseCompletion(
        normalisation=normalisation,
        ground_truth=None,
        values=observed.values,
        rows=observed.rows,
        columns=observed.columns,
        size=truth.shape,
        truth=truth,
        held_out=held_out if n_held_out else None,
    )


def check_held_out(shape: tuple[int, int], n_observed: int, n_held_out: int) -> None:
    """Raise `InputError` unless that many entries are left to hold out."""
    left = shape[0] * shape[1] - n_observed
    if not 0 <= n_held_out <= left:
        raise InputError(
            f"n_held_out = {n_held_out} is not allowed: {left} entries of the {shape[0]} x {shape[1]} matrix are not "
            f"observed, so choose between 0 and {left}."
        )


def first_entries(shape: tuple[int, int], count: int, seed: int) -> Tensor:
    """The first `count` entries of a random ordering of all, as ``row * d_in + column``; in memory of order `count`."""
    # Another stream than the ground truth's, which may well have been drawn with the same seed.
    generator = torch.Generator().manual_seed(seed + 2**32)
    found, draws = torch.empty(0, dtype=torch.int64), count
    # Draws that repeat an earlier one are passed over, which leaves a uniform ordering.
    while len(found) < count:
        found = torch.cat([found, torch.randint(shape[0] * shape[1], (draws,), generator=generator)])
        draws = count // 8 + 1000  # few are missing, unless nearly all entries are wanted
        ordered, places = torch.sort(found, stable=True)
        new = torch.ones_like(ordered, dtype=torch.bool)
        new[1:] = ordered[1:] != ordered[:-1]
        found = found[places[new].sort()[0]]
    return found[:count]


def _looked_up(truth: LowRank, flat: Tensor) -> SparseEntries:
    """The entries of `truth` at these places, in order."""
    flat = flat.sort()[0]
    rows = torch.div(flat, truth.shape[1], rounding_mode="floor").to(torch.int32)
    columns = (flat % truth.shape[1]).to(torch.int32)
    return SparseEntries(rows, columns, entries(truth.left[0], truth.right[0], rows, columns))
