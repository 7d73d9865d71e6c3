"""Completion by entries alone: against the dense problem, and without a matrix of full size anywhere."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.sparse import csr_array
from small_problems import random_factors
from torch.utils._python_dispatch import TorchDispatchMode

from dmfkit import (
    Alignment,
    CompletionTask,
    CompressedStart,
    Descent,
    EffectiveRank,
    Flow,
    InputError,
    Loss,
    MatrixCompletion,
    OrthogonalStart,
    RelativeError,
    SingularValues,
    Start,
    Status,
    Store,
    gradient_descent,
    sweep,
)
from dmfkit.experiments.reproduce import plan_of, recompute_point
from dmfkit.factorizations.compression import frames_target
from dmfkit.gradients.choice import Kernel, evaluator_for, kernel_for
from dmfkit.gradients.entries import EntrywiseEvaluator
from dmfkit.gradients.tensors import Evaluator
from dmfkit.linalg import spectra
from dmfkit.linalg.low_rank import LowRank
from dmfkit.linalg.sampled_products import DeviceProducts, HostProducts, entries
from dmfkit.problems import completion
from dmfkit.problems.completion import SparseCompletion, SparseEntries, distinct
from dmfkit.problems.tasks import SparseCompletionTask
from dmfkit.training.recorders import HeldOutError, TargetCoordinates, UnobservedError
from dmfkit.training.snapshot import Snapshot

TASK = SparseCompletionTask(d=40, rank=2, n_observed=300, n_held_out=50, data_seed=1)


@pytest.fixture
def entrywise(monkeypatch):
    """Small matrices stand for large ones of few entries."""
    monkeypatch.setattr(completion, "SPARSE_SIZE", 0)
    monkeypatch.setattr(completion, "SPARSE_SHARE", 1.0)


def in_full(problem):
    """The same problem with matrices of full size."""
    mask = torch.zeros(problem.shape, dtype=problem.dtype)
    mask[problem.observed.rows.long(), problem.observed.columns.long()] = 1.0
    truth = problem.truth.left[0] @ problem.truth.right[0].mT
    return MatrixCompletion(problem.normalisation, truth, truth * mask, mask)


def relative(ours, theirs):
    return float((ours - theirs).abs().max() / theirs.abs().max())


@pytest.mark.usefixtures("entrywise")
@pytest.mark.parametrize("normalisation", ["half_sum", "mean"])
@pytest.mark.parametrize("widths", [(40, 3, 40), (40, 5, 3, 40), (40, 3, 5, 4, 40), (40, 6, 6, 6, 6, 40)])
def test_loss_and_gradient_are_those_of_the_dense_problem(widths, normalisation):
    problem = SparseCompletionTask(d=40, rank=2, n_observed=300, normalisation=normalisation).problem()
    dense, start = in_full(problem), random_factors(widths, 3)
    sparse, reference = evaluator_for(problem, widths, 3), Evaluator(dense, widths, 3)
    assert isinstance(sparse, EntrywiseEvaluator)
    ours, theirs = torch.empty_like(start.state), torch.empty_like(start.state)
    squares = sparse.squares_and_gradient(start.state, ours)
    assert relative(squares, reference.squares_and_gradient(start.state, theirs)) < 1e-12
    assert relative(ours, theirs) < 1e-12
    assert relative(sparse.squares(start.state), squares) < 1e-14
    assert relative(problem.gradient(start.end_to_end()), dense.gradient(start.end_to_end())) < 1e-12
    assert relative(Snapshot(problem, start).mean_square, dense.loss(start.end_to_end(), "mean")) < 1e-12


@pytest.mark.parametrize("kind", [HostProducts, DeviceProducts])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize(("height", "width"), [(1, 1), (7, 7), (20, 3), (2, 20)])
def test_sampled_products_are_those_of_dense_matrices(kind, dtype, height, width):
    problem = TASK.problem().to("cpu", dtype)
    products = kind(problem.observed.rows, problem.observed.columns, problem.observed.values, problem.shape)
    dense, accuracy = in_full(problem), 1e-12 if dtype == torch.float64 else 1e-4
    for seed in (0, 1):  # what the second gives must replace what the first gave
        first, middle, last = (
            factor[0].to(dtype) for factor in random_factors((40, width, height, 40), 1, seed).factors
        )
        matrices = last, middle, first.mT.contiguous()
        to_left, to_core = torch.empty_like(last), torch.empty_like(middle)
        square, to_right = products.square_and_gradients(*matrices, 3.0, to_left, to_core)
        residual = (last @ middle @ first - dense.values) * dense.mask
        assert square.dtype == dtype
        assert relative(square, residual.square().sum()) < accuracy
        assert relative(products.square(*matrices), square) < accuracy
        assert relative(to_left, 3.0 * residual @ first.mT @ middle.mT) < accuracy
        assert relative(to_core, 3.0 * last.mT @ residual @ first.mT) < accuracy
        assert relative(to_right, 3.0 * residual.mT @ last @ middle) < accuracy
        found = entries(last @ middle, first.mT, problem.observed.rows, problem.observed.columns)
        assert relative(found, (last @ middle @ first)[dense.mask.bool()]) < accuracy


def test_groups_of_rows_have_every_entry_once_and_little_memory():
    generator = torch.Generator().manual_seed(2)
    for shape, count, most in (((400, 30), 9000, 8), ((30, 400), 9000, 2), ((50, 50), 40, 1)):
        mask = torch.zeros(shape).flatten()
        mask[torch.randperm(mask.numel(), generator=generator)[:count]] = 1.0
        mask = mask.view(shape)
        mask[::3] = 0.0  # rows without an entry
        rows, columns = mask.nonzero(as_tuple=True)
        values = torch.ones(len(rows), dtype=torch.float64)
        products = HostProducts(rows.int(), columns.int(), values, shape)
        edges = products._edges(4)
        assert edges == sorted(edges)
        assert (edges[0], edges[-1]) == (0, shape[0])
        assert len(edges) - 1 == most
        left, core, right = (torch.zeros(*sides).double() for sides in ((shape[0], 4), (4, 4), (shape[1], 4)))
        assert float(products.square(left, core, right)) == len(rows)


def test_the_problem_is_that_of_the_dense_task():
    plain = {"d": 40, "rank": 2, "data_seed": 1, "target_norm": 17.0, "n_observed": 300}
    problem = SparseCompletionTask(**plain, n_held_out=50).problem()
    dense = CompletionTask(**plain).problem()
    truth = dense.ground_truth
    assert torch.equal(in_full(problem).mask, dense.mask)
    assert relative(problem.truth.left[0] @ problem.truth.right[0].mT, truth) < 1e-14
    for part, count in ((problem.observed, 300), (problem.held_out, 50)):
        assert len(part.values) == count
        assert relative(part.values, truth[part.rows.long(), part.columns.long()]) < 1e-13
    assert problem.n_observations == 300


@pytest.mark.parametrize("largest_ordering", [0, 10**6])
def test_entries_are_distinct_uniform_and_nested(largest_ordering, monkeypatch):
    monkeypatch.setattr(completion, "LARGEST_ORDERING", largest_ordering)
    observed, held_out = distinct((30, 50), (400, 300), seed=3)
    assert len(set(observed) | set(held_out)) == 700
    assert set(observed) <= set(range(1500)) >= set(held_out)
    assert (np.diff(observed) > 0).all()
    # A smaller set is part of every larger one, and what is held out follows.
    (smaller,) = distinct((30, 50), (150,), seed=3)
    assert set(smaller) < set(observed)
    assert set(distinct((30, 50), (700,), seed=3)[0]) == set(observed) | set(held_out)
    assert set(distinct((30, 50), (400,), seed=4)[0]) != set(observed)
    # Also where a place takes more than 32 bits.
    (part,), (whole,) = (distinct((10**5, 10**5), (count,), seed=3) for count in (200, 5000))
    assert set(part) < set(whole)
    assert len(set(whole)) == 5000
    # Every entry is equally likely: counts of 4 of 12 in 600 draws against their binomial spread.
    drawn = sum(np.bincount(distinct((3, 4), (4,), seed)[0], minlength=12) for seed in range(600))
    assert abs(drawn - 200).max() < 5 * math.sqrt(600 * (1 / 3) * (2 / 3))


def test_held_out_entries_are_never_observed():
    problem = TASK.problem()
    observed = set(zip(problem.observed.rows.tolist(), problem.observed.columns.tolist(), strict=True))
    held_out = set(zip(problem.held_out.rows.tolist(), problem.held_out.columns.tolist(), strict=True))
    assert len(held_out) == 50
    assert not observed & held_out


@pytest.mark.usefixtures("entrywise")
def test_what_is_recorded_is_that_of_the_dense_matrices():
    problem, start = TASK.problem(), random_factors((40, 4, 3, 40), 2)
    dense, snapshot = in_full(problem), Snapshot(problem, start)
    matrix = start.end_to_end()
    assert relative(snapshot.singular_values, spectra.singular_values(matrix)[:, :3]) < 1e-12
    assert relative(snapshot.norm, torch.linalg.matrix_norm(matrix)) < 1e-13
    assert relative(snapshot.relative_error, spectra.relative_error(matrix, dense.ground_truth)) < 1e-12
    test = problem.held_out
    rows, columns = test.rows.long(), test.columns.long()
    expected = (matrix[:, rows, columns] - test.values).square().mean(-1).sqrt()
    assert relative(HeldOutError()(snapshot)["held_out_rmse"], expected) < 1e-12


def test_a_relative_error_far_below_the_rounding_of_norms_keeps_its_digits():
    truth = SparseCompletionTask(d=50, rank=3, n_observed=1).ground_truth()
    change = torch.randn(50, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    near = LowRank(truth.left + 1e-10 * change, truth.right)
    exact = 1e-20 * torch.linalg.matrix_norm(change @ truth.right[0].mT) ** 2 / truth.norm() ** 2
    found = (near.minus(truth).norm() / truth.norm()) ** 2
    assert float(found / exact) == pytest.approx(1.0, abs=1e-4)


@pytest.mark.usefixtures("entrywise")
def test_leading_vectors_agree_among_dense_sparse_and_factored_targets():
    problem = TASK.problem()
    dense = in_full(problem)
    assert isinstance(problem.observed_matrix(), csr_array)
    for target, matrix in ((frames_target(problem), dense.values), (problem.truth, dense.ground_truth)):
        found = spectra.leading_singular_vectors(target, 2)
        left, values, right = torch.linalg.svd(matrix)
        assert relative(found[1], values[:2]) < 1e-12
        assert relative(found[0] @ found[2].mT, left[:, :2] @ right[:2]) < 1e-8
    # More vectors than the matrix has directions: still orthonormal.
    left, values, right = problem.truth.singular_vectors(5)
    for side in (left, right):
        assert relative(side.mT @ side, torch.eye(5, dtype=torch.float64)) < 1e-13
    assert float(values[2:].abs().max()) < 1e-12 * float(values[0])


class LargestTensor(TorchDispatchMode):
    """Notes the largest tensor that any operation makes."""

    def __init__(self):
        super().__init__()
        self.numel = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for made in out if isinstance(out, tuple | list) else (out,):
            if isinstance(made, torch.Tensor):
                self.numel = max(self.numel, made.numel())
        return out


@pytest.mark.parametrize("method", [Flow(horizon=3.0), Descent(lr=1e-3, max_steps=5)])
def test_nothing_of_full_size_is_formed_from_the_task_to_the_dataset(method, monkeypatch):
    task = SparseCompletionTask(d=3000, rank=2, n_observed=20_000, n_held_out=1000)
    start = CompressedStart(rank_bound=2, discrepant_rate=0.01, orthogonal="cosine")
    record = (Loss(), RelativeError(), SingularValues(2), EffectiveRank(), HeldOutError())
    made = []
    for name in ("empty", "zeros", "empty_like", "zeros_like"):  # NumPy's memory and SciPy's products
        original = getattr(np, name)
        monkeypatch.setattr(np, name, lambda *a, _f=original, **k: made.append(out := _f(*a, **k)) or out)
    with LargestTensor() as largest:
        dataset = sweep(task, start, method, record=record, record_at=(0, 2))
    size = float(task.problem().held_out.values.square().mean().sqrt())
    assert float(dataset["held_out_rmse"][0]) == pytest.approx(size, rel=1e-6)
    assert largest.numel < 0.02 * task.d**2
    assert max(array.size for array in made) < 0.02 * task.d**2


@pytest.mark.usefixtures("entrywise")
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_descent_follows_the_dense_run_step_by_step(dtype):
    problem, start = TASK.problem(), OrthogonalStart(3, 0.7, hidden_width=4)
    method = Descent(lr=1e-3, stop=0.0, max_steps=40, dtype=dtype)
    ours = sweep(TASK, start, method, seed=[0, 1])
    dense = in_full(problem).to("cpu", getattr(torch, dtype))
    for run in (0, 1):
        begun = OrthogonalStart(3, 0.7, run, hidden_width=4).begin(dense)
        theirs = gradient_descent(dense, begun.factorization, method)
        accuracy = 1e-11 if dtype == "float64" else 1e-3
        assert float(ours["final_mean_square"][run]) == pytest.approx(float(theirs.mean_square[0]), rel=accuracy)


@pytest.mark.usefixtures("entrywise")
def test_held_out_entries_are_recovered():
    task = SparseCompletionTask(d=300, rank=3, n_observed=9000, n_held_out=2000, target_norm=60.0)
    start = CompressedStart(3, 1e-2, rank_bound=4, discrepant_rate=0.1, orthogonal="cosine")
    dataset = sweep(task, start, Flow(stop=1e-11), record=(HeldOutError(),), record_at=(0.0, 50.0))
    assert int(dataset["status"]) == Status.CONVERGED
    size = float(task.problem().held_out.values.square().mean().sqrt())
    assert float(dataset["held_out_rmse"][0]) == pytest.approx(size, rel=1e-3)
    assert float(dataset["final_held_out_rmse"]) < 3e-4 * size
    assert float(dataset["final_relative_error"]) < 1e-7
    assert float(dataset["final_effective_rank"]) == pytest.approx(3.0, abs=0.05)
    assert dataset["final_singular_value"].shape == (8,)


@pytest.mark.usefixtures("entrywise")
def test_fixed_frames_of_the_truth_recover_it_and_a_stored_sweep_can_be_made_again(tmp_path):
    start = CompressedStart(3, 1e-2, rank_bound=2, frames_from="truth", orthogonal="cosine")
    options = {"record": (HeldOutError(), Loss()), "record_at": (0.0, 5.0), "store": Store(tmp_path), "name": "small"}
    stored = sweep(TASK, start, Flow(stop=1e-12), seed=(0, 1), **options)
    assert float(stored["final_relative_error"].max()) < 1e-9
    again = recompute_point(plan_of(stored), {"seed": 1})
    for name in ("held_out_rmse", "mean_square", "final_relative_error"):
        assert (again[name].values == stored[name].sel(seed=[1]).values).all()


def test_what_cannot_be_is_said_in_one_sentence():
    problem = TASK.problem()
    parts = {
        "normalisation": "half_sum",
        "ground_truth": None,
        "values": problem.observed.values,
        "size": problem.shape,
    }
    places = {"rows": problem.observed.rows, "columns": problem.observed.columns}
    swapped = {"rows": problem.observed.rows.flip(0), "columns": problem.observed.columns}
    for wrong, words in (
        (swapped, "row by row"),
        ({"rows": problem.observed.rows.long(), "columns": problem.observed.columns}, "int32"),
        ({"rows": problem.observed.rows[1:], "columns": problem.observed.columns[1:]}, "one of each"),
        ({"rows": problem.observed.rows + 30, "columns": problem.observed.columns}, "inside the 40 x 40 matrix"),
        ({"rows": problem.observed.rows, "columns": problem.observed.columns, "size": (40, 2**31)}, "at most"),
        (
            {"values": parts["values"][:0], "rows": problem.observed.rows[:0], "columns": problem.observed.columns[:0]},
            "0 entries",
        ),
        ({**places, "values": parts["values"] * torch.nan}, "is NaN"),
        (
            {**places, "held_out": SparseEntries(*places.values(), problem.observed.values, (40, 39))},
            "those of one matrix",
        ),
    ):
        with pytest.raises(InputError, match=words):
            SparseCompletion(**{**parts, **wrong})
    with pytest.raises(InputError, match="n_held_out"):
        SparseCompletionTask(d=10, rank=1, n_observed=90, n_held_out=11).check()
    with pytest.raises(InputError, match="too many to be kept one by one"):
        SparseCompletionTask(d=3000, n_observed=4_500_001).check()
    with pytest.raises(InputError, match="full width is not allowed for a 50000"):
        sweep(SparseCompletionTask(d=50_000), CompressedStart(rank_bound=2), Flow())
    dense = CompletionTask(d=10, rank=1, n_observed=50)
    with pytest.raises(ValueError, match="held-out"):
        sweep(dense, Start(depth=2), Flow(horizon=1.0), record=(HeldOutError(),), record_at=(0.0,))


def test_what_is_too_large_to_be_formed_is_refused_in_one_sentence():
    task = SparseCompletionTask(d=9000, rank=2, n_observed=1000)
    problem = task.problem()
    for asked in (lambda: problem.mask, lambda: problem.values, lambda: problem.ground_truth):
        with pytest.raises(InputError, match="a 9000 x 9000 matrix with so few observed entries is never formed"):
            asked()
    with pytest.raises(InputError, match="depth = 1 is not allowed for a 9000 x 9000 matrix"):
        evaluator_for(problem, (9000, 9000), 1)
    start = Start(depth=2, hidden_width=2)
    with pytest.raises(InputError, match="only Loss, RelativeError"):
        sweep(task, start, Flow(horizon=1.0), record=(Alignment(),), record_at=(0.0,))
    # Many entries are no smaller than the matrix, and a truth in full shows that there is room for one.
    generous = replace(problem, truth=torch.empty(1).expand(9000, 9000))
    assert not generous.by_entries((9000, 200, 9000))
    assert problem.by_entries((9000, 200, 9000))


def test_size_and_share_decide_what_is_computed_not_how_the_problem_was_given():
    sparse, plain = TASK.problem(), CompletionTask(d=40, rank=2, n_observed=300, data_seed=1).problem()
    entries_ = plain.observed
    given = SparseCompletion("half_sum", None, entries_.values, entries_.rows, entries_.columns, (40, 40))
    start = random_factors((40, 4, 40), 2)
    for problem in (sparse, plain, given):
        assert kernel_for(problem, start.widths) is Kernel.LOOPS
        assert Snapshot(problem, start).singular_values.shape == (2, 40)
    ours, theirs = torch.empty_like(start.state), torch.empty_like(start.state)
    for problem, out in ((plain, theirs), (given, ours)):
        evaluator_for(problem, start.widths, 2).squares_and_gradient(start.state, out)
    assert torch.equal(ours, theirs)
    # What only small matrices have can be had of either.
    for recorder in (Alignment(), UnobservedError(), TargetCoordinates(2)):
        for name, value in recorder(Snapshot(sparse, start)).items():
            assert relative(value, recorder(Snapshot(plain, start))[name]) < 1e-9


@pytest.mark.usefixtures("entrywise")
def test_units_are_those_of_the_matrix_by_entries_too():
    plain, start = replace(TASK.problem(), truth=None, unit=3.0), random_factors((40, 4, 40), 2)
    by_entries, matrix = Snapshot(plain, start), 3.0 * start.end_to_end()
    assert plain.by_entries(start.widths)
    assert relative(by_entries.norm, torch.linalg.matrix_norm(matrix)) < 1e-13
    assert relative(by_entries.singular_values, spectra.singular_values(matrix)[:, :4]) < 1e-12
    rows, columns = plain.held_out.index
    expected = (matrix[:, rows, columns] - 3.0 * plain.held_out.values).square().mean(-1).sqrt()
    assert relative(by_entries.held_out_rmse, expected) < 1e-12
    assert relative(by_entries.mean_square, in_full(TASK.problem()).loss(start.end_to_end(), "mean")) < 1e-12


def test_entries_of_a_product_are_looked_up():
    left, right = torch.arange(6.0).view(3, 2), torch.arange(8.0).view(4, 2)
    rows, columns = torch.tensor([0, 2], dtype=torch.int32), torch.tensor([3, 0], dtype=torch.int32)
    assert entries(left, right, rows, columns).tolist() == [(left @ right.mT)[0, 3], (left @ right.mT)[2, 0]]
