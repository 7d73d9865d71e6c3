"""Where training starts: Gaussian, identity, orthogonal and balanced factors.

Every initialiser takes `init_scale`, the Frobenius norm of the product matrix ``W(0)`` (for the Gaussian one: its
root mean square), one value a run, and one seed a run. A run's random numbers depend on its own seed and on the widths
alone, so it starts from the same factors on every device, in every batch and, up to scale, for every `init_scale`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Literal, get_args

import torch
from torch import Tensor

from dmfkit.errors import InputError
from dmfkit.factorizations.factorization import Factorization, check_widths, gaussian_std

Initialisation = Literal["gaussian", "identity", "orthogonal", "balanced"]


def initialise(
    kind: Initialisation,
    widths: tuple[int, ...],
    init_scale: Sequence[float],
    seed: Sequence[int],
    *,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float64,
) -> Factorization:
    """Initial factorizations of the product norms `init_scale` with the given seeds.

    Parameters
    ----------
    kind : {"gaussian", "identity", "orthogonal", "balanced"}
        ``gaussian``: i.i.d. entries, ``E ||W(0)||_F^2 = init_scale^2``. ``identity``: every factor is a multiple of the
        (rectangular) identity, as in the released code's experiment on dynamics. ``orthogonal``: every factor is a
        multiple of a random matrix with orthonormal rows or columns. ``balanced``: a Gaussian product matrix split by
        its singular value decomposition into factors with ``W_{j+1}^T W_{j+1} = W_j W_j^T`` (Eq 5 of Arora et al.).
    widths : tuple of int
        ``(d_0, .., d_N)``.
    init_scale, seed : sequences of equal length
        One entry a run.

    Raises
    ------
    InputError
        For an unknown kind, a scale that is not positive and finite, lengths that differ, or a hidden width too small
        to hold a balanced start.
    """
    check_widths(widths)
    if kind not in get_args(Initialisation):
        raise InputError(f"init = {kind!r} is not allowed: choose one of {', '.join(get_args(Initialisation))}.")
    if len(init_scale) != len(seed) or not seed:
        raise InputError(
            f"{len(init_scale)} initial scales and {len(seed)} seeds were given: give one of each per run."
        )
    for value in init_scale:
        if not (math.isfinite(value) and value > 0):
            raise InputError(f"init_scale = {value} is not allowed: it must be a positive finite number, such as 1e-3.")
    runs = [_START[kind](widths, one, number) for one, number in zip(init_scale, seed, strict=True)]
    factors = [torch.stack(parts) for parts in zip(*runs, strict=True)]
    return Factorization.from_factors([factor.to(device, dtype) for factor in factors])


def _normal(rows: int, columns: int, generator: torch.Generator) -> Tensor:
    return torch.randn(rows, columns, generator=generator, dtype=torch.float64)


def _gaussian(widths: tuple[int, ...], init_scale: float, seed: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    std = gaussian_std(widths, init_scale)
    return [std * _normal(rows, columns, generator) for columns, rows in pairwise(widths)]


def _identity(widths: tuple[int, ...], init_scale: float, seed: int) -> list[Tensor]:  # noqa: ARG001
    # The product is a * I restricted to the narrowest width, whose Frobenius norm is a * sqrt(narrowest).
    scale = (init_scale / math.sqrt(min(widths))) ** (1.0 / (len(widths) - 1))
    return [scale * torch.eye(rows, columns, dtype=torch.float64) for columns, rows in pairwise(widths)]


def orthogonal_factors(widths: tuple[int, ...], seed: int) -> list[Tensor]:
    """Random matrices ``d_j x d_{j-1}`` with orthonormal rows or columns, uniformly distributed; float64 on the CPU."""
    generator = torch.Generator().manual_seed(seed)
    factors = []
    for columns, rows in pairwise(widths):
        basis, triangle = torch.linalg.qr(_normal(max(rows, columns), min(rows, columns), generator))
        basis = basis * triangle.diagonal().sign()  # makes the distribution uniform over orthonormal frames
        factors.append(basis if rows >= columns else basis.mT.contiguous())
    return factors


def _orthogonal(widths: tuple[int, ...], init_scale: float, seed: int) -> list[Tensor]:
    factors = orthogonal_factors(widths, seed)
    product = factors[0]
    for factor in factors[1:]:
        product = factor @ product
    # Equal to sqrt(min(widths)) when all widths agree; measured, because narrow inner widths lose part of the norm.
    scale = (init_scale / torch.linalg.matrix_norm(product).item()) ** (1.0 / len(factors))
    return [scale * factor for factor in factors]


def _balanced(widths: tuple[int, ...], init_scale: float, seed: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    depth = len(widths) - 1
    size = min(widths[0], widths[-1])
    if min(widths) < size:
        raise InputError(
            f"widths {widths} are too narrow for a balanced start: every hidden width must be at least {size}."
        )
    product = _normal(widths[-1], widths[0], generator)
    product *= init_scale / torch.linalg.matrix_norm(product)
    left, values, right = torch.linalg.svd(product, full_matrices=False)
    root = values ** (1.0 / depth)
    # Between neighbours stands a frame with orthonormal columns; W_j = Q_j root Q_{j-1}^T with Q_0 = V and Q_N = U.
    frames = [right.mT]
    frames += [torch.linalg.qr(_normal(width, size, generator))[0] for width in widths[1:-1]]
    frames.append(left)
    return [(outer * root) @ inner.mT for inner, outer in pairwise(frames)]


_START = {"gaussian": _gaussian, "identity": _identity, "orthogonal": _orthogonal, "balanced": _balanced}
