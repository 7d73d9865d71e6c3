"""Small problems that several tests share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from processes import interruptible

from dmfkit import (
    Completion,
    CompletionTask,
    Factorization,
    initialise,
    matrix_completion,
    random_low_rank,
)
from dmfkit.experiments.store import read

pytest_plugins = ["browser"]

RESULTS = Path(__file__).parents[1] / "notebooks" / "results"
FIGURE_1_RESULTS = {"descent": "fig1-descent", "flow": "fig1-flow", "convex": "fig2-nuclear"}


@pytest.fixture(scope="session", autouse=True)
def _interrupts_are_not_ignored():
    """Tests interrupt themselves and what they start, and in the background all would inherit that it is ignored."""
    with interruptible():
        yield


@pytest.fixture
def small_completion() -> Completion:
    """Rank 2, 8 x 8, 45 of 64 entries: quickly solved, not trivially."""
    return matrix_completion(random_low_rank((8, 8), 2, seed=3), 45, seed=3)


@pytest.fixture
def small_start() -> Factorization:
    """Depth 3, two runs, not balanced and not small, so that every term of the dynamics matters."""
    return initialise("gaussian", (8, 8, 8, 8), [0.5, 0.8], [0, 1])


@pytest.fixture
def threads():
    """Set the number of PyTorch's threads, and set it back."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def figure_1_runs() -> dict[str, Any]:
    """The stored runs at the paper's settings, as chapter 3 gives them to its explorable."""
    # The names of other results begin alike; a key has twelve digits.
    names = {key: f"{name}-{'[0-9a-f]' * 12}.nc" for key, name in FIGURE_1_RESULTS.items()}
    stored = {key: read(path) for key, pattern in names.items() for path in RESULTS.glob(pattern)}
    truth = CompletionTask(d=100, rank=5, n_observed=2000, data_seed=0).ground_truth().numpy()
    return stored | {"truth": truth, "rank": 5, "stop": 1e-6}
