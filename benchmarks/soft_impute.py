"""Soft-impute (Mazumder, Hastie & Tibshirani 2010) for large matrices: sparse plus low rank, never formed.

No maintained package does this: `fancyimpute` takes a dense array, and the authors' own code is in R.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import scipy.sparse.linalg
import torch
from scipy.sparse import csr_array

from dmfkit.linalg.low_rank import LowRank
from dmfkit.linalg.sampled_products import entries
from dmfkit.problems.completion import Completion


def soft_impute(
    problem: Completion, max_rank: int, shares: tuple[float, ...], steps: int, tolerance: float
) -> Iterator[LowRank]:
    """Estimates along a path of falling thresholds, each begun at the one before.

    An estimate ``Z`` minimises ``0.5 sum_observed (Z - Phi)^2 + threshold ||Z||_*`` by repeating
    ``Z <- S(Z + observed part of (Phi - Z))``, with ``S`` lowering all singular values by the threshold.

    Parameters
    ----------
    problem : Completion
    max_rank : int
        Singular values computed in every step.
    shares : tuple of float
        Thresholds, over the largest singular value of the observed matrix.
    steps : int
        At most so many per threshold.
    tolerance : float
        Relative change of the residual's norm below which a threshold is done.
    """
    observed = problem.observed.sparse_matrix()
    values = problem.observed.values.numpy()
    first = np.random.default_rng(0).standard_normal(min(problem.shape))
    largest = scipy.sparse.linalg.svds(observed, k=1, v0=first, return_singular_vectors=False)[0]
    estimate = LowRank(torch.zeros(1, problem.shape[0], 1).double(), torch.zeros(1, problem.shape[1], 1).double())
    for share in shares:
        norm = np.inf
        for _ in range(steps):
            left, right = estimate.left[0], estimate.right[0]
            rest = values - entries(left, right, problem.observed.rows, problem.observed.columns).numpy()
            if abs(norm - (norm := float(np.linalg.norm(rest)))) < tolerance * norm:
                break
            sparse = csr_array((rest, observed.indices, observed.indptr), shape=problem.shape)
            u, s, vt = scipy.sparse.linalg.svds(_sum(sparse, left.numpy(), right.numpy()), k=max_rank, v0=first)
            kept = s > share * largest
            estimate = LowRank(*(torch.from_numpy(side)[None] for side in _shrunk(u, s, vt, kept, share * largest)))
        yield estimate


def _sum(sparse: csr_array, left: np.ndarray, right: np.ndarray) -> scipy.sparse.linalg.LinearOperator:
    """``sparse + left right^T`` as something to multiply by."""
    transposed = sparse.T
    return scipy.sparse.linalg.LinearOperator(
        sparse.shape,
        dtype=np.float64,
        matvec=lambda x: sparse @ x + left @ (right.T @ x),
        rmatvec=lambda x: transposed @ x + right @ (left.T @ x),
        matmat=lambda x: sparse @ x + left @ (right.T @ x),
        rmatmat=lambda x: transposed @ x + right @ (left.T @ x),
    )


def _shrunk(
    u: np.ndarray, s: np.ndarray, vt: np.ndarray, kept: np.ndarray, threshold: float
) -> tuple[np.ndarray, np.ndarray]:
    """Factors with lowered singular values; of width one, and zero, where none is left."""
    if not kept.any():
        return 0.0 * u[:, :1], np.ascontiguousarray(vt[:1].T)
    return u[:, kept] * (s[kept] - threshold), np.ascontiguousarray(vt[kept].T)
