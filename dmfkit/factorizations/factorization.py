"""Deep matrix factorizations ``W = W_N ... W_1`` (Eq 1 of Arora et al. 2019), many runs at once.

The factors of one run lie behind each other in one row of a matrix, so that an integrator can treat a batch of
factorizations as a batch of vectors, while every factor stays a view that matrix products take without a copy.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import torch
from torch import Tensor

from dmfkit.errors import InputError
from dmfkit.linalg.low_rank import LowRank

# Beyond this each full-width factor takes more than 3 GB, and nothing that is trained at full width fits a laptop.
LARGEST_FULL_WIDTH = 20_000


def split_factors(state: Tensor, widths: tuple[int, ...]) -> tuple[Tensor, ...]:
    """Views ``W_1 .. W_N`` of shapes ``(runs, d_j, d_{j-1})`` into `state` of shape ``(runs, n_parameters)``."""
    sizes = [rows * columns for columns, rows in pairwise(widths)]
    blocks = state.split(sizes, dim=1)
    return tuple(block.view(-1, rows, columns) for block, (columns, rows) in zip(blocks, pairwise(widths), strict=True))


@dataclass(frozen=True)
class Factorization:
    """A batch of deep matrix factorizations of one shape.

    Attributes
    ----------
    state : Tensor of shape (runs, n_parameters)
        The entries of ``W_1``, then of ``W_2``, and so on, each row by row.
    widths : tuple of int
        ``(d_0, d_1, .., d_N)``: factor ``W_j`` is ``d_j x d_{j-1}``, and the product is ``d_N x d_0``.
    """

    state: Tensor
    widths: tuple[int, ...]

    def __post_init__(self) -> None:
        check_widths(self.widths)
        expected = sum(rows * columns for columns, rows in pairwise(self.widths))
        if self.state.ndim != 2 or self.state.shape[1] != expected:
            raise InputError(
                f"state has shape {tuple(self.state.shape)}, but widths {self.widths} need (runs, {expected})."
            )

    @classmethod
    def from_factors(cls, factors: Sequence[Tensor]) -> Factorization:
        """Collect factors ``W_1 .. W_N`` of shapes ``(runs, d_j, d_{j-1})``.

        Raises
        ------
        InputError
            If there is no factor or if neighbouring shapes do not fit.
        """
        if not factors:
            raise InputError("factors is empty: a factorization needs at least one factor.")
        for number, (right, left) in enumerate(pairwise(factors), start=1):
            if left.shape[-1] != right.shape[-2]:
                raise InputError(
                    f"factors {number + 1} and {number} do not fit: "
                    f"{tuple(left.shape[-2:])} times {tuple(right.shape[-2:])}."
                )
        widths = (factors[0].shape[-1], *(factor.shape[-2] for factor in factors))
        return cls(torch.cat([factor.flatten(start_dim=1) for factor in factors], dim=1), widths)

    @cached_property
    def factors(self) -> tuple[Tensor, ...]:
        """Views ``(W_1, .., W_N)``, each ``(runs, d_j, d_{j-1})``."""
        return split_factors(self.state, self.widths)

    @property
    def depth(self) -> int:
        """Number ``N`` of factors."""
        return len(self.widths) - 1

    @property
    def n_runs(self) -> int:
        """Number of factorizations in the batch."""
        return self.state.shape[0]

    @property
    def shape(self) -> tuple[int, int]:
        """Shape ``(d, d_in)`` of the product matrix."""
        return (self.widths[-1], self.widths[0])

    def end_to_end(self) -> Tensor:
        """Product matrices ``W_N ... W_1``, ``(runs, d, d_in)``, in memory of their own."""
        product = self.factors[0].clone()
        for factor in self.factors[1:]:
            product = factor @ product
        return product

    def low_rank(self) -> LowRank:
        """The product matrices, split before the last factor; depth 2 or more."""
        *first, last = self.factors
        inner = first[0]
        for factor in first[1:]:
            inner = factor @ inner
        return LowRank(last, inner.mT)

    def pull_back(self, gradient: Tensor) -> tuple[Tensor, ...]:
        """Gradients in the factors of a loss of the product matrix, Eq (4) of Arora et al. (2019).

        Parameters
        ----------
        gradient : Tensor of shape (runs, d, d_in)
            Gradient of the loss in the product matrix.

        Returns
        -------
        tuple of Tensor
            ``(W_N .. W_{j+1})^T gradient (W_{j-1} .. W_1)^T`` for ``j = 1 .. N``, shaped like the factors.
        """
        after = [gradient]  # after[k] = (W_N .. W_{N-k+1})^T gradient
        for factor in reversed(self.factors[1:]):
            after.append(factor.mT @ after[-1])
        before: Tensor | None = None
        pulled = []
        for factor, part in zip(self.factors, reversed(after), strict=True):
            pulled.append(part if before is None else part @ before.mT)
            before = factor if before is None else factor @ before
        return tuple(pulled)

    def imbalance(self) -> Tensor:
        """Frobenius norms of ``W_{j+1}^T W_{j+1} - W_j W_j^T`` (Eq 5 of Arora et al.), ``(runs, N - 1)``."""
        gaps = [left.mT @ left - right @ right.mT for right, left in pairwise(self.factors)]
        norms = [torch.linalg.matrix_norm(gap) for gap in gaps]
        return torch.stack(norms, dim=1) if norms else self.state.new_zeros(self.n_runs, 0)


def check_widths(widths: tuple[int, ...]) -> None:
    """Raise `InputError` unless `widths` describes at least one factor with positive sides."""
    if len(widths) < 2:
        raise InputError(f"depth {len(widths) - 1} is not allowed: a factorization has at least 1 factor.")
    if min(widths) < 1:
        raise InputError(f"widths {widths} are not allowed: every width must be at least 1.")


def full_widths(shape: tuple[int, int], depth: int, hidden_width: int | None = None) -> tuple[int, ...]:
    """Widths ``(d_in, h, .., h, d)`` of a depth-`depth` factorization of a ``(d, d_in)`` matrix.

    `hidden_width` defaults to ``min(shape)``, the least that does not limit the rank of the product.

    Raises
    ------
    InputError
        If the depth or the hidden width is below 1, or full width would fill the memory.
    """
    if depth < 1:
        raise InputError(f"depth = {depth} is not allowed: a factorization has at least 1 factor.")
    if hidden_width is None and min(shape) > LARGEST_FULL_WIDTH:
        raise InputError(
            f"full width is not allowed for a {shape[0]} x {shape[1]} matrix: every factor would take "
            f"{8e-9 * min(shape) ** 2:.0f} GB, so give a hidden_width, or a CompressedStart with orthogonal='cosine'."
        )
    hidden = min(shape) if hidden_width is None else hidden_width
    widths = (shape[1], *([hidden] * (depth - 1)), shape[0])
    check_widths(widths)
    return widths


def gaussian_std(widths: tuple[int, ...], init_scale: float) -> float:
    """Standard deviation of i.i.d. Gaussian entries for which ``E ||W_N .. W_1||_F^2 = init_scale^2``.

    For independent centred factors the expectation is ``std^(2N) d_0 d_1 .. d_N``; with all widths ``d`` this is the
    ``(init_scale / d^((N+1)/2))^(1/N)`` of Arora et al. (2019), Appendix D.2.
    """
    result: float = (init_scale / math.sqrt(math.prod(widths))) ** (1.0 / (len(widths) - 1))
    return result
