"""How long a small start of depth 3 waits before singular values grow, and what its width has to do with it.

While the product is small, training follows the constant gradient ``-M``. For ``M = s u v^T`` only three things count:
``a = W_1 v``, ``b = W_3^T u`` and ``W_2``, with ``a' = s W_2^T b``, ``b' = s W_2 a``, ``W_2' = s b a^T``. This flow
becomes infinite at a finite time, the escape. `escape_bounds` encloses it. `averaged` keeps all ``r`` directions of
the target, and the fit at the end, in a flow of matrices as small as the hidden layer.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from dmfkit.errors import InputError
from dmfkit.factorizations.factorization import Factorization
from dmfkit.factorizations.starts import InitialPoint
from dmfkit.linalg.spectra import leading_singular_vectors
from dmfkit.problems.completion import Completion
from dmfkit.problems.losses import full_observation
from dmfkit.theory.small_flows import integrate
from dmfkit.training.flow import Flow, gradient_flow

# Where ``||W_2||`` is this many times its initial value, the rest of the way to infinity takes no time worth counting.
BLOW_UP = 1e6


def escape_factor(overlap: ArrayLike) -> NDArray[np.float64]:
    """``h(x) = artanh(k) / k`` with ``k = sqrt(1 - x^2)``: the escape time in units of ``1 / (s sigma)``.

    1 at ``x = 1``, about ``log(2 / x)`` for small ``x``, infinite at 0.

    Parameters
    ----------
    overlap : array_like
        ``x``, between 0 and 1; rounding beyond 1 is forgiven.

    Returns
    -------
    ndarray shaped like `overlap`
    """
    x = np.asarray(overlap, dtype=float)
    k = np.sqrt(np.clip(1.0 - x**2, 0.0, 1.0))
    with np.errstate(divide="ignore", invalid="ignore"):
        # artanh(k) = log((1 + k) / x), without the cancellation in 1 - k.
        return np.where(k > 1e-4, np.log((1.0 + k) / x) / k, 1.0 + k**2 / 3.0)


def width_factor(width: ArrayLike, d: int) -> NDArray[np.float64]:
    """`escape_factor` of a typical semi-orthogonal start of hidden width `width`: overlap ``sqrt(width / (2 d))``."""
    return escape_factor(np.sqrt(np.asarray(width, dtype=float) / (2 * d)))


def escape_bounds(a: ArrayLike, b: ArrayLike, middle: ArrayLike, strength: float) -> tuple[float, float]:
    """Bounds on the escape time for one direction of strength `strength`.

    Parameters
    ----------
    a, b : array_like of shape (w,)
        ``W_1 v`` and ``W_3^T u``, none longer than ``sigma``. The upper bound holds if they are of one length.
    middle : array_like of shape (w, w)
        ``W_2 = sigma Q`` with orthogonal ``Q``.
    strength : float
        ``s``.

    Returns
    -------
    lower, upper : float
        ``h(max(|a|, |b|) / sigma) / (s sigma)`` and ``h(|a + Q^T b| / (2 sigma)) / (s sigma)``.
    """
    first, last, core = (np.asarray(value, dtype=float) for value in (a, b, middle))
    sigma = float(np.linalg.norm(core, 2))
    reach = max(np.linalg.norm(first), np.linalg.norm(last)) / sigma
    grown = np.linalg.norm(first + core.T @ last / sigma) / (2 * sigma)
    unit = 1.0 / (strength * sigma)
    return float(escape_factor(reach)) * unit, float(escape_factor(grown)) * unit


def escape_time(a: ArrayLike, b: ArrayLike, middle: ArrayLike, strength: float) -> float:
    """Escape time by integration of the flow, with the largest entries followed until they are `BLOW_UP` times larger.

    Parameters
    ----------
    a, b, middle, strength
        As in `escape_bounds`.

    Raises
    ------
    InputError
        If the start never escapes.
    """
    first, last, core = (np.asarray(value, dtype=float) for value in (a, b, middle))
    w, sigma = len(first), float(np.linalg.norm(core, 2))

    # In units of sigma and of 1 / (s sigma), and in a time that slows down as the solution grows.
    def slope(state: NDArray[np.float64]) -> NDArray[np.float64]:
        one, two, inner = state[:w], state[w : 2 * w], state[2 * w : -1].reshape(w, w)
        pace = 1.0 / math.sqrt(1.0 + float(state[:-1] @ state[:-1]) / w)
        return np.concatenate([inner.T @ two, inner @ one, np.outer(two, one).ravel(), [1.0]]) * pace

    def far(state: NDArray[np.float64]) -> float:
        return float(state[:w] @ state[:w]) - BLOW_UP**2

    start = np.concatenate([first / sigma, last / sigma, core.ravel() / sigma, [0.0]])
    run = integrate(slope, start, (0.0, 1e4), until=far, rtol=1e-10, atol=1e-12)
    if run.status != 1:
        raise InputError("this start never escapes: a and b must not vanish.")
    return float(run.y[-1, -1]) / (strength * sigma)


def averaged(problem: Completion, beginning: InitialPoint, rank: int) -> tuple[Factorization, Tensor]:
    """What a start has in the target's `rank` directions: ``W_1 V, W_2, .., U^T W_L``, and the target's values.

    Frames that move at a rate of their own are taken together with their neighbouring cores, as if they were fixed.

    Parameters
    ----------
    problem : Completion
        With a known ground truth ``U S V^T`` of rank `rank`.
    beginning : InitialPoint
        One run.
    rank : int

    Returns
    -------
    factorization : Factorization
        Widths ``(r, w, .., w, r)``.
    values : Tensor of shape (r,)
        ``S``.

    Raises
    ------
    InputError
        If the problem's ground truth is not known.
    """
    if problem.ground_truth is None:
        raise InputError("the averaged flow needs a problem whose ground truth is known.")
    left, values, right = leading_singular_vectors(problem.ground_truth, rank)
    factors = list(beginning.factorization.factors)
    if beginning.factor_rates:
        factors = [factors[1] @ factors[0], *factors[2:-2], factors[-1] @ factors[-2]]
    inner = [factors[0] @ right, *factors[1:-1], left.mT @ factors[-1]]
    return Factorization.from_factors([factor.contiguous() for factor in inner]), values


def averaged_flow_time(problem: Completion, beginning: InitialPoint, rank: int, tolerance: float) -> float:
    """Flow time to `tolerance`, predicted from the start, the target and the share of observed entries alone.

    The mask is replaced by its mean, the observed share ``p``, and the target's own directions are all that is kept:
    ``p / 2 ||W - Phi||_F^2`` on ``r x r`` matrices.

    Parameters
    ----------
    problem, beginning, rank
        As in `averaged`.
    tolerance : float
        Half the squared error on observed entries over the number of all entries, at which training ends.

    Returns
    -------
    float
        In the time of the flow on the half-sum loss.
    """
    factorization, values = averaged(problem, beginning, rank)
    share = problem.n_observations / problem.mask.numel()
    stop = tolerance * problem.mask.numel() / share
    method = Flow(rtol=1e-4, stop=stop, stop_normalisation="half_sum")
    run = gradient_flow(full_observation(torch.diag(values)), factorization, method)
    return float(run.time[0]) / share
