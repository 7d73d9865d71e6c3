"""The same training compiled by JAX, an optional package: one `fori_loop` around `jax.grad`, no test of the loss."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dmfkit import Factorization
from dmfkit.problems.losses import Problem

ABSENT = "JAX is not installed, so there are no rows of it: pip install jax to have them."


def available() -> bool:
    """Whether JAX can be imported."""
    return find_spec("jax") is not None


def trainer(
    problem: Problem,
    start: Factorization,
    lr: float,
    *,
    rule: str = "group_rmsprop",
    factor_rates: tuple[float, ...] = (),
) -> Callable[[int], list[Tensor]]:
    """Compile the training of all runs of `start`; what is returned takes a number of steps and gives the factors.

    Parameters
    ----------
    problem : Problem
        Completion or full observation.
    start : Factorization
        One run, or a batch, which `jax.vmap` trains together.
    lr : float
    rule : {"fixed", "group_rmsprop"}
    factor_rates : tuple of float
        Multipliers of `lr`, as in `dmfkit.Descent`.
    """
    import jax

    # Without it JAX computes in single precision whatever the arrays are.
    jax.config.update("jax_enable_x64", True)
    dtype = "float32" if problem.dtype == torch.float32 else "float64"
    values = jax.numpy.asarray(problem.observed_matrix(), dtype=dtype)
    mask = None if problem.mask is None else jax.numpy.asarray(problem.mask.numpy(), dtype=dtype)
    run = partial(_run, lr=lr, scale=problem.loss_scale(), rule=rule, rates=factor_rates or (1.0,) * start.depth)
    alone = start.n_runs == 1
    shared = (None, None, None)
    compiled = jax.jit(run if alone else jax.vmap(run, in_axes=(0, *shared)))
    factors = [jax.numpy.asarray((factor[0] if alone else factor).numpy(), dtype=dtype) for factor in start.factors]

    def train(steps: int) -> list[Tensor]:
        found = jax.block_until_ready(compiled(factors, values, mask, steps))
        return [
            torch.from_numpy(jax.device_get(factor).copy()).reshape(start.n_runs, *factor.shape[-2:])
            for factor in found
        ]

    return train


def multiplier(left: np.ndarray, right: np.ndarray) -> Callable[[int], object]:
    """Compile repeated multiplication by `right`; what is returned takes the number of products."""
    import jax

    jax.config.update("jax_enable_x64", True)
    compiled = jax.jit(lambda one, two, steps: jax.lax.fori_loop(0, steps, lambda _, product: product @ two, one))
    return lambda steps: jax.block_until_ready(compiled(left, right, steps))


def _run(
    factors: list[Any],
    values: Any,
    mask: Any,
    steps: Any,
    *,
    lr: float,
    scale: float,
    rule: str,
    rates: tuple[float, ...],
    decay: float = 0.99,
    floor: float = 1e-4,
) -> list[Any]:
    import jax
    from jax import numpy as jnp

    def loss(weights: list[Any]) -> Any:
        product = weights[0]
        for weight in weights[1:]:
            product = weight @ product
        residual = product - values if mask is None else (product - values) * mask
        return scale * jnp.sum(residual**2)

    def step(number: Any, carry: tuple[list[Any], Any]) -> tuple[list[Any], Any]:
        weights, average = carry
        slopes = jax.grad(loss)(weights)
        size: Any = lr
        if rule == "group_rmsprop":
            average = decay * average + (1.0 - decay) * sum(jnp.sum(slope**2) for slope in slopes)
            size = lr / (jnp.sqrt(average / (1.0 - decay ** (number + 1.0))) + floor)
        moved = [weight - (rate * size) * slope for weight, slope, rate in zip(weights, slopes, rates, strict=True)]
        return moved, average

    result: list[Any] = jax.lax.fori_loop(0, steps, step, (factors, jnp.zeros((), values.dtype)))[0]
    return result
