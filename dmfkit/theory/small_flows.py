"""Gradient flow of small factorizations, nearly as accurate as double precision allows.

The chapters hold formulas against these trajectories to ten digits, so SciPy's integrators run here at tolerances near
rounding, on one factorization of a handful of rows at a time. `dmfkit.gradient_flow`, which is made for many and large
runs, is itself checked against them: nothing of `dmfkit.training` is used.

All flows of factors have one right-hand side, Eq (4) of Arora et al. (2019), `factor_gradients`; one integrator,
`integrate`; and one kind of result, `Path`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import reduce
from itertools import accumulate, pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from scipy.integrate import solve_ivp
from torch import Tensor

from dmfkit.errors import InputError, SolverError
from dmfkit.factorizations.factorization import Factorization
from dmfkit.linalg.svd_paths import SignedSVD, SVDVelocity, svd_differences, track_svd
from dmfkit.theory.end_to_end import balanced_factorization, product_velocity

Array = NDArray[np.float64]
Gradient = Callable[[Tensor], Tensor]

# `accurate_flow` goes on a little beyond its horizon, so that central differences can be taken there.
MARGIN = 0.02


@dataclass(frozen=True, eq=False)
class Path:
    """A trajectory of gradient flow in all factors, which can be asked for any time.

    Attributes
    ----------
    gradient_of : callable
        Gradient of the loss in the product matrix: takes and returns Tensors ``(moments, d, d_in)``.
    widths : tuple of int
        Of the factors, see `Factorization`.
    times : ndarray, shape (moments,)
        Those that were asked for, or else where the integrator's own steps end.
    states : ndarray, shape (moments, n_parameters)
        The factors at `times`, laid out as in ``Factorization.state``.
    integrals : ndarray, shape (moments, m)
        Residuals ``A(W) - y`` integrated from 0 to `times`; ``m = 0`` where they were not asked for.
    interpolant : callable
        Takes times ``(moments,)`` and returns an array whose first ``n_parameters`` rows are the states there.
    """

    gradient_of: Gradient
    widths: tuple[int, ...]
    times: Array
    states: Array
    integrals: Array
    interpolant: Callable[[Array], Array]

    @property
    def depth(self) -> int:
        """Number ``N`` of factors."""
        return len(self.widths) - 1

    @property
    def factors(self) -> tuple[Array, ...]:
        """``W_1 .. W_N`` at `times`, each ``(moments, d_j, d_{j-1})``."""
        return _split(self.states, self.widths)

    @property
    def products(self) -> Array:
        """The ``W_N .. W_1`` at `times`, ``(moments, d, d_in)``."""
        return product(self.factors)

    @property
    def velocity(self) -> Array:
        """Time derivatives of `products` by the product rule, from those of the factors: no balancedness is used."""
        made = Factorization(torch.from_numpy(self.states), self.widths)
        return _product_velocity(made, self.gradient_of(made.end_to_end())).numpy()

    def state_at(self, times: ArrayLike) -> Array:
        """States at any `times` ``(moments,)`` between the ends, ``(moments, n_parameters)``."""
        found = self.interpolant(np.asarray(times, dtype=np.float64))
        return found[: self.states.shape[1]].T.copy()

    def factorization(self, times: Tensor) -> Factorization:
        """Factors at any `times` ``(moments,)``, one run a moment."""
        return Factorization(torch.from_numpy(self.state_at(times.numpy())), self.widths)

    def end_to_end(self, times: Tensor) -> Tensor:
        """Product matrices at any `times` ``(moments,)``, of shape ``(moments, d, d_in)``."""
        return self.factorization(times).end_to_end()

    def sample(self, times: Tensor, signs: Tensor | None = None) -> FlowSample:
        """Decomposition, gradient and velocity at `times` ``(moments,)``; `signs` as in `track_svd`."""
        made = self.factorization(times)
        gradient = self.gradient_of(made.end_to_end())
        svd = track_svd(self.end_to_end, times, signs)
        return FlowSample(self, times, svd, gradient, _product_velocity(made, gradient))


@dataclass(frozen=True)
class FlowSample:
    """A gradient flow at a few times, with all that the formulas about it are compared with.

    Attributes
    ----------
    path : Path
    times : Tensor of shape (moments,)
    svd : SignedSVD
        Followed along the path.
    gradient : Tensor of shape (moments, d, d_in)
        Gradient of the loss at the product matrices.
    velocity : Tensor of shape (moments, d, d_in)
        ``dW/dt`` from the velocities of the factors, by the product rule: no balancedness is used.
    """

    path: Path
    times: Tensor
    svd: SignedSVD
    gradient: Tensor
    velocity: Tensor

    @property
    def depth(self) -> int:
        """Number ``N`` of factors."""
        return self.path.depth

    def differences(self, step: float) -> SVDVelocity:
        """Central differences of the followed decomposition, `step` to either side."""
        return svd_differences(self.path.end_to_end, self.svd, self.times, step)


def product(factors: Sequence[Array]) -> Array:
    """W_N ... W_1 of factors ``(..., d_j, d_{j-1})``, W_1 first."""
    return reduce(lambda before, factor: factor @ before, factors)


def factor_gradients(factors: Sequence[Array], gradient_of: Callable[[Array], Array]) -> list[Array]:
    """Gradients in the factors of a loss of their product, Eq (4) of Arora et al. (2019).

    The same as `Factorization.pull_back`, for one factorization in NumPy: on matrices of a few rows NumPy spends a
    fraction of PyTorch's time on each product, and this function is nearly all that the flows here do.

    Parameters
    ----------
    factors : sequence of ndarray, each (d_j, d_{j-1})
        ``W_1 .. W_N``.
    gradient_of : callable
        Gradient in the product matrix, ``(d, d_in)`` to ``(d, d_in)``.

    Returns
    -------
    list of ndarray
        ``(W_N .. W_{j+1})^T gradient (W_{j-1} .. W_1)^T`` for ``j = 1 .. N``, shaped like the factors.
    """
    products = list(accumulate(factors, lambda before, factor: factor @ before))  # W_1, W_2 W_1, ..
    passed, gradients = gradient_of(products[-1]), []
    for number in range(len(factors) - 1, 0, -1):
        gradients.append(passed @ products[number - 1].T)
        passed = factors[number].T @ passed
    return [passed, *reversed(gradients)]


def integrate(
    velocity: Callable[[Array], Array],
    start: Array,
    span: tuple[float, float],
    *,
    until: Callable[[Array], float] | None = None,
    method: str = "DOP853",
    **options: Any,
) -> Any:
    """Integrate an equation ``state' = velocity(state)`` by SciPy, with an interpolant over the whole time.

    Parameters
    ----------
    velocity : callable
        ``(n,)`` to ``(n,)``.
    start : ndarray, shape (n,)
    span : tuple of float
        First and last time.
    until : callable, optional
        Of a state; the integration ends early where it becomes zero.
    method : str
        Of `scipy.integrate.solve_ivp`. The default is an explicit Runge-Kutta method of order 8.
    **options
        Of `scipy.integrate.solve_ivp`: its tolerances, ``t_eval``, ``max_step``.

    Returns
    -------
    OdeResult
        SciPy's. Where `until` is given, its status tells how the integration ended: 1 at the zero, 0 at the last time,
        -1 where no step was small enough.

    Raises
    ------
    SolverError
        If no step is small enough and there is no `until`.
    """
    events = None
    if until is not None:

        def events(_: float, state: Array) -> float:
            return until(state)

        events.terminal = True  # type: ignore[attr-defined]
    found = solve_ivp(
        lambda _, state: velocity(state), span, start, method, events=events, dense_output=True, **options
    )
    if found.status < 0 and until is None:
        raise SolverError(f"the flow could not be integrated to time {span[1]:.6g}: {found.message}")
    return found


def integrate_path(
    gradient_of: Callable[[Array], Array],
    factors: Sequence[Array],
    horizon: float,
    *,
    residual_of: Callable[[Array], Array] | None = None,
    until: Callable[[Array], float] | None = None,
    tensor_gradient: Gradient | None = None,
    **options: Any,
) -> tuple[Path, int]:
    """Integrate gradient flow in all factors from time 0.

    Parameters
    ----------
    gradient_of : callable
        Gradient of the loss in the product matrix, ndarrays ``(d, d_in)`` to the same shape.
    factors : sequence of ndarray, each (d_j, d_{j-1})
        ``W_1 .. W_N`` at the start.
    horizon : float
        Last time.
    residual_of : callable, optional
        Of the product matrix, ``(d, d_in)`` to ``(m,)``: what `Path.integrals` are the integrals of.
    until : callable, optional
        Of the product matrix; the flow ends early where it becomes zero.
    tensor_gradient : callable, optional
        `gradient_of` for Tensors ``(moments, d, d_in)``, where there is one; it is made otherwise.
    **options
        As in `integrate`.

    Returns
    -------
    path : Path
    status : int
        SciPy's, see `integrate`.

    Raises
    ------
    SolverError
        As in `integrate`.
    """
    widths = (factors[0].shape[1], *(factor.shape[0] for factor in factors))
    size = sum(factor.size for factor in factors)

    def velocity(state: Array) -> Array:
        now = _split(state, widths)
        parts = [-part.ravel() for part in factor_gradients(now, gradient_of)]
        return np.concatenate(parts if residual_of is None else [*parts, residual_of(product(now))])

    start = np.concatenate([factor.ravel() for factor in factors])
    if residual_of is not None:
        start = np.append(start, np.zeros_like(residual_of(product(factors))))
    stop = None if until is None else lambda state: until(product(_split(state, widths)))
    found = integrate(velocity, start, (0.0, horizon), until=stop, **options)
    states, integrals = found.y[:size].T.copy(), found.y[size:].T.copy()
    if tensor_gradient is None:

        def tensor_gradient(end_to_end: Tensor) -> Tensor:
            return torch.from_numpy(np.stack([gradient_of(one) for one in end_to_end.numpy()]))

    return Path(tensor_gradient, widths, found.t, states, integrals, found.sol), found.status


def _product_velocity(factorization: Factorization, gradient: Tensor) -> Tensor:
    return product_velocity(factorization, [-part for part in factorization.pull_back(gradient)])


def _split(state: Array, widths: tuple[int, ...]) -> tuple[Array, ...]:
    """Views ``(..., d_j, d_{j-1})`` of the factors into states ``(..., n)``; what lies behind them is left out."""
    ends = np.cumsum([rows * columns for columns, rows in pairwise(widths)])
    blocks = np.split(state, ends, axis=-1)
    shapes = [(*state.shape[:-1], rows, columns) for columns, rows in pairwise(widths)]
    return tuple(block.reshape(shape) for block, shape in zip(blocks, shapes, strict=False))


def accurate_flow(gradient_of: Gradient, start: Factorization, horizon: float, rtol: float = 1e-12) -> Path:
    """Integrate gradient flow, Eq (4) of Arora et al. (2019), on any loss of the product.

    Parameters
    ----------
    gradient_of : callable
        Gradient of the loss in the product matrix, Tensors ``(moments, d, d_in)`` to the same shape.
    start : Factorization
        One run. Meant for matrices of a few rows; `dmfkit.gradient_flow` is the solver for large ones.
    horizon : float
        Time up to which the path is wanted; it is known for `MARGIN` longer.
    rtol : float
        Error allowed in one step, relative to each entry.

    Raises
    ------
    InputError
        If there is more than one run, or the factors run off before `horizon`.
    """
    if start.n_runs != 1:
        raise InputError(f"{start.n_runs} runs were given: give one at a time.")
    try:
        path, _ = integrate_path(
            lambda end_to_end: gradient_of(torch.from_numpy(end_to_end)[None])[0].numpy(),
            [factor[0].numpy() for factor in start.factors],
            horizon + MARGIN,
            tensor_gradient=gradient_of,
            rtol=rtol,
            atol=1e-2 * rtol,
            # The interpolant between steps is of lower order than the steps, so these are kept short.
            max_step=horizon / 50,
        )
    except SolverError as error:
        raise InputError(
            f"gradient flow could not be followed to time {horizon:.6g}: choose an earlier horizon."
        ) from error
    return path


def flow_toward(target: Tensor, start: Tensor, depth: int, horizon: float, rtol: float = 1e-12) -> Path:
    """Integrate the flow on ``||W - target||_F^2 / 2`` from balanced factors of `start`, both ``(d, d_in)``."""
    return accurate_flow(
        lambda end_to_end: end_to_end - target, balanced_factorization(start[None], depth), horizon, rtol
    )
