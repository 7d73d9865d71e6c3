"""How large a recorded quantity is by nature: what rounding is compared with when a stored result is made again."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from dmfkit.factorizations.factorization import Factorization
from dmfkit.factorizations.initialisation import initialise
from dmfkit.problems.completion import Completion, SparseEntries, matrix_completion
from dmfkit.problems.ground_truths import random_low_rank
from dmfkit.problems.losses import matrix_sensing
from dmfkit.problems.tasks import CompletionTask, SparseCompletionTask
from dmfkit.theory.singular_values import SingularValueSpeeds
from dmfkit.training import recorders as record
from dmfkit.training.recorders import FrameCoordinates, FrameGeometry, HeldOutError
from dmfkit.training.snapshot import Snapshot
from dmfkit.values import _KINDS

# By which power of the matrix's scale a quantity grows.
POWERS = {
    record.Loss(): {"mean_square": 2},
    record.RelativeError(): {"relative_error": 0},
    record.SingularValues(3): {"singular_value": 1},
    record.EffectiveRank(): {"effective_rank": 0},
    record.Alignment(): {"alignment_mean": 1, "alignment_std": 1, "alignment_off_share": 0},
    record.AlignmentGroups(2): {"group_share": 0, "group_mean": 1},
    record.UnobservedError(): {"unobserved_error": 2},
    record.TargetCoordinates(2): {"coordinate": 1, "coordinate_share": 0},
    FrameGeometry(2): {"missed": 0, "angle": 0},
    FrameCoordinates(2, 2, 0.1, 0): {"coordinate": 1, "outside": 1},
    HeldOutError(): {"held_out_rmse": 1},
}
# Of factors, which scale otherwise at every depth.
OTHERS = {record.Factors(), SingularValueSpeeds()}


def held_out(scale):
    whole = scale * random_low_rank((8, 8), 2, seed=3)
    mask = (torch.arange(64).view(8, 8) % 3 != 0).to(torch.float64)
    rest = 1.0 - mask
    observed, held_out = (SparseEntries.of(whole / 4, where) for where in (mask, rest))
    return Completion("half_sum", None, observed, held_out, 4.0)


def problem_for(recorder, scale):
    if isinstance(recorder, HeldOutError):
        return held_out(scale)
    return matrix_completion(scale * random_low_rank((8, 8), 2, seed=3), 45, seed=3)


def snapshot_at(recorder, scale):
    first, second = initialise("gaussian", (8, 3, 8), [0.5], [0]).factors
    return Snapshot(problem_for(recorder, scale), Factorization.from_factors([first, scale * second]))


def test_every_recorder_of_stored_results_says_how_large_its_quantities_are():
    kinds = {kind for kind in _KINDS.values() if hasattr(kind, "dims")}
    # On failure, add the recorder to POWERS above, with the power of the matrix's scale by which each quantity grows.
    assert kinds == {type(recorder) for recorder in (*POWERS, *OTHERS)}
    for recorder in (*POWERS, *OTHERS):
        found = recorder.magnitudes(problem_for(recorder, 1.0))
        assert set(found) == set(recorder.dims)
        assert all(0.0 < value < float("inf") for value in found.values())


@pytest.mark.parametrize("recorder", POWERS, ids=lambda recorder: type(recorder).__name__)
def test_a_quantity_and_its_magnitude_scale_with_the_matrix_alike(recorder):
    scale = 8.0
    small, large = (recorder(snapshot_at(recorder, each)) for each in (1.0, scale))
    natural, times = (recorder.magnitudes(problem_for(recorder, each)) for each in (1.0, scale))
    for name, power in POWERS[recorder].items():
        torch.testing.assert_close(large[name], small[name] * scale**power, rtol=1e-9, atol=1e-12)
        assert times[name] == pytest.approx(natural[name] * scale**power, rel=1e-12)
        # Of the order of magnitude that it is to be: near a random start, quantities are neither tiny nor huge in it.
        assert 1e-3 * natural[name] < float(small[name].abs().max()) < 1e2 * natural[name]


def test_the_norm_of_the_matrix_is_that_of_the_truth_whatever_is_observed_of_it():
    truth = random_low_rank((8, 8), 2, seed=3)
    norm = float(torch.linalg.matrix_norm(truth))
    assert matrix_completion(truth, 45, seed=3).magnitude == pytest.approx(norm, rel=1e-14)
    assert matrix_sensing(truth, 20, seed=3).magnitude == pytest.approx(norm, rel=1e-14)
    unknown = replace(matrix_completion(truth, 45, seed=3), truth=None)
    assert unknown.magnitude == pytest.approx(float(torch.linalg.matrix_norm(unknown.values)), rel=1e-14)
    observed = held_out(1.0)
    assert observed.magnitude == pytest.approx(4.0 * float(torch.linalg.matrix_norm(observed.values)), rel=1e-14)


def test_a_large_matrix_is_as_large_as_the_small_one_that_it_equals():
    fields = {"d": 12, "rank": 2, "n_observed": 60, "data_seed": 1}
    sparse, dense = SparseCompletionTask(**fields).problem(), CompletionTask(**fields).problem()
    assert sparse.magnitude == pytest.approx(dense.magnitude, rel=1e-12)
