"""Orthogonal matrices that are never formed: orthogonal, of one scale, spreading; and compression through them."""

import pytest
import torch
from scipy.sparse import csr_array

from dmfkit import (
    CompletionTask,
    CompressedStart,
    FullObservationTask,
    InputError,
    OrthogonalStart,
    compress,
    invariant_frames,
)
from dmfkit.linalg.orthogonal import fast_layers
from dmfkit.problems import completion
from dmfkit.problems.tasks import SparseCompletionTask


@pytest.mark.parametrize("d", [2, 30, 97, 256])
def test_they_are_orthogonal_to_rounding_and_of_one_scale(d):
    scales = (0.5, 1e-3, 2.0)
    eye = torch.eye(d, dtype=torch.float64)
    layers = fast_layers(d, scales, seed=3)
    formed = [layer @ eye for layer in layers.factors]
    for matrix, layer, scale in zip(formed, layers.factors, scales, strict=True):
        assert float((matrix.mT @ matrix / scale**2 - eye).abs().max()) < 1e-12
        assert float((torch.linalg.svdvals(matrix) / scale - 1).abs().max()) < 1e-12
        assert torch.allclose(layer.mT @ eye, matrix.mT, rtol=0, atol=1e-14 * scale)
    assert layers.widths == (d,) * 4
    if d > 2:
        assert float((formed[0] / 0.5 - formed[2] / 2.0).abs().max()) > 0.1  # layers differ
    again = fast_layers(d, scales, seed=3)
    assert torch.equal(again.factors[0] @ eye, formed[0])


def test_fixed_vectors_are_spread_over_all_coordinates_and_two_matrices_share_no_direction():
    d = 4096
    corner = torch.zeros(d, 3, dtype=torch.float64)
    corner[0, 0] = corner[d // 2, 1] = 1.0
    corner[:, 2] = d**-0.5
    for seed in range(5):
        layer, other = fast_layers(d, (1.0, 1.0), seed).factors
        for matrix in (layer, layer.mT):
            spread = matrix @ corner
            # A uniformly distributed unit vector has a largest entry near sqrt(2 log(d) / d).
            assert float(spread.abs().max()) < 6 * d**-0.5
            assert float((spread**4).sum(0).max()) < 4 / d
        # Inner products of independent directions are of order d^(-1/2).
        assert float(((layer @ corner).mT @ (other @ corner)).abs().max()) < 6 * d**-0.5
        assert float((corner.mT @ (layer @ corner)).abs().max()) < 6 * d**-0.5


@pytest.mark.parametrize("rank_bound", [2, 4])
@pytest.mark.parametrize("observed", ["all", "some", "sparse"])
def test_compression_through_them_is_that_of_the_same_matrices_formed(observed, rank_bound, monkeypatch):
    task = {
        "all": FullObservationTask(d=40, rank=2, target="truncated"),
        "some": CompletionTask(d=40, rank=2, n_observed=500),
        "sparse": SparseCompletionTask(d=40, rank=2, n_observed=500),
    }[observed]
    if observed == "sparse":  # a small matrix stands for a large one of few entries
        monkeypatch.setattr(completion, "SPARSE_SIZE", 0)
        monkeypatch.setattr(completion, "SPARSE_SHARE", 1.0)
    problem = task.problem()
    assert isinstance(problem.observed_matrix(), csr_array if observed == "sparse" else torch.Tensor)
    start = CompressedStart(3, (0.5, 1e-2, 2.0), 5, rank_bound, discrepant_rate=0.1, orthogonal="cosine")
    factors = start.begin(problem).factorization.factors
    full = OrthogonalStart(3, (0.5, 1e-2, 2.0), 5, orthogonal="cosine").full(problem)
    frames = invariant_frames(full, problem.values, rank_bound)
    expected = [frames.right.mT, *compress(full, frames).factors, frames.left]
    for ours, theirs in zip(factors, expected, strict=True):
        # Singular vectors of the sparse and of the dense matrix may differ in sign; the spans and cores do not.
        if ours.shape[-1] == ours.shape[-2]:
            assert float((ours.abs() - theirs.abs()).abs().max()) < 1e-11
        else:
            mine, other = (side if side.shape[-1] == 40 else side.mT for side in (ours, theirs))
            assert float((mine.mT @ mine - other.mT @ other).abs().max()) < 1e-10


def test_only_square_factors_of_a_known_kind():
    problem = CompletionTask(d=12, rank=1, n_observed=80).problem()
    with pytest.raises(InputError, match="makes square factors"):
        OrthogonalStart(hidden_width=3, orthogonal="cosine").begin(problem)
    with pytest.raises(InputError, match="choose 'uniform' or 'cosine'"):
        CompressedStart(rank_bound=1, orthogonal="other").begin(problem)
