"""The parameters of every chapter: their defaults are the settings of the chapter's parameters cell, the paper's own.

A notebook can be edited; what is written here stays, and decides whether a verdict is about the paper. To add a
chapter, write a model and name it in `CHAPTERS`.
"""

from typing import Annotated, Any, ClassVar

from pydantic import Field

from dmfkit.chapters import allowed_values as types
from dmfkit.chapters.parameters import Parameters
from dmfkit.errors import InputError, brief

# What several chapters have in common.


class _Computed(Parameters):
    """Where and how results are computed."""

    device: types.Device = Field("auto", description="processor that computes")
    recompute: types.Flag = Field(False, description="compute even where a stored result exists")
    results: types.ResultsFolder = Field("", description="folder of the stored results")


class _LowRank(Parameters):
    """A square matrix of low rank."""

    d: types.Size = 100
    rank: types.Rank = 5
    data_seed: types.DataSeed = 0

    def check_together(self) -> None:
        super().check_together()
        _at_most(self, "rank", "d")


class _Completion(_LowRank, _Computed):
    """Completion of a matrix from numbers of its entries."""

    n_observed: types.ObservedCounts = (2000,)

    def check_together(self) -> None:
        super().check_together()
        _enough_entries(self, "n_observed", "d")


class _Figure1(_Completion):
    """Figure 1 of Arora et al. (2019), and, where the paper gives none, our seeds, limits and accuracy."""

    n_observed: types.ObservedCounts = (2000, 5000)
    depths: types.Depths = (2, 3, 4)
    init_scales: types.InitScales = (1e-2, 1e-3, 1e-4, 1e-5)
    lrs: types.LearningRates = (1e-3, 3e-4)
    stop: types.StoppingLoss = 1e-6
    seeds: types.Seeds = (0, 1, 2)
    max_steps: types.MaxSteps = 200_000
    flow_rtol: types.FlowTolerance = 1e-3


# The chapters.


class MatrixCompletionSettings(_Figure1):
    """Chapter 1, on Figure 1 of Arora et al. (2019)."""

    data_seeds: types.DataSeeds = (1, 2, 3, 4, 5)


class NormsInTheorySettings(_LowRank):
    """Chapter 2; the paper asks for commuting measurements, every depth, and alpha going to zero."""

    d: types.Size = 6
    rank: types.Rank = 2
    n_measurements: types.Count = Field(3, description="number of measurement matrices")
    depths: Annotated[
        types.Different[Annotated[types.Count, Field(ge=2)]],
        types.Allowed("a list of whole numbers of at least 2 (one factor is no factorization), none of them repeated"),
        Field(description="numbers of factors"),
    ] = (2, 3, 4, 5)
    alphas: types.Fractions = Field((0.3, 0.1, 0.03, 0.01, 3e-3, 1e-3), description="scales of initial factors alpha I")
    exponents: types.Fractions = Field((0.1, 0.5, 0.9), description="exponents of Schatten quasi-norms")
    epsilons: types.Epsilons = (1e-3, 1e-2, 0.1, 0.5)
    data_seeds: types.DataSeeds = (1, 2, 3, 4, 5)
    seeds: types.Seeds = (0,)

    def check_together(self) -> None:
        super().check_together()
        if self.n_measurements >= self.d:
            raise InputError(
                f"n_measurements = {self.n_measurements} is not allowed with d = {self.d}: it must be less than d, "
                "so lower it or raise d."
            )


class NormsInExperimentsSettings(_Figure1):
    """Chapter 3: the runs of chapter 1, further numbers of entries, and small symmetric problems."""

    data_seeds: types.DataSeeds = (1, 2, 3, 4, 5)
    nuclear_tolerance: types.Fraction = Field(1e-8, description="tolerance of the convex program's solver")
    path_n_observed: types.Counts = Field(
        (1000, 1500, 2000, 2500, 3000, 3500, 4000, 5000), description="numbers of observed entries along a curve"
    )
    fewer_n_observed: types.FewerObservedCounts = (1600, 1800)
    symmetric_d: types.Count = Field(30, description="rows, and columns, of the symmetric matrices")
    symmetric_rank: types.Count = Field(3, description="rank of the symmetric matrices")
    symmetric_n_observed: types.Counts = Field(
        (110, 200), description="numbers of observed pairs of the symmetric matrices"
    )

    def check_together(self) -> None:
        super().check_together()
        for name in ("path_n_observed", "fewer_n_observed"):
            _enough_entries(self, name, "d")
        _at_most(self, "symmetric_rank", "symmetric_d")
        size = self.symmetric_d
        pairs = size * (size + 1) // 2
        there = f"a symmetric matrix of size {size} (symmetric_d = {size}) has only {pairs} pairs of entries"
        _counts_at_most(self, "symmetric_n_observed", pairs, there, "symmetric_d")


class DynamicsInTheorySettings(_Completion):
    """Chapter 4: formulas on small matrices, and runs at the size of Figure 3 of Arora et al. (2019)."""

    init_scale: types.InitScale = 1e-3
    depths: types.Depths = (1, 2, 3, 4, 5)
    shapes: types.SmallShapes = Field(
        ((5, 5), (6, 4), (4, 6), (3, 5)), description="shapes of the small matrices on which formulas are checked"
    )
    finite_difference_steps: types.DifferenceSteps = Field(
        (1e-2, 3e-3, 1e-3, 1e-4, 1e-5), description="time steps of the central differences that judge formulas"
    )
    descent_depths: types.Counts = Field((2, 3), description="numbers of factors of the runs at full size")
    lrs: types.LearningRates = (1e-3, 1e-4)
    init_scales: types.InitScales = (1e-2, 3e-3, 1e-3)
    horizon: types.Horizon = 1.5
    n_records: types.RecordCount = 60
    flow_rtol: types.FlowTolerance = 1e-6
    seeds: types.Seeds = (0, 1)


class DynamicsInExperimentsSettings(_Completion):
    """Chapter 5, on Figure 3 of Arora et al. (2019), and on MovieLens 100K."""

    depths: types.Depths = (1, 2, 3)
    init_scale: types.InitScale = 1e-3
    lr: types.LearningRate = 1e-3
    n_singular_values: types.SingularValueCount = 10
    dataset: types.Dataset = Field("movielens-100k", description="ratings to fit")
    n_users: types.Count = Field(943, description="users, the rows of the rating matrix")
    n_items: types.Count = Field(1682, description="items, the columns of the rating matrix")
    n_ratings: types.Count = Field(100_000, description="ratings used, the first ones of the file")
    movielens_hidden_width: types.Count = Field(943, description="hidden width of the factorization of the ratings")
    seeds: types.Seeds = (0,)
    horizon: types.Horizon = 6.0
    n_records: types.RecordCount = 1200
    movielens: types.RatingsFile = Field("auto", description="where the MovieLens 100K ratings come from")
    movielens_horizon: types.Positive = Field(0.4, description="time at which the flow on the ratings ends")
    movielens_lrs: types.Positives = Field((1e-3, 4e-4), description="learning rates on the ratings")
    flow_rtol: types.FlowTolerance = 1e-4

    def check_together(self) -> None:
        super().check_together()
        _more_values_than_rank(self)


class OneMeasurementSettings(Parameters):
    """Chapter 6; the paper treats N = 1, N = 2 and N >= 3, and takes 0 < alpha < 1 as its example."""

    depths: types.Depths = (1, 2, 3, 4, 6)
    strength_ratio: types.Fraction = Field(
        0.6, description="how strongly the measurement pulls at the first singular value, relative to the second"
    )
    d: Annotated[
        types.Size,
        Field(ge=2),
        types.Allowed("a whole number of at least 2 (the chapter compares two singular values)"),
    ] = 5
    start_value: types.Positive = Field(0.05, description="singular values of the product at the start")
    reach: types.Positive = Field(5.0, description="value that the second singular value is followed to")
    start_ratios: types.Positives = Field(
        (0.5, 1.0, 1.3, 1.5, 2.0), description="first singular value over the second at the start"
    )
    init_scales: types.InitScales = (1e-1, 1e-2, 1e-3, 1e-4)
    seeds: types.Seeds = (0, 1, 2)

    def check_together(self) -> None:
        super().check_together()
        if self.reach <= self.start_value:
            raise InputError(
                f"reach = {self.reach} is not allowed with start_value = {self.start_value}: the singular value is "
                "followed as it grows, so raise reach or lower start_value."
            )


class MatrixSensingSettings(_Figure1):
    """Chapter 7: the settings of Figures 1 and 3 of Arora et al. (2019), for matrix sensing."""

    dynamics_depths: types.Counts = Field((1, 2, 3), description="numbers of factors whose dynamics are followed")
    init_scale: types.InitScale = 1e-3
    n_singular_values: types.SingularValueCount = 10
    data_seeds: types.DataSeeds = (1, 2, 3, 4)
    fewer_n_observed: types.FewerObservedCounts = (1500,)
    smaller_init_scales: types.Positives = Field((1e-6,), description="further initial norms, at the least depth only")
    descent_lr: types.Positive = Field(4e-3, description="learning rate that is stable at every depth")
    max_steps: types.MaxSteps = 60_000
    horizon: types.Horizon = 12.0
    n_records: types.RecordCount = 600

    def check_together(self) -> None:
        super().check_together()
        _more_values_than_rank(self)
        _enough_entries(self, "fewer_n_observed", "d")


class InvariantSubspacesSettings(_LowRank):
    """Chapter 8, on Figure 1 of Yaras et al. (2023); learning rate (1 / d^2) and steps are the released code's."""

    d: types.Size = 30
    rank: types.Rank = 3
    depth: Annotated[
        types.Depth, Field(ge=2), types.Allowed("a whole number of at least 2 (the chapter compares layers)")
    ] = 3
    layer_scale: types.LayerScale = 1.0
    lr: types.LearningRate = 0.0011111111111111111
    n_steps: types.Count = Field(50, description="steps of gradient descent in the figure")
    long_n_steps: types.Count = Field(4000, description="steps of gradient descent in the longer runs")
    depths: types.Depths = (1, 2, 3, 4)
    layer_scales: Annotated[
        types.LayerScales,
        Field(min_length=2),
        types.Allowed("a list of at least two finite numbers above 0 (the chapter compares layers)"),
    ] = (0.5, 1.0, 1.5)
    smaller_layer_scales: types.Positives = Field(
        (1e-1, 1e-2, 1e-3), description="scales of the initial factors in small starts"
    )
    weight_decays: types.NonNegatives = Field((0.0, 0.02, 0.05, 0.1), description="weight decays of every factor")
    weight_decay: Annotated[
        types.WeightDecay,
        Field(gt=0),
        types.Allowed("a finite number above 0 (the chapter compares runs without and with weight decay)"),
    ] = 1.0
    observed_share: types.ObservedShare = 0.3
    epsilons: types.Epsilons = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1)
    max_steps: types.MaxSteps = 60_000
    seeds: types.Seeds = (0, 1, 2)

    def check_together(self) -> None:
        super().check_together()
        # Theorem 1 of Yaras et al. (2023) needs 2 rank < d, and the chapter compares the rank with the next one.
        if 2 * (self.rank + 1) >= self.d:
            raise InputError(
                f"rank = {self.rank} is not allowed with d = {self.d}: the chapter also looks at rank + 1, and "
                "2 * (rank + 1) must be less than d, so lower it or raise d."
            )


class CompressionSettings(_LowRank, _Computed):
    """Chapter 9, on Figure 2 of Yaras et al. (2023), and small problems on which every weight is looked at."""

    d: types.Size = 1000
    rank_bound: types.RankBound = 5
    depth: types.Depth = 3
    layer_scale: types.LayerScale = 1e-3
    lr: types.LearningRate = 2e-3
    tolerance: types.Tolerance = 1e-10
    n_records: types.RecordCount = 120
    max_steps: types.MaxSteps = 200_000
    seed: types.Seed = Field(0, description="seed of the initialisation")
    small_d: types.Count = Field(
        30, description="rows, and columns, of the small matrices of which every weight is looked at"
    )
    small_rank: types.SmallRank = 3
    small_lr: types.Positive = Field(1e-3, description="learning rate on the small matrices")
    small_steps: types.Count = Field(2000, description="steps on the small matrices")
    rank_bounds: types.RankBounds = (3, 6, 14)
    layer_scales: types.LayerScales = (0.5, 1.3, 0.9)
    weight_decay: types.WeightDecay = 0.05
    path_layer_scales: types.Positives = Field(
        (0.3, 0.1, 0.03, 0.01), description="scales of the initial factors along a curve"
    )

    def check_together(self) -> None:
        super().check_together()
        _rank_bounds_fit(self, "rank_bound", "rank", "d")
        _rank_bounds_fit(self, "rank_bounds", "small_rank", "small_d")


class CompressedCompletionSettings(_LowRank, _Computed):
    """Chapter 10, on Figure 3 of Yaras et al. (2023); rank bound, step and tolerance are the released code's."""

    d: types.Size = 1000
    depth: types.Depth = 3
    layer_scale: types.LayerScale = 1e-3
    observed_share: types.ObservedShare = 0.2
    discrepant_rate: types.DiscrepantRate = 1e-2
    rank_bound: types.RankBound = 5
    lr: types.LearningRate = 5e-3
    tolerance: types.Tolerance = 1e-10
    seeds: types.Seeds = (0,)
    horizon: types.Horizon = 150.0
    transition_times: types.TimeInterval = Field(
        (86.0, 106.0), description="flow times between which records are close"
    )
    flow_rtol: types.FlowTolerance = 1e-5
    max_steps: types.MaxSteps = 22_000
    discrepant_rates: types.NonNegatives = Field(
        (1e-4, 1e-3, 1e-2, 1e-1, 1.0), description="learning rates of the frames over the cores'"
    )
    smaller_d: types.SmallerSize = 300
    smaller_horizon: types.Positive = Field(
        400.0, description="time at which the gradient flow ends at the smaller size"
    )
    observed_shares: types.Fractions = Field((0.1, 0.2, 0.3), description="shares of observed entries")

    def check_together(self) -> None:
        super().check_together()
        _rank_bounds_fit(self, "rank_bound", "rank", "d", "smaller_d")


class WidthAndDepthSettings(_LowRank, _Computed):
    """Chapter 11, on Figures 5 and 4 of Yaras et al. (2023); learning rates and limit are the released code's."""

    d: types.Size = 1000
    observed_share: types.ObservedShare = 0.2
    depth: types.Depth = 3
    layer_scale: types.LayerScale = 1e-3
    rank_bounds: types.RankBounds = (5, 8, 11, 14, 17, 20)
    discrepant_rate: types.DiscrepantRate = 0.01
    smaller_d: types.SmallerSize = 100
    ranks: types.Counts = Field((5, 10), description="ranks of the ground truths")
    smaller_observed_share: types.Fraction = Field(0.3, description="the same share for the smaller matrix")
    depths: Annotated[
        types.Different[Annotated[types.Count, Field(ge=2)]],
        Field(min_length=2),
        types.Allowed(
            "a list of two or more different whole numbers of at least 2 (the chapter compares shallow and deep)"
        ),
        Field(description="numbers of factors"),
    ] = (2, 3)
    hidden_widths: types.Counts = Field(
        (5, 10, 20, 30, 40, 50, 60, 70, 80, 90, 100), description="hidden widths of the factorizations"
    )
    tolerance: types.Tolerance = 1e-10
    lr: types.LearningRate = 5e-3
    lrs: types.LearningRates = (1e-2, 3e-2)
    max_steps: types.MaxSteps = 60_000
    seeds: types.Seeds = (0, 1, 2, 3, 4)
    flow_rtol: types.FlowTolerance = 1e-4
    larger_rank_bounds: types.Counts = Field(
        (40, 80, 120, 160, 240), description="further upper bounds of the rank, at which no run is made"
    )

    def check_together(self) -> None:
        super().check_together()
        small, widths = self.smaller_d, self.hidden_widths
        for r in self.ranks:
            if r >= small or sum(r <= width <= small for width in widths) < 2:
                raise InputError(
                    f"ranks has {r}, but hidden_widths = {list(widths)} has fewer than two widths from {r} to "
                    f"smaller_d = {small}: add widths or lower the rank."
                )
        if max(widths) > small:
            raise InputError(
                f"hidden_widths has {max(widths)}, more than smaller_d = {small}: lower it or raise smaller_d."
            )
        if len(self.lrs) != len(self.depths):
            raise InputError(
                f"{len(self.lrs)} lrs were given for {len(self.depths)} depths: give one for each, in turn."
            )
        _rank_bounds_fit(self, "rank_bounds", "rank", "d")
        if list(self.rank_bounds) != sorted(self.rank_bounds) or min(self.larger_rank_bounds) <= self.rank_bounds[-1]:
            raise InputError("rank_bounds must rise, and larger_rank_bounds must be larger than all of them.")
        _rank_bounds_fit(self, "larger_rank_bounds", "rank", "d")


class GradientFlowFastSettings(_Figure1):
    """Chapter 12: a small matrix on which every integrator can be afforded, and the runs of chapter 1."""

    has_paper: ClassVar[bool] = False
    small_d: types.Count = Field(16, description="rows, and columns, of the small matrix")
    small_rank: types.SmallRank = 2
    small_n_observed: types.Count = Field(90, description="number of observed entries of the small matrix")
    depth: types.Depth = 3
    init_scale: types.InitScale = 1e-3
    rtols: types.Fractions = Field((1e-2, 1e-3, 1e-4, 1e-5, 1e-6), description="tolerances of all integrators")
    lr_shares: types.Fractions = Field((0.9, 0.3, 0.1), description="learning rates over the largest stable one")
    n_records: types.RecordCount = 60

    def check_together(self) -> None:
        super().check_together()
        _at_most(self, "small_rank", "small_d")
        _enough_entries(self, "small_n_observed", "small_d")


class YourMatrixSettings(_Computed):
    """Chapter 13, on a reader's matrix."""

    has_paper: ClassVar[bool] = False
    matrix_file: types.MatrixFile = Field("", description="file that the matrix is read from")
    held_out: types.Fraction = Field(0.1, description="share of the known entries that is held out")
    depths: types.Depths = (1, 2, 3, 4)
    init_scale: types.InitScale = 1e-3
    stop: types.StoppingLoss = 1e-4
    seeds: types.Seeds = (0,)
    held_out_seeds: types.SeveralSeeds = Field((0, 1, 2, 3, 4), description="seeds that draw the entries held out")
    flow_rtol: types.FlowTolerance = 1e-3


CHAPTERS: dict[str, type[Parameters]] = {
    "01_matrix_completion": MatrixCompletionSettings,
    "02_norms_in_theory": NormsInTheorySettings,
    "03_norms_in_experiments": NormsInExperimentsSettings,
    "04_dynamics_in_theory": DynamicsInTheorySettings,
    "05_dynamics_in_experiments": DynamicsInExperimentsSettings,
    "06_one_measurement": OneMeasurementSettings,
    "07_matrix_sensing": MatrixSensingSettings,
    "08_invariant_subspaces": InvariantSubspacesSettings,
    "09_compression": CompressionSettings,
    "10_compressed_completion": CompressedCompletionSettings,
    "11_width_and_depth": WidthAndDepthSettings,
    "12_gradient_flow_fast": GradientFlowFastSettings,
    "13_your_matrix": YourMatrixSettings,
}

# What may not be together.


def _at_most(p: Parameters, name: str, limit: str) -> None:
    value, most = getattr(p, name), getattr(p, limit)
    if value > most:
        raise InputError(
            f"{name} = {brief(value)} is not allowed with {limit} = {most}: {name} must be at most {limit}, "
            f"so lower it or raise {limit}."
        )


def _more_values_than_rank(p: DynamicsInExperimentsSettings | MatrixSensingSettings) -> None:
    _at_most(p, "n_singular_values", "d")
    if p.n_singular_values <= p.rank:
        raise InputError(
            f"n_singular_values = {p.n_singular_values} is not allowed with rank = {p.rank}: it must exceed the rank, "
            "because the chapter looks at the first value beyond it, so raise it or lower the rank."
        )


def _enough_entries(p: Parameters, name: str, size: str) -> None:
    d = getattr(p, size)
    _counts_at_most(p, name, d * d, f"a {d} by {d} matrix ({size} = {d}) has only {d * d} entries", size)


def _counts_at_most(p: Parameters, name: str, most: int, there: str, size: str) -> None:
    for n in _several(getattr(p, name)):
        if n > most:
            raise InputError(
                f"{name} has {brief(n)}, but {there}: {name} must be at most {most}, so lower it or raise {size}."
            )


def _rank_bounds_fit(p: Parameters, name: str, rank: str, *sizes: str) -> None:
    """No bound is below the rank, and compressed weights, of twice as many rows, are smaller than the matrix."""
    given = getattr(p, name)
    for bound in _several(given):
        refused = f"{name} has {bound}, which is" if isinstance(given, tuple) else f"{name} = {bound} is"
        if bound < getattr(p, rank):
            raise InputError(
                f"{refused} not allowed with {rank} = {getattr(p, rank)}: it must be at least the rank, so raise it or "
                f"lower {rank}."
            )
        for size in sizes:
            if 2 * bound >= getattr(p, size):
                raise InputError(
                    f"{refused} not allowed with {size} = {getattr(p, size)}: compressed weights have 2 * {bound} "
                    f"rows, which must be fewer, so lower it or raise {size}."
                )


def _several(value: Any) -> tuple[Any, ...]:
    return value if isinstance(value, tuple) else (value,)
