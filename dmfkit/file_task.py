"""A task whose matrix comes from a file of the reader's own."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from dmfkit.errors import InputError
from dmfkit.held_out import HeldOutCompletion, hold_out
from dmfkit.matrix_files import ObservedMatrix, read_bytes, read_matrix_of
from dmfkit.problems import Normalisation, check_normalisation

EXAMPLE = "example_matrix.csv"


@dataclass(frozen=True)
class FileTask:
    """Complete a matrix of which a file holds some entries.

    The matrix is divided by the root mean square of the entries that are trained on, see `HeldOutCompletion`.

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
        return self.path or str(resources.files("dmfkit").joinpath(EXAMPLE))

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

    def problem(self) -> HeldOutCompletion:
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
        mask, kept = (torch.from_numpy(where.astype(np.float64)) for where in (train, held_out))
        return HeldOutCompletion(self.normalisation, None, scaled * mask, mask, scaled * kept, kept, unit)
