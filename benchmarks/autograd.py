"""The reference: a stack of `nn.Linear`, automatic differentiation, and GroupRMSprop as an optimiser of PyTorch.

Training as it is usually written, with nothing of `dmfkit` in the loop, and the loss read at every step for the stop.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from dmfkit import Factorization, FullObservation
from dmfkit.problems.completion import Completion
from dmfkit.problems.losses import Problem


class LinearStack(nn.Module):
    """Factors ``W_1 .. W_N`` of one run as the weights of linear layers without bias."""

    def __init__(self, factors: Iterable[Tensor]) -> None:
        super().__init__()
        layers = []
        for factor in factors:
            layer = nn.Linear(factor.shape[1], factor.shape[0], bias=False, dtype=factor.dtype, device=factor.device)
            with torch.no_grad():
                layer.weight.copy_(factor)
            layers.append(layer)
        self.layers = nn.ModuleList(layers)
        self.weights = [layer.weight for layer in layers]

    def forward(self) -> Tensor:
        """Transposed product matrix, ``(d_in, d)``: each layer acts on the rows of what the layers before it gave."""
        rows = self.weights[0].T
        for layer in list(self.layers)[1:]:
            rows = layer(rows)
        return rows


class GroupRMSprop(torch.optim.Optimizer):
    """Step rule ``group_rmsprop`` of `dmfkit.Descent`: one running mean square, of the norm of the whole gradient.

    Parameters
    ----------
    parameters : iterable of Tensor
    lr : float
    decay : float
        Of the running mean square; its bias towards zero is corrected.
    floor : float
        Added to its root, by which `lr` is divided.
    """

    def __init__(self, parameters: Iterable[nn.Parameter], lr: float, decay: float = 0.99, floor: float = 1e-4) -> None:
        super().__init__(parameters, {"lr": lr, "decay": decay, "floor": floor})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Take one step, with the gradients that the last backward pass left."""
        loss = None if closure is None else closure()
        for group in self.param_groups:
            weights = [weight for weight in group["params"] if weight.grad is not None]
            memory: dict[str, Any] = self.state[weights[0]]
            square = sum(float(weight.grad.square().sum()) for weight in weights)
            memory["count"] = memory.get("count", 0) + 1
            memory["average"] = group["decay"] * memory.get("average", 0.0) + (1.0 - group["decay"]) * square
            root = (memory["average"] / (1.0 - group["decay"] ** memory["count"])) ** 0.5
            for weight in weights:
                weight.add_(weight.grad, alpha=-group["lr"] / (root + group["floor"]))
        return loss


def mean_square_loss(problem: Problem) -> Callable[[Tensor], Tensor]:
    """Mean squared residual as a function of the transposed product matrix; observed entries are picked by index."""
    if isinstance(problem, FullObservation):
        target = problem.values.T.contiguous()
        return lambda product: (product - target).square().mean()
    assert isinstance(problem, Completion)
    (rows, columns), seen = problem.observed.index, problem.observed.values
    return lambda product: (product[columns, rows] - seen).square().mean()


def train(
    problem: Problem,
    start: Factorization,
    lr: float,
    max_steps: int,
    stop: float = 0.0,
    limit_seconds: float = math.inf,
) -> tuple[list[Tensor], int, bool]:
    """Train one run on the mean squared residual until it is below `stop`.

    Returns
    -------
    tuple
        The factors, the steps taken, and whether the stop was reached.
    """
    model = LinearStack(factor[0] for factor in start.factors)
    optimiser = GroupRMSprop(model.parameters(), lr)
    loss_of = mean_square_loss(problem)
    began, steps, below = time.perf_counter(), 0, False
    while steps < max_steps and time.perf_counter() - began < limit_seconds:
        optimiser.zero_grad()
        loss = loss_of(model())
        below = loss.item() < stop
        if below:
            break
        loss.backward()
        optimiser.step()
        steps += 1
    return [weight.detach() for weight in model.weights], steps, below
