"""What is observed of a matrix, as a linear operator with an adjoint: the constraints of convex recovery.

Entries are such an operator themselves, see `dmfkit.problems.completion.SparseEntries`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import torch
from torch import Tensor

from dmfkit.errors import InputError


class Observations(Protocol):
    """Linear operator ``A`` from matrices of shape ``(d, d_in)`` to the ``m`` numbers that are observed."""

    @property
    def values(self) -> Tensor:
        """What was observed, ``(m,)``."""

    def forward(self, matrix: Tensor) -> Tensor:
        """``A(W)``, of shape ``(m,)``."""

    def adjoint(self, weights: Tensor) -> Tensor:
        """``A^dagger(w) = sum_i w_i A_i``, of shape ``(d, d_in)``."""

    def solve(self, weights: Tensor) -> Tensor:
        """``(A A^dagger)^{-1} w``, of shape ``(m,)``."""


@dataclass(frozen=True, eq=False)
class Measurements:
    """Inner products with measurement matrices.

    Attributes
    ----------
    values : Tensor of shape (m,)
    matrices : Tensor of shape (m, d, d_in)
    """

    values: Tensor
    matrices: Tensor

    def forward(self, matrix: Tensor) -> Tensor:
        return self.matrices.flatten(start_dim=1) @ matrix.flatten()

    def adjoint(self, weights: Tensor) -> Tensor:
        return (weights @ self.matrices.flatten(start_dim=1)).view(self.matrices.shape[1:])

    @cached_property
    def _inverse_gram(self) -> Tensor:
        # The inverse itself rather than its triangular factor: a product with it is ten times faster than two
        # triangular solves with one right-hand side. `solve` makes up for the accuracy that this costs.
        flat = self.matrices.flatten(start_dim=1)
        factor, info = torch.linalg.cholesky_ex(flat @ flat.mT)
        if int(info) != 0:
            raise InputError(f"The {len(self.values)} measurement matrices depend linearly on each other: take fewer.")
        return torch.cholesky_inverse(factor)

    def solve(self, weights: Tensor) -> Tensor:
        return self._inverse_gram @ weights
