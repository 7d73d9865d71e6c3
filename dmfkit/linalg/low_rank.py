"""Matrices held as two narrow factors: everything that is asked of a low-rank matrix without forming it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class LowRank:
    """A batch of matrices ``left right^T``; the cost of every method but `in_full` grows with ``d + d_in``.

    Attributes
    ----------
    left : Tensor of shape (runs, d, k)
    right : Tensor of shape (runs, d_in, k)
    """

    left: Tensor
    right: Tensor

    @property
    def shape(self) -> tuple[int, int]:
        """Shape ``(d, d_in)`` of each matrix."""
        return (self.left.shape[-2], self.right.shape[-2])

    def in_full(self) -> Tensor:
        """The matrices themselves, ``(runs, d, d_in)``."""
        return self.left @ self.right.mT

    def __mul__(self, factor: float | Tensor) -> LowRank:
        return LowRank(self.left * factor, self.right)

    def core(self) -> Tensor:
        """Small matrices with the same non-zero singular values, from thin QR decompositions of both factors.

        Not from Gram matrices: those would lose half of the digits of what is small.
        """
        left, right = (torch.linalg.qr(side, mode="r")[1] for side in (self.left, self.right))
        result: Tensor = left @ right.mT
        return result

    def norm(self) -> Tensor:
        """Frobenius norms, ``(runs,)``."""
        result: Tensor = torch.linalg.matrix_norm(self.core())
        return result

    def minus(self, other: LowRank) -> LowRank:
        """The differences, of inner width ``k + k'``; the other's batch may be one matrix for all runs."""
        runs = self.left.shape[0]
        left, right = (side.expand(runs, -1, -1) for side in (other.left, -other.right))
        return LowRank(torch.cat([self.left, left], dim=-1), torch.cat([self.right, right], dim=-1))

    def singular_vectors(self, count: int) -> tuple[Tensor, Tensor, Tensor]:
        """Leading left vectors ``(d, count)``, values and right vectors ``(d_in, count)`` of the first matrix.

        Orthonormal also where values are zero, as they are beyond the inner width.
        """
        missing = (0, max(0, count - self.left.shape[-1]))
        (outer_left, inner_left), (outer_right, inner_right) = (
            torch.linalg.qr(torch.nn.functional.pad(side[0], missing)) for side in (self.left, self.right)
        )
        left, values, right = torch.linalg.svd(inner_left @ inner_right.mT)
        return outer_left @ left[:, :count], values[:count], outer_right @ right[:count].mT

    def to(self, device: torch.device | str, dtype: torch.dtype | None = None) -> LowRank:
        """Copy on another device or in another precision."""
        return LowRank(self.left.to(device, dtype), self.right.to(device, dtype))
