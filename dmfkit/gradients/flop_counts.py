"""How many scalar multiplications one gradient takes: what the paper prints, what is right, and what our code does."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch.utils.flop_counter import FlopCounterMode

from dmfkit.gradients.entries import EntrywiseEvaluator
from dmfkit.gradients.tensors import Evaluator
from dmfkit.linalg.backend import BY_TORCH
from dmfkit.problems.completion import Completion
from dmfkit.problems.losses import Problem


def full_count(d: int, depth: int) -> int:
    """Multiplications of a gradient at full width: ``3 (L - 1)`` products of ``d x d`` matrices."""
    return 3 * (depth - 1) * d**3


def compressed_count(d: int, depth: int, rank_bound: int, residual_entries: int, *, cores_first: bool = False) -> int:
    """Multiplications of a gradient of Eq (8): ``6 r_hat m + 12 L r_hat^2 d``.

    The ``m = residual_entries`` entries of the residual take ``2 r_hat`` multiplications each, and so do its products
    with the two frames. Each of the ``L`` cores is multiplied with a ``2 r_hat x d`` matrix once on the way forward and
    twice on the way back. With `cores_first` they are multiplied with each other, and only their product with such a
    matrix: ``6 r_hat m + 12 r_hat^2 d + 24 (L - 1) r_hat^3``.
    """
    residual = 6 * rank_bound * residual_entries
    if cores_first:
        return residual + 12 * rank_bound**2 * d + 24 * (depth - 1) * rank_bound**3
    return residual + 12 * depth * rank_bound**2 * d


def printed_count(d: int, depth: int, rank_bound: int) -> int:
    """``r_hat^2 (L r_hat + d)``, as Section 3 of Yaras et al. (2023) prints it."""
    return rank_bound**2 * (depth * rank_bound + d)


def counted(problem: Problem, widths: tuple[int, ...]) -> int:
    """Multiplications in the matrix products that one evaluation really runs, counted as it runs."""
    state = torch.zeros(1, sum(a * b for a, b in pairwise(widths)), dtype=problem.dtype)
    evaluator = Evaluator(problem, widths, 1, products=BY_TORCH)  # whose products the counter sees
    with FlopCounterMode(display=False) as counter:
        evaluator.squares_and_gradient(state, torch.empty_like(state))
    result: int = counter.get_total_flops() // 2
    return result


def counted_entrywise(problem: Completion, widths: tuple[int, ...]) -> int:
    """The same for the evaluation entry by entry, with factors ``U``, ``V^T`` and cores between them.

    Its three passes over the entries take ``|Omega|`` times the inner width, and the product of the cores is multiplied
    with three matrices of ``U``'s shape.
    """
    state = torch.zeros(1, sum(a * b for a, b in pairwise(widths)), dtype=problem.dtype)
    evaluator = EntrywiseEvaluator(problem, widths, 1, products=BY_TORCH)
    with FlopCounterMode(display=False) as counter:
        evaluator.squares_and_gradient(state, torch.empty_like(state))
    # The counter does not see into the pass over the entries.
    uncounted = problem.n_observations * widths[1] + widths[-1] * widths[-2] * widths[1]
    result: int = counter.get_total_flops() // 2 + 3 * uncounted
    return result
