"""Small matrices on which the theorems are checked."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


def spread_matrix(shape: tuple[int, int], norm: float, seed: int) -> Tensor:
    """Random singular vectors and evenly spaced singular values ``k, k - 1, .., 1`` up to scale.

    Formulas with differences of singular values in a denominator are best judged where no difference is tiny.

    Parameters
    ----------
    shape : (d, d_in)
    norm : float
        Frobenius norm of the matrix.
    seed : int
    """
    generator = torch.Generator().manual_seed(seed)
    left, values, right = torch.linalg.svd(
        torch.randn(*shape, generator=generator, dtype=torch.float64), full_matrices=False
    )
    values = torch.arange(len(values), 0, -1, dtype=torch.float64)
    return (left * (norm * values / values.norm())) @ right


@dataclass(frozen=True)
class SmoothPath:
    """The path ``A + B sin t + C cos 2t`` of random matrices: smooth, and the trajectory of nothing in particular."""

    shape: tuple[int, int]
    seed: int

    def _terms(self) -> tuple[Tensor, Tensor, Tensor]:
        large, middle, small = (spread_matrix(self.shape, n, self.seed + k) for k, n in enumerate((3.0, 0.3, 0.1)))
        return large, middle, small

    def at(self, times: Tensor) -> Tensor:
        """Return matrices at `times`, ``(moments, d, d_in)``."""
        a, b, c = self._terms()
        t = times.view(-1, 1, 1)
        return a + b * torch.sin(t) + c * torch.cos(2 * t)

    def velocity(self, times: Tensor) -> Tensor:
        """Return their time derivatives."""
        _, b, c = self._terms()
        t = times.view(-1, 1, 1)
        return b * torch.cos(t) - 2 * c * torch.sin(2 * t)


def crossing_pair(seed: int) -> tuple[Tensor, Tensor]:
    """Return a start and a target, each 5 x 4, between which singular values must cross.

    Both are made of a 2 x 2 and a 3 x 2 block, hidden by the same random rotations of rows and columns. Under the loss
    ``||W - target||^2 / 2`` the blocks do not see each other; the first shrinks while the second grows. In each block
    start and target have different singular vectors, so these turn all the time.
    """
    generator = torch.Generator().manual_seed(seed)
    rows = torch.linalg.qr(torch.randn(5, 5, generator=generator, dtype=torch.float64))[0]
    columns = torch.linalg.qr(torch.randn(4, 4, generator=generator, dtype=torch.float64))[0]

    def blocks(first: tuple[float, float], second: tuple[float, float], angle: float) -> Tensor:
        matrix = torch.zeros(5, 4, dtype=torch.float64)
        turn = _rotation(angle)
        matrix[:2, :2] = turn @ torch.diag(torch.tensor(first, dtype=torch.float64)) @ turn
        tall = torch.zeros(3, 2, dtype=torch.float64)
        tall[:2] = torch.diag(torch.tensor(second, dtype=torch.float64))
        tilt = torch.eye(3, dtype=torch.float64)
        tilt[1:, 1:] = turn  # turns the block out of its first two rows
        matrix[2:, 2:] = tilt @ tall @ turn.mT
        return rows @ matrix @ columns.mT

    return blocks((2.0, 1.3), (0.7, 0.4), 0.0), blocks((0.5, 0.3), (2.2, 1.6), 0.4)


def singular_passage(shape: tuple[int, int], seed: int) -> tuple[Tensor, Tensor]:
    """Return a start and a target whose midpoint has rank ``k - 1``, one less than full.

    At depth 1 and under the loss ``||W - target||^2 / 2`` the flow follows the line between them and meets the midpoint
    at time ``log 2``; the smallest singular value, signed, passes through zero there.
    """
    middle = spread_matrix(shape, 2.0, seed)
    left, values, right = torch.linalg.svd(middle, full_matrices=False)
    middle = middle - values[-1] * torch.outer(left[:, -1], right[-1])
    direction = spread_matrix(shape, 1.0, seed + 1)
    return middle - direction, middle + direction


def _rotation(angle: float) -> Tensor:
    a = torch.tensor(angle, dtype=torch.float64)
    return torch.stack([torch.stack([a.cos(), -a.sin()]), torch.stack([a.sin(), a.cos()])])
