"""Completion of matrices that do not fit in memory: entries by their indices, the ground truth by its factors."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from scipy.sparse import csr_array
from torch import Tensor

from dmfkit.errors import InputError
from dmfkit.linalg.low_rank import LowRank
from dmfkit.linalg.sampled_products import entries, row_starts
from dmfkit.problems.losses import Normalisation, Problem, check_n_entries

# Indices are 32-bit numbers: half of the memory, and what sparse products take.
LARGEST = 2**31 - 1
# Matrices of up to so many entries have them put in order one by one, as `matrix_completion` does.
LARGEST_ORDERING = 2**22


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
        places = zip((self.rows, self.columns), self.size, strict=True)
        inside = all(bool(((place >= 0) & (place < side)).all()) for place, side in places)
        down, right = (part[1:] > part[:-1] for part in (self.rows, self.columns))
        if not inside or not bool((down | (right & (self.rows[1:] == self.rows[:-1]))).all()):
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

    @property
    def magnitude(self) -> float:
        return super().magnitude if self.truth is None else float(self.truth.norm())

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
        If the matrix does not have that many entries, or most entries of a large matrix are asked for.
    """
    check_n_entries(truth.shape, n_observed)
    check_held_out(truth.shape, n_observed, n_held_out)
    observed, held_out = (_looked_up(truth, places) for places in distinct(truth.shape, (n_observed, n_held_out), seed))
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
    """Raise `InputError` unless that many entries are left to hold out, and all of them are few."""
    total = shape[0] * shape[1]
    left = total - n_observed
    if not 0 <= n_held_out <= left:
        raise InputError(
            f"n_held_out = {n_held_out} is not allowed: {left} entries of the {shape[0]} x {shape[1]} matrix are not "
            f"observed, so choose between 0 and {left}."
        )
    if total > LARGEST_ORDERING and 2 * (n_observed + n_held_out) > total:
        raise InputError(
            f"{n_observed + n_held_out} entries of a {shape[0]} x {shape[1]} matrix are too many to be kept one by "
            "one: take at most half of them, or a CompletionTask."
        )


def distinct(shape: tuple[int, int], counts: tuple[int, ...], seed: int) -> list[np.ndarray]:
    """Sets of entries that follow each other in one random ordering of all, as sorted ``row * d_in + column``.

    Small matrices have the ordering of `matrix_completion`. For large ones it is made only as far as it is needed, in
    memory of the order of the counts.
    """
    # Another stream than the ground truth's, which may well have been drawn with the same seed.
    generator, total = torch.Generator().manual_seed(seed + 2**32), shape[0] * shape[1]
    if total <= LARGEST_ORDERING:
        ordering = torch.randperm(total, generator=generator)[: sum(counts)]
        return [part.sort()[0].numpy() for part in ordering.split(counts)]
    sets, taken = [], np.empty(0, dtype=np.int64)
    for count in counts:
        new = np.empty(0, dtype=np.int64)
        # As many draws as are missing: all that are new belong to the set, so their order does not matter.
        while len(new) < count:
            drawn = torch.randint(total, (count - len(new),), generator=generator).numpy()
            new = _union(new, drawn[~_among(drawn, taken)])
        sets.append(new)
        taken = new if not len(taken) else _union(taken, new)
    return sets


def _union(numbers: np.ndarray, more: np.ndarray) -> np.ndarray:
    """Sorted numbers that are in either, each once; sorts in place, so as to hold few copies at a time."""
    both = np.concatenate([numbers, more])
    both.sort()
    return both[np.append(True, both[1:] != both[:-1])]


def _among(numbers: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Whether each of the `numbers` is one of the sorted `others`."""
    if not len(others):
        return np.zeros(len(numbers), dtype=bool)
    return others[np.searchsorted(others, numbers).clip(max=len(others) - 1)] == numbers


def _looked_up(truth: LowRank, flat: np.ndarray) -> SparseEntries:
    """The entries of `truth` at these places."""
    rows = torch.from_numpy((flat // truth.shape[1]).astype(np.int32))
    columns = torch.from_numpy((flat % truth.shape[1]).astype(np.int32))
    return SparseEntries(rows, columns, entries(truth.left[0], truth.right[0], rows, columns))
