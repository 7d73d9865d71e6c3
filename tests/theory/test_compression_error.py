"""The comparison of a pair of trainings finds what is planted in it."""

import torch

from dmfkit import completed_frames, compress, expand, invariant_frames
from dmfkit.factorizations.starts import OrthogonalStart
from dmfkit.problems.tasks import FullObservationTask
from dmfkit.theory import compression_check

SCALES = (0.4, 0.9, 1.1)


def pair():
    """A pair that satisfies Theorem 1 exactly at one moment, with blocks that no training made."""
    problem = FullObservationTask(d=12, rank=2, target="truncated").problem()
    start = OrthogonalStart(3, SCALES, 1).full(problem)
    frames = invariant_frames(start, problem.values, 2)
    cores = compress(start, frames)
    generator = torch.Generator().manual_seed(0)
    cores.state.add_(torch.randn(cores.state.shape, generator=generator, dtype=torch.float64))
    rho = torch.tensor([[0.3, 0.8, 1.0]], dtype=torch.float64)
    full = expand(cores, frames, start, rho)
    weights, blocks = (torch.stack(one.factors, dim=1) for one in (full, cores))
    return weights, blocks, torch.cat([torch.tensor([SCALES], dtype=torch.float64), rho]), frames, start, problem


def checked(weights, blocks, rho, frames, start, problem):
    return compression_check(weights, blocks, rho[1:], completed_frames(start, frames), problem.values)


def test_an_exact_pair_passes():
    check = checked(*pair())
    for name in ("exact", "core", "partial_product", "gradient"):
        assert float(check[name].max()) < 1e-12, name
    assert abs(float(check["ratio"]) - 1) < 1e-12  # the bound is that of the scales given first


def test_a_disturbed_core_a_disturbed_inert_part_and_a_coupling_are_found():
    weights, blocks, *rest = pair()
    moved = blocks.clone()
    moved[0, 1, 0, 0] += 1e-6
    assert 0.9e-6 < float(checked(weights, moved, *rest)["core"]) < 1.1e-6
    assert float(checked(weights, moved, *rest)["gradient"]) > 1e-9
    wrong = weights * 1.001
    assert float(checked(wrong, blocks, *rest)["partial_product"]) > 1e-4
    assert float(checked(wrong, blocks, *rest)["exact"]) > 1e-3
