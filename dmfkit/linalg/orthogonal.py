"""Orthogonal matrices of any size that are never formed: random signs and discrete cosine transforms.

Compression needs of the wide layers only what they do to thin matrices. A uniformly distributed orthogonal matrix takes
``d^2`` numbers and ``d^3`` operations to draw; ``C S_2 C S_1``, with ``C`` the orthonormal cosine transform and ``S_i``
diagonal matrices of independent random signs, takes ``2 d`` signs, and ``d log d`` operations for every column that it
is applied to. Like a uniform one it spreads every fixed vector evenly over all coordinates, but for a factor
``sqrt(log d)``.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

# One round leaves the transform of a vector that is itself a cosine of the transform in one place; two do not.
ROUNDS = 2


@dataclass(frozen=True, eq=False)
class FastOrthogonal:
    """``scale`` times the orthogonal matrix ``C S_2 C S_1``, or its transpose, as something to multiply by.

    Attributes
    ----------
    signs : Tensor of shape (ROUNDS, d)
        Diagonals of ``S_1, S_2``.
    scale : float
    transposed : bool
    """

    signs: Tensor
    scale: float = 1.0
    transposed: bool = False

    @property
    def mT(self) -> FastOrthogonal:
        """The transpose."""
        return replace(self, transposed=not self.transposed)

    def __matmul__(self, thin: Tensor) -> Tensor:
        """Product with matrices ``(..., d, k)``, computed on the CPU in their precision."""
        signs = self.signs.to("cpu", thin.dtype).unsqueeze(-1)
        done = thin.cpu()
        for sign in signs.flip(0) if self.transposed else signs:
            done = sign * _cosine(done, inverse=True) if self.transposed else _cosine(sign * done, inverse=False)
        return self.scale * done.to(thin.device)


@dataclass(frozen=True, eq=False)
class FastLayers:
    """Initial factors ``W_l(0) = sigma_l Q_l`` of a wide factorization, each a `FastOrthogonal`; one run.

    Attributes
    ----------
    factors : tuple of FastOrthogonal
    """

    factors: tuple[FastOrthogonal, ...]

    @property
    def n_runs(self) -> int:
        return 1

    @property
    def widths(self) -> tuple[int, ...]:
        """``(d, .., d)``."""
        return (self.factors[0].signs.shape[1],) * (len(self.factors) + 1)

    @property
    def scales(self) -> Tensor:
        """``sigma_l``, ``(1, L)``."""
        return torch.tensor([[factor.scale for factor in self.factors]], dtype=torch.float64)


def fast_layers(d: int, layer_scales: tuple[float, ...], seed: int) -> FastLayers:
    """Draw the signs of one layer per scale."""
    generator = torch.Generator().manual_seed(seed)
    bits = torch.randint(2, (len(layer_scales), ROUNDS, d), generator=generator)
    return FastLayers(
        tuple(FastOrthogonal(2.0 * one - 1.0, scale) for one, scale in zip(bits, layer_scales, strict=True))
    )


def _cosine(columns: Tensor, *, inverse: bool) -> Tensor:
    """Orthonormal cosine transform along the rows' index, or its inverse."""
    from scipy.fft import dct, idct  # takes a tenth of a second to load

    transform = idct if inverse else dct
    return torch.from_numpy(transform(columns.numpy(), norm="ortho", axis=-2))
