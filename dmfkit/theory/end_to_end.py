"""How the product matrix moves when the factors follow gradient flow, and small matrices on which that is checked.

The product rule turns Eq (4) of Arora et al. (2019) into the velocity of the product, for any factors. For balanced
ones, Eq (5), Lemma 3 writes it in the product alone. The matrices at the end of the file are made so that formulas with
differences of singular values in a denominator can be judged on them, or so that something happens on the way: singular
values that cross, or pass through zero.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from dmfkit.factorizations.factorization import Factorization


def balanced_factorization(end_to_end: Tensor, depth: int) -> Factorization:
    """Factor matrices into balanced factors, ``W_{j+1}^T W_{j+1} = W_j W_j^T`` (Eq 5).

    Every factor takes the `depth`-th root of the singular values; hidden widths are ``k = min(d, d_in)``.

    Parameters
    ----------
    end_to_end : Tensor of shape (runs, d, d_in)
    depth : int
        ``N``, at least 1.

    Returns
    -------
    Factorization
    """
    if depth == 1:
        return Factorization.from_factors([end_to_end])
    left, values, right = torch.linalg.svd(end_to_end, full_matrices=False)
    root = values ** (1.0 / depth)
    factors = [root.unsqueeze(-1) * right, *[torch.diag_embed(root)] * (depth - 2), left * root.unsqueeze(-2)]
    return Factorization.from_factors(factors)


def product_velocity(factorization: Factorization, velocities: Sequence[Tensor]) -> Tensor:
    """Velocity of the product from the velocities of the factors, by the product rule.

    Parameters
    ----------
    factorization : Factorization
    velocities : sequence of Tensor
        ``dW_1/dt, .., dW_N/dt``, shaped like the factors.

    Returns
    -------
    Tensor of shape (runs, d, d_in)
        ``sum_j W_N .. W_{j+1} (dW_j/dt) W_{j-1} .. W_1``.
    """
    product, moving = factorization.factors[0], velocities[0]
    for factor, velocity in zip(factorization.factors[1:], velocities[1:], strict=True):
        product, moving = factor @ product, velocity @ product + factor @ moving
    return moving


def end_to_end_velocity(end_to_end: Tensor, gradient: Tensor, depth: int) -> Tensor:
    """Velocity of the product under gradient flow of balanced factors, Lemma 3 of Arora et al. (2019).

    Parameters
    ----------
    end_to_end : Tensor of shape (..., d, d_in)
    gradient : Tensor of shape (..., d, d_in)
        Gradient of the loss at `end_to_end`.
    depth : int
        ``N``.

    Returns
    -------
    Tensor of shape (..., d, d_in)
        ``- sum_j [W W^T]^{(j-1)/N} gradient [W^T W]^{(N-j)/N}``. The powers are taken of the singular values; the power
        0 is the identity of the whole space, also where ``W`` is singular or not square.
    """
    left, values, right = torch.linalg.svd(end_to_end, full_matrices=False)
    total = torch.zeros_like(gradient)
    for j in range(1, depth + 1):
        term = gradient
        if j > 1:
            term = (left * (values ** (2 * (j - 1) / depth)).unsqueeze(-2)) @ (left.mT @ term)
        if j < depth:
            term = (term @ right.mT * (values ** (2 * (depth - j) / depth)).unsqueeze(-2)) @ right
        total = total - term
    return total


def field_asymmetry(field: Callable[[Tensor], Tensor], point: Tensor, step: float = 1e-5) -> float:
    """How far a vector field on matrices is from being a gradient: ``||J - J^T|| / ||J||`` of its Jacobian ``J``.

    A field is the gradient of some function near a point only if its Jacobian is symmetric there. Zero where the
    Jacobian vanishes.

    Parameters
    ----------
    field : callable
        Takes and returns matrices ``(runs, d, d_in)``.
    point : Tensor of shape (d, d_in)
    step : float
        Of the central differences that give the Jacobian.

    Returns
    -------
    float
        Between 0 and 2.
    """
    directions = torch.eye(point.numel(), dtype=point.dtype).view(-1, *point.shape)
    slopes = (field(point + step * directions) - field(point - step * directions)) / (2 * step)
    jacobian = slopes.flatten(start_dim=1)
    size = float(jacobian.norm())
    return float((jacobian - jacobian.mT).norm()) / size if size else 0.0


def spread_matrix(shape: tuple[int, int], norm: float, seed: int) -> Tensor:
    """Random singular vectors and evenly spaced singular values ``k, k - 1, .., 1`` up to scale.

    Formulas with differences of singular values in a denominator are best judged where no difference is tiny.

    Parameters
    ----------
    shape : (d, d_in)
    norm : float
        Frobenius norm of the matrix.
    seed : int

    Returns
    -------
    Tensor of shape (d, d_in), float64
    """
    generator = torch.Generator().manual_seed(seed)
    left, values, right = torch.linalg.svd(
        torch.randn(*shape, generator=generator, dtype=torch.float64), full_matrices=False
    )
    values = torch.arange(len(values), 0, -1, dtype=torch.float64)
    result: Tensor = (left * (norm * values / values.norm())) @ right
    return result


@dataclass(frozen=True)
class SmoothPath:
    """The path ``A + B sin t + C cos 2t`` of random matrices: smooth, and the trajectory of nothing in particular.

    Attributes
    ----------
    shape : (d, d_in)
    seed : int
    """

    shape: tuple[int, int]
    seed: int

    def at(self, times: Tensor) -> Tensor:
        """Return matrices at `times`, ``(moments, d, d_in)``."""
        a, b, c = self._terms()
        t = times.view(-1, 1, 1)
        return a + b * torch.sin(t) + c * torch.cos(2 * t)

    def velocity(self, times: Tensor) -> Tensor:
        """Return the time derivatives at `times`, ``(moments, d, d_in)``."""
        _, b, c = self._terms()
        t = times.view(-1, 1, 1)
        return b * torch.cos(t) - 2 * c * torch.sin(2 * t)

    def _terms(self) -> tuple[Tensor, Tensor, Tensor]:
        large, middle, small = (spread_matrix(self.shape, n, self.seed + k) for k, n in enumerate((3.0, 0.3, 0.1)))
        return large, middle, small


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
        result: Tensor = rows @ matrix @ columns.mT
        return result

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
