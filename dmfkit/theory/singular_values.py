"""How fast singular values move under gradient flow of balanced factors: Theorem 3 of Arora et al. (2019)."""

from __future__ import annotations

from torch import Tensor

from dmfkit.linalg.svd_paths import SignedSVD


def depth_factor(values: Tensor, depth: int) -> Tensor:
    """Return ``N (sigma^2)^{1 - 1/N}``: all that depth does to the speed of a singular value (Eq 7).

    Equal to 1 at depth 1, for zero values too.
    """
    return depth * (values.square()) ** (1.0 - 1.0 / depth)


def singular_value_velocity(svd: SignedSVD, gradient: Tensor, depth: int) -> Tensor:
    """Velocity of every signed singular value, Eq (7) of Arora et al. (2019).

    Parameters
    ----------
    svd : SignedSVD
        Of the product matrices, ``k`` singular values each.
    gradient : Tensor of shape (..., d, d_in)
        Gradient of the loss there.
    depth : int
        ``N``.

    Returns
    -------
    Tensor of shape (..., k)
        ``- N (sigma_r^2)^{1 - 1/N} u_r^T gradient v_r``.
    """
    return -depth_factor(svd.values, depth) * svd.rotate(gradient).diagonal(dim1=-2, dim2=-1)
