"""Groups of entries of the rotated gradient: they share out the whole of its norm, each entry to one group."""

import numpy as np
import pytest
import torch

from dmfkit.factorizations.factorization import Factorization
from dmfkit.problems.losses import FullObservation
from dmfkit.training.recorders import GROUPS, Alignment, AlignmentGroups, Snapshot


def snapshot(shape=(5, 7)):
    generator = torch.Generator().manual_seed(0)
    target, product = (torch.randn(1, *shape, generator=generator, dtype=torch.float64) for _ in range(2))
    return Snapshot(FullObservation("half_sum", None, target[0]), Factorization.from_factors([product]))


@pytest.mark.parametrize("rank", [1, 2, 5])
def test_groups_are_sums_over_entries_counted_one_by_one(rank):
    one = snapshot()
    left, _, right = np.linalg.svd(one.end_to_end[0].numpy(), full_matrices=False)
    rotated = left.T @ one.problem.gradient(one.end_to_end)[0].numpy() @ right.T
    groups = {name: [] for name in GROUPS}
    for i in range(5):
        for j in range(5):
            inside = (i < rank) + (j < rank)
            where = (2 - inside) // 2 if i == j else 4 - inside  # 0 or 1 on the diagonal; 2, 3, 4 off it
            groups[GROUPS[where]].append(abs(rotated[i, j]))
    found = AlignmentGroups(rank)(one)
    total = (rotated**2).sum()
    shares = [sum(value**2 for value in entries) / total for entries in groups.values()]
    assert np.allclose(found["group_share"][0], shares)
    assert np.allclose(found["group_mean"][0], [np.mean(entries) if entries else 0.0 for entries in groups.values()])


def test_what_lies_off_the_diagonal_agrees_with_the_record_of_alignment():
    one = snapshot((6, 6))
    off = AlignmentGroups(2)(one)["group_share"][0, 2:].sum().sqrt()
    assert float(off) == pytest.approx(float(Alignment()(one)["alignment_off_share"][0]))
