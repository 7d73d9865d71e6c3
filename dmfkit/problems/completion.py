"""Completion: some entries of a matrix are observed, others may be held out.

The entries are what is kept. Matrices of full size are made of them when something asks for one, and where it would be
too large, refused: which of the two forms is worked with is a matter of size and share, see `Completion.by_entries`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dmfkit.errors import InputError
from dmfkit.linalg.backend import sum_of_squares
from dmfkit.linalg.low_rank import LowRank
from dmfkit.linalg.sampled_products import entries, row_starts
from dmfkit.problems.losses import Matrices, Normalisation, Problem, check_n_entries

if TYPE_CHECKING:
    from scipy.sparse import csr_array

# Indices are 32-bit numbers: half of the memory, and what sparse products take.
LARGEST = 2**31 - 1
# Matrices of up to so many entries, known by their factors, have all entries put in order one by one.
LARGEST_ORDERING = 2**22

# Below this share of observed entries, in matrices of at least this many, the entry-wise residual is cheaper than the
# others. Measured on a CPU, see `python -m benchmarks compression`; fixed numbers, because a choice by the clock would
# change last digits from run to run.
SPARSE_SHARE, SPARSE_SIZE = 0.09, 250_000
# Above this inner width the dense products win again, whatever the share.
SPARSE_WIDTH = 100
# Other devices evaluate all runs of a batch at once, but only while a residual in full for each of them is affordable.
SPARSE_SIZE_ON_DEVICE = 2**22
# Above so many entries, half a gigabyte in double precision, a matrix with few observed ones is never formed.
LARGEST_FORMED = 2**26


@dataclass(frozen=True, eq=False)
class SparseEntries:
    """Some entries of a matrix, row by row and from left to right, each once.

    As `Observations` they have ``A A^dagger = I``.

    Attributes
    ----------
    rows, columns : Tensor of shape (m,), int32
    values : Tensor of shape (m,)
    shape : tuple of int
        ``(d, d_in)`` of the matrix.
    """

    rows: Tensor
    columns: Tensor
    values: Tensor
    shape: tuple[int, int]

    @classmethod
    def of(cls, matrix: Tensor, mask: Tensor) -> SparseEntries:
        """The entries of a matrix, ``(d, d_in)``, where `mask` is not zero."""
        rows, columns = mask.nonzero(as_tuple=True)
        return cls(rows.int(), columns.int(), matrix[rows, columns], (matrix.shape[0], matrix.shape[1]))

    def __len__(self) -> int:
        return len(self.values)

    @cached_property
    def index(self) -> tuple[Tensor, Tensor]:
        """Rows and columns as they index a matrix."""
        return self.rows.long(), self.columns.long()

    def forward(self, matrix: Tensor | LowRank) -> Tensor:
        """What matrices ``(..., d, d_in)`` have at these places, ``(..., m)``."""
        if isinstance(matrix, LowRank):
            found = [
                entries(left, right, self.rows, self.columns)
                for left, right in zip(matrix.left, matrix.right, strict=True)
            ]
            return torch.stack(found)
        rows, columns = self.index
        return matrix[..., rows, columns]

    def adjoint(self, weights: Tensor, elsewhere: float = 0.0) -> Tensor:
        """The matrix, ``(d, d_in)``, with these at the places of the entries."""
        matrix = weights.new_full(self.shape, elsewhere)
        matrix[self.index] = weights
        return matrix

    def solve(self, weights: Tensor) -> Tensor:
        """``(A A^dagger)^{-1}`` of the weights: themselves."""
        return weights

    def sparse_matrix(self) -> csr_array:
        """As a sparse matrix of SciPy's, in double precision."""
        parts = (self.values.to(torch.float64), self.columns, row_starts(self.rows, self.shape[0]).int())
        from scipy.sparse import csr_array  # takes a tenth of a second to load

        return csr_array(tuple(part.cpu().numpy() for part in parts), shape=self.shape)

    def to(self, device: torch.device | str, dtype: torch.dtype | None = None) -> SparseEntries:
        """Copy on another device, or with values in another precision."""
        parts = self.rows.to(device), self.columns.to(device), self.values.to(device, dtype)
        return SparseEntries(*parts, self.shape)


@dataclass(frozen=True, eq=False)
class Completion(Problem):
    """Some entries of a matrix are observed.

    Attributes
    ----------
    observed : SparseEntries
        In units of `unit`; at least one.
    held_out : SparseEntries, optional
        Entries that no loss or gradient uses, to test on; in units of `unit`.
    unit : float
        Training uses the matrix divided by this, so that initial scales and stopping thresholds mean the same whatever
        the matrix is measured in. Everything that is measured of the end-to-end matrix is in the matrix's own units,
        and so is `truth`.

    Raises
    ------
    InputError
        If entries lie outside of the matrix, in another order, or twice, or a value is NaN.
    """

    observed: SparseEntries
    held_out: SparseEntries | None = None
    unit: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not len(self.observed):
            raise InputError("0 entries are observed: at least one must be.")
        for some in (self.observed, self.held_out):
            if some is not None:
                _check_entries(some, self.shape)

    @property
    def shape(self) -> tuple[int, int]:
        return self.observed.shape

    @property
    def observed_values(self) -> Tensor:
        return self.observed.values

    @property
    def _few(self) -> bool:
        return self.n_observations < SPARSE_SHARE * math.prod(self.shape)

    @property
    def _formable(self) -> bool:
        return isinstance(self.truth, Tensor) or not self._few or math.prod(self.shape) <= LARGEST_FORMED

    def by_entries(self, widths: tuple[int, ...]) -> bool:
        if not self._formable:
            return True
        least = SPARSE_SIZE if self.device.type == "cpu" else SPARSE_SIZE_ON_DEVICE
        inner = widths[1:-1]
        return self._few and math.prod(self.shape) >= least and bool(inner) and max(inner) <= SPARSE_WIDTH

    def check_formable(self) -> None:
        if not self._formable:
            raise InputError(
                f"a {self.shape[0]} x {self.shape[1]} matrix with so few observed entries is never formed in full: of "
                "all recorders only Loss, RelativeError, SingularValues, EffectiveRank and HeldOutError do without it; "
                "for anything else take a smaller matrix."
            )

    @cached_property
    def mask(self) -> Tensor:
        self.check_formable()
        return self.observed.adjoint(torch.ones_like(self.observed.values))

    @cached_property
    def values(self) -> Tensor:
        """The observed values, and zero elsewhere, ``(d, d_in)``."""
        self.check_formable()
        return self.observed.adjoint(self.observed.values)

    @cached_property
    def values_or_nan(self) -> Tensor:
        """The observed values, and NaN elsewhere, ``(d, d_in)``."""
        self.check_formable()
        return self.observed.adjoint(self.observed.values, elsewhere=torch.nan)

    @cached_property
    def _minus_values(self) -> Tensor:
        return -self.values

    def squares_and_residual_gradient(self, end_to_end: Tensor) -> tuple[Tensor, Tensor]:
        # One pass over the matrix; the same to the bit as the masked difference, since the mask holds zeros and ones.
        residual = torch.addcmul(self._minus_values, end_to_end, self.mask, out=end_to_end)
        return sum_of_squares(residual), residual

    def squares(self, end_to_end: Tensor | LowRank) -> Tensor:
        if isinstance(end_to_end, LowRank):
            return (self.observed.forward(end_to_end) - self.observed.values).square().sum(dim=-1)
        return super().squares(end_to_end)

    def gradient(self, end_to_end: Tensor) -> Tensor:
        # Plain operations, which can be differentiated once more; what trains does not come here.
        return (end_to_end - self.values) * self.mask * self.gradient_scale

    def lift(self, end_to_end: Matrices) -> Matrices:
        """The matrix in its own units."""
        return end_to_end if self.unit == 1.0 else end_to_end * self.unit

    def held_out_rmse(self, end_to_end: Tensor | LowRank) -> Tensor | None:
        """Root mean square error on the held-out entries, ``(runs,)``; ``nan`` if there are none among them.

        None where nothing is known of held-out entries.
        """
        if self.held_out is None:
            return None
        wrong = self.held_out.forward(end_to_end) - self.lift(self.held_out.values)
        return wrong.square().mean(dim=-1).sqrt()

    def observed_matrix(self) -> Tensor | csr_array:
        """What is observed, zero elsewhere; where entries are few in a large matrix, a sparse matrix of SciPy's."""
        if not self._few or math.prod(self.shape) < SPARSE_SIZE:
            return self.values
        return self.observed.sparse_matrix()

    def observation_operator(self) -> SparseEntries:
        self.check_formable()
        return self.observed


def _check_entries(some: SparseEntries, size: tuple[int, int]) -> None:
    """Raise `InputError` unless the entries are those of a matrix of this size, in order."""
    rows, columns, values = some.rows, some.columns, some.values
    if some.shape != size:
        raise InputError(f"entries of {some.shape} and of {size} matrices were given: give those of one matrix.")
    if max(*size, len(values)) > LARGEST:
        raise InputError(f"{size} with {len(values)} entries: each number may be at most {LARGEST}.")
    if rows.dtype != torch.int32 or columns.dtype != torch.int32:
        raise InputError("rows and columns must be int32 tensors: convert them by .to(torch.int32).")
    if not len(rows) == len(columns) == len(values):
        raise InputError(
            f"{len(rows)} rows, {len(columns)} columns and {len(values)} values were given: give one of each per entry."
        )
    inside = all(bool(((place >= 0) & (place < side)).all()) for place, side in zip((rows, columns), size, strict=True))
    down, right = (part[1:] > part[:-1] for part in (rows, columns))
    if not inside or not bool((down | (right & (rows[1:] == rows[:-1]))).all()):
        raise InputError(
            f"entries must lie inside the {size[0]} x {size[1]} matrix, each once, row by row and from left to right: "
            "sort them by row, then column."
        )


def MatrixCompletion(
    normalisation: Normalisation, ground_truth: Tensor | None, values: Tensor, mask: Tensor
) -> Completion:
    """Complete a matrix that is given in full size, see `Completion`.

    Parameters
    ----------
    normalisation, ground_truth
        As of a `Problem`.
    values : Tensor of shape (d, d_in)
        Observed values; what it holds where nothing is observed does not count.
    mask : Tensor of shape (d, d_in)
        One, or True, where an entry is observed, else zero.
    """
    if values.ndim != 2 or mask.shape != values.shape:
        raise InputError(
            f"values of shape {tuple(values.shape)} and a mask of shape {tuple(mask.shape)} were given: both must have "
            "the shape of the matrix."
        )
    return Completion(normalisation, ground_truth, SparseEntries.of(values, mask))


def SparseCompletion(
    normalisation: Normalisation,
    ground_truth: Tensor | LowRank | None,
    values: Tensor,
    rows: Tensor,
    columns: Tensor,
    size: tuple[int, int],
    held_out: SparseEntries | None = None,
) -> Completion:
    """Complete a matrix whose observed entries are given one by one, see `Completion`.

    Parameters
    ----------
    normalisation, ground_truth
        As of a `Problem`.
    values, rows, columns, size, held_out
        As of `SparseEntries` and `Completion`.
    """
    return Completion(normalisation, ground_truth, SparseEntries(rows, columns, values, size), held_out)


def entry_order(shape: tuple[int, ...], seed: int) -> Tensor:
    """Return the order, ``(d * d_in,)``, in which entries (counted row by row) are observed with this seed."""
    # Another stream than the ground truth's, which may well have been drawn with the same seed.
    generator = torch.Generator().manual_seed(seed + 2**32)
    return torch.randperm(math.prod(shape), generator=generator)


def matrix_completion(
    ground_truth: Tensor | LowRank,
    n_observed: int,
    seed: int,
    normalisation: Normalisation = "half_sum",
    *,
    n_held_out: int = 0,
) -> Completion:
    """Observe `n_observed` distinct entries of a matrix, chosen uniformly, and hold others out.

    All are the first of one random ordering of the entries, the observed ones before those held out, so that for one
    seed a smaller set of observations is part of every larger one.

    Parameters
    ----------
    ground_truth : Tensor of shape (d, d_in) or LowRank
        By its factors: a batch of one; nothing of full size is formed.
    n_observed : int
    seed : int
    normalisation : {"half_sum", "mean"}
    n_held_out : int
        Number of further entries to test on.

    Raises
    ------
    InputError
        If the matrix does not have that many entries, or most entries are asked for of a large matrix that is given by
        its factors.
    """
    shape = (ground_truth.shape[0], ground_truth.shape[1])
    check_n_entries(shape, n_observed)
    check_n_held_out(shape, n_observed, n_held_out)
    if isinstance(ground_truth, LowRank):
        check_kept_by_entries(shape, n_observed + n_held_out)
        sets = distinct(shape, (n_observed, n_held_out), seed)
    else:
        sets = _first_of_order(shape, (n_observed, n_held_out), seed)
    observed, held_out = (_entries_of(ground_truth, places) for places in sets)
    return Completion(normalisation, ground_truth, observed, held_out if n_held_out else None)


def check_n_held_out(shape: tuple[int, int], n_observed: int, n_held_out: int) -> None:
    """Raise `InputError` unless that many entries are left to hold out."""
    left = math.prod(shape) - n_observed
    if not 0 <= n_held_out <= left:
        raise InputError(
            f"n_held_out = {n_held_out} is not allowed: {left} entries of the {shape[0]} x {shape[1]} matrix are not "
            f"observed, so choose between 0 and {left}."
        )


def check_kept_by_entries(shape: tuple[int, int], count: int) -> None:
    """Raise `InputError` if so many entries of a large matrix should be drawn without putting all of them in order."""
    total = math.prod(shape)
    if total > LARGEST_ORDERING and 2 * count > total:
        raise InputError(
            f"{count} entries of a {shape[0]} x {shape[1]} matrix are too many to be kept one by one: take at most "
            "half of them, or a CompletionTask."
        )


def _first_of_order(shape: tuple[int, int], counts: tuple[int, ...], seed: int) -> list[NDArray[np.int64]]:
    """Sets of entries that follow each other in `entry_order`, each sorted."""
    return [part.sort()[0].numpy() for part in entry_order(shape, seed)[: sum(counts)].split(counts)]


def distinct(shape: tuple[int, int], counts: tuple[int, ...], seed: int) -> list[NDArray[np.int64]]:
    """Sets of entries that follow each other in one random ordering of all, as sorted ``row * d_in + column``.

    Small matrices have that of `entry_order`. For large ones it is made only as far as it is needed, in
    memory of the order of the counts.
    """
    generator, total = torch.Generator().manual_seed(seed + 2**32), math.prod(shape)
    if total <= LARGEST_ORDERING:
        return _first_of_order(shape, counts, seed)
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


def _union(numbers: NDArray[np.int64], more: NDArray[np.int64]) -> NDArray[np.int64]:
    """Sorted numbers that are in either, each once; sorts in place, so as to hold few copies at a time."""
    both = np.concatenate([numbers, more])
    both.sort()
    result: NDArray[np.int64] = both[np.append(True, both[1:] != both[:-1])]
    return result


def _among(numbers: NDArray[np.int64], others: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Whether each of the `numbers` is one of the sorted `others`."""
    if not len(others):
        return np.zeros(len(numbers), dtype=bool)
    result: NDArray[np.bool_] = others[np.searchsorted(others, numbers).clip(max=len(others) - 1)] == numbers
    return result


def _entries_of(matrix: Tensor | LowRank, places: NDArray[np.int64]) -> SparseEntries:
    """The entries of one matrix at ``row * d_in + column``."""
    shape = (matrix.shape[0], matrix.shape[1])
    rows, columns = (torch.from_numpy(part.astype(np.int32)) for part in np.divmod(places, shape[1]))
    if isinstance(matrix, LowRank):
        return SparseEntries(rows, columns, entries(matrix.left[0], matrix.right[0], rows, columns), shape)
    rows, columns = rows.to(matrix.device), columns.to(matrix.device)
    return SparseEntries(rows, columns, matrix[rows.long(), columns.long()], shape)


def hold_out(observed: NDArray[np.bool_], n_held_out: int, seed: int) -> NDArray[np.bool_]:
    """Choose `n_held_out` of the observed entries, all with the same probability.

    The entries are the first of one random ordering, so that for one seed a smaller set is part of every larger one.

    Parameters
    ----------
    observed : ndarray of bool, shape (d, d_in)
    n_held_out : int
        At most as many as are observed.
    seed : int

    Returns
    -------
    ndarray of bool, shape (d, d_in)
    """
    places = np.flatnonzero(observed)
    order = torch.randperm(len(places), generator=torch.Generator().manual_seed(seed)).numpy()
    held_out = np.zeros(observed.size, dtype=bool)
    held_out[places[order[:n_held_out]]] = True
    return held_out.reshape(observed.shape)
