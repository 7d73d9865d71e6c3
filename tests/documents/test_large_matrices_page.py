"""The recipes for large matrices run as they stand, but for the size."""

from __future__ import annotations

from pathlib import Path

import torch
from documented_code import recipes

PAGE = Path(__file__).parents[2] / "book" / "large_matrices.md"


def test_the_sweep_recovers_held_out_entries():
    _, code = recipes(PAGE)["large"]
    smaller = code.replace("d=50_000", "d=400").replace("2_500_000", "20_000").replace("100_000", "1_000")
    assert smaller.count("d=400") == 1
    found = {}
    exec(smaller, found)
    runs = found["runs"]
    # The entries of a product of two 400 x 5 Gaussian factors have the root mean square sqrt(5).
    assert runs["final_held_out_rmse"].item() < 0.01
    assert runs["final_relative_error"].item() < 1e-4


def test_entries_of_ones_own_are_completed():
    _, code = recipes(PAGE)["own"]
    torch.manual_seed(0)
    found = {}
    exec(code, found)
    where = torch.arange(400)
    truth = torch.sin(where / 50)[:, None] * torch.cos(where / 70)
    completed = found["completed"]
    difference = completed.left[0] @ completed.right[0].T - truth
    assert difference.norm() < 1e-2 * truth.norm()
