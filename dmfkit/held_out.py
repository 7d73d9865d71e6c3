"""Completion of a matrix of which nobody knows all entries: some known ones are held out, to measure the error on."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dmfkit.problems import MatrixCompletion, Problem
from dmfkit.record import Snapshot


@dataclass(frozen=True)
class HeldOutCompletion(MatrixCompletion):
    """Some entries of a matrix are observed, further ones are known and held out; nothing is known of the others.

    Attributes
    ----------
    values, mask : Tensor of shape (d, d_in)
        The observed entries, in units of `unit`, and where they are; `ground_truth` is ``None``.
    held_out_values, held_out_mask : Tensor of shape (d, d_in)
        The entries that are held out, in units of `unit`, zero elsewhere, and where they are; no loss uses them.
    unit : float
        Training uses the matrix divided by this, so that initial scales and stopping thresholds mean the same whatever
        the matrix is measured in. Everything that is measured of the end-to-end matrix is in the matrix's own units.
    """

    held_out_values: Tensor
    held_out_mask: Tensor
    unit: float

    def lift(self, end_to_end: Tensor) -> Tensor:
        """The matrix in its own units."""
        return end_to_end * self.unit

    def held_out_rmse(self, end_to_end: Tensor) -> Tensor:
        """Root mean square error ``(runs,)`` on the held-out entries, for matrices ``(runs, d, d_in)`` in own units.

        ``nan`` where nothing is held out.
        """
        wrong = (end_to_end - self.unit * self.held_out_values) * self.held_out_mask
        return (wrong.square().sum(dim=(-2, -1)) / self.held_out_mask.sum()).sqrt()


@dataclass(frozen=True)
class HeldOutError:
    """Root mean square error on the held-out entries, in the matrix's own units."""

    @property
    def dims(self) -> Mapping[str, tuple[str, ...]]:
        return {"held_out_rmse": ()}

    def magnitudes(self, problem: Problem) -> Mapping[str, float]:
        return {"held_out_rmse": problem.magnitude / math.sqrt(problem.n_observations)}

    def __call__(self, snapshot: Snapshot) -> dict[str, Tensor]:
        error = snapshot.held_out_rmse
        if error is None:
            raise ValueError("HeldOutError needs a completion problem with held-out entries")
        return {"held_out_rmse": error}


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
