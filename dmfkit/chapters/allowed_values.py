"""What every chapter's parameters mean and which values they may take: one table for the whole book.

To add a parameter, add one line to `VOCABULARY`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, TypeAdapter


@dataclass(frozen=True)
class Parameter:
    """What one parameter may be.

    Attributes
    ----------
    adapter : pydantic.TypeAdapter
        Decides, strictly, whether a value is allowed.
    allowed : str
        The same in words: completes "name must be ...".
    meaning : str
        What the parameter stands for, for the table that a chapter shows.
    is_list : bool
        Whether it is a list of values, so that a single value may stand for a list of one.
    is_text : bool
        Whether it is text, so that a string is taken as it stands and never read as a number.
    is_file : bool
        Whether it names a file whose content is part of what is computed; empty text names none.
    """

    adapter: TypeAdapter[Any]
    allowed: str
    meaning: str
    is_list: bool = False
    is_text: bool = False
    is_file: bool = False


def _different(values: tuple[Any, ...]) -> tuple[Any, ...]:
    if len(set(values)) < len(values):
        raise ValueError("a value is repeated")
    return values


# Seeds end where every generator that the book uses still takes them.
_Seed = Annotated[int, Field(strict=True, ge=0, lt=2**32)]
_Count = Annotated[int, Field(strict=True, ge=1)]
_Positive = Annotated[float, Field(strict=True, gt=0, allow_inf_nan=False)]
_NonNegative = Annotated[float, Field(strict=True, ge=0, allow_inf_nan=False)]
_Fraction = Annotated[float, Field(strict=True, gt=0, lt=1)]
_Side = Annotated[int, Field(strict=True, ge=2, le=12)]
_DifferenceStep = Annotated[float, Field(strict=True, gt=0, le=1e-2)]
_Text = Annotated[str, Field(strict=True)]
_NonEmptyText = Annotated[str, Field(strict=True, min_length=1)]


def _list_of(item: Any, words: str, example: str, meaning: str) -> Parameter:
    adapter = TypeAdapter(Annotated[tuple[item, ...], Field(min_length=1), AfterValidator(_different)])
    return Parameter(adapter, f"a list of {words}, none of them repeated, such as {example}", meaning, True)


def _count(meaning: str) -> Parameter:
    return Parameter(TypeAdapter(_Count), "a whole number of at least 1", meaning)


def _counts(example: str, meaning: str) -> Parameter:
    return _list_of(_Count, "whole numbers of at least 1", example, meaning)


def _positive(example: str, meaning: str) -> Parameter:
    return Parameter(TypeAdapter(_Positive), f"a finite number above 0, such as {example}", meaning)


def _positives(example: str, meaning: str) -> Parameter:
    return _list_of(_Positive, "finite numbers above 0", example, meaning)


def _choice(choices: Any, words: str, meaning: str) -> Parameter:
    return Parameter(TypeAdapter(choices), words, meaning, is_text=True)


# These say where and how something is computed, not what: other values of them leave the paper's experiment as it is.
TECHNICAL = frozenset({"device", "movielens", "recompute", "results"})

_SEEDS = "whole numbers from 0 to 4294967295"

VOCABULARY: Mapping[str, Parameter] = MappingProxyType(
    {
        # the problem
        "d": _count("rows, and columns, of the square matrix"),
        "rank": _count("rank of the ground truth"),
        "n_observed": _counts("[2000, 5000]", "numbers of observed entries"),
        "observed_share": Parameter(
            TypeAdapter(_Fraction), "a number between 0 and 1, such as 0.2", "share of the entries that is observed"
        ),
        "observed_shares": _list_of(_Fraction, "numbers between 0 and 1", "[0.1, 0.2]", "shares of observed entries"),
        "smaller_d": _count("rows, and columns, at which descent at full width is affordable"),
        "path_n_observed": _counts("[1000, 2000]", "numbers of observed entries along a curve"),
        "fewer_n_observed": _counts("[1600, 1800]", "smaller numbers of observed entries, at which recovery gets hard"),
        "symmetric_d": _count("rows, and columns, of the symmetric matrices"),
        "symmetric_rank": _count("rank of the symmetric matrices"),
        "symmetric_n_observed": _counts("[110, 200]", "numbers of observed pairs of the symmetric matrices"),
        "data_seed": Parameter(TypeAdapter(_Seed), f"one of the {_SEEDS}", "seed of ground truth and observed set"),
        "data_seeds": _list_of(_Seed, _SEEDS, "[0, 1, 2]", "seeds of ground truth and observed set"),
        "ranks": _counts("[5, 10]", "ranks of the ground truths"),
        "smaller_observed_share": Parameter(
            TypeAdapter(_Fraction), "a number between 0 and 1, such as 0.3", "the same share for the smaller matrix"
        ),
        "n_measurements": _count("number of measurement matrices"),
        "normalisation": _choice(
            Literal["half_sum", "mean"], '"half_sum" or "mean"', "how the loss adds up squared errors"
        ),
        "target_norm": Parameter(
            TypeAdapter(_Positive | None),
            "None (the ground truth as it is drawn) or a finite number above 0",
            "Frobenius norm that the ground truth is scaled to",
        ),
        "small_d": _count("rows, and columns, of the small matrices of which every weight is looked at"),
        "small_rank": _count("rank of the small ground truth"),
        "small_n_observed": _count("number of observed entries of the small matrix"),
        # the factorization
        "depth": _count("number of factors"),
        "layer_scale": _positive("1e-3", "every singular value of every initial factor"),
        "layer_scales": Parameter(
            TypeAdapter(Annotated[tuple[_Positive, ...], Field(min_length=1)]),
            "a list of finite numbers above 0, such as [0.5, 1.3, 0.9]",
            "singular values of the initial factors, one for each of them",
            True,
        ),
        "path_layer_scales": _positives("[0.1, 0.01]", "scales of the initial factors along a curve"),
        "rank_bound": _count("upper bound of the rank; compressed weights have twice as many rows"),
        "rank_bounds": _counts("[3, 6]", "upper bounds of the rank; compressed weights have twice as many rows"),
        "seed": Parameter(TypeAdapter(_Seed), f"one of the {_SEEDS}", "seed of the initialisation"),
        "depths": _counts("[2, 3, 4]", "numbers of factors"),
        "dynamics_depths": _counts("[1, 2, 3]", "numbers of factors whose dynamics are followed"),
        "init_scale": _positive("1e-3", "expected Frobenius norm of the initial product"),
        "init_scales": _positives("[1e-2, 1e-3]", "expected Frobenius norms of the initial product"),
        "shapes": _list_of(
            tuple[_Side, _Side],
            "pairs [rows, columns] of whole numbers from 2 to 12",
            "[[5, 5], [6, 4]]",
            "shapes of the small matrices on which formulas are checked",
        ),
        "descent_depths": _counts("[2, 3]", "numbers of factors of the runs at full size"),
        "smaller_init_scales": _positives("[1e-6]", "further initial norms, at the least depth only"),
        "seeds": _list_of(_Seed, _SEEDS, "[0, 1, 2]", "seeds of the initialisation"),
        "alphas": _list_of(_Fraction, "numbers between 0 and 1", "[0.3, 0.1]", "scales of initial factors alpha I"),
        "smaller_layer_scales": _positives("[1e-2, 1e-3]", "scales of the initial factors in small starts"),
        "hidden_widths": _counts("[10, 20]", "hidden widths of the factorizations"),
        "larger_rank_bounds": _counts("[40, 80]", "further upper bounds of the rank, at which no run is made"),
        "discrepant_rate": Parameter(
            TypeAdapter(_NonNegative),
            "a finite number of at least 0",
            "learning rate of the frames, relative to that of the cores, gamma",
        ),
        "discrepant_rates": _list_of(
            _NonNegative, "finite numbers of at least 0", "[0.0, 1e-2]", "learning rates of the frames over the cores'"
        ),
        # the training
        "lr": _positive("1e-3", "learning rate"),
        "lrs": _positives("[1e-3, 3e-4]", "learning rates"),
        "descent_lr": _positive("4e-3", "learning rate that is stable at every depth"),
        "weight_decay": Parameter(
            TypeAdapter(_NonNegative), "a finite number of at least 0", "weight decay of every factor"
        ),
        "small_lr": _positive("1e-3", "learning rate on the small matrices"),
        "small_steps": _count("steps on the small matrices"),
        "tolerance": _positive(
            "1e-10", "half the squared errors, divided by the number of all entries, at which a run ends"
        ),
        "weight_decays": _list_of(
            _NonNegative, "finite numbers of at least 0", "[0.0, 0.1]", "weight decays of every factor"
        ),
        "n_steps": _count("steps of gradient descent in the figure"),
        "long_n_steps": _count("steps of gradient descent in the longer runs"),
        "stop": _positive("1e-6", "training loss at which a run ends"),
        "max_steps": _count("steps after which a run is given up"),
        "nuclear_tolerance": Parameter(
            TypeAdapter(_Fraction), "a number between 0 and 1, such as 1e-8", "tolerance of the convex program's solver"
        ),
        "flow_rtol": Parameter(
            TypeAdapter(_Fraction), "a number between 0 and 1, such as 1e-3", "gradient flow's tolerance"
        ),
        "rtols": _list_of(_Fraction, "numbers between 0 and 1", "[1e-2, 1e-4]", "tolerances of all integrators"),
        "lr_shares": _list_of(
            _Fraction, "numbers between 0 and 1", "[0.9, 0.3]", "learning rates over the largest stable one"
        ),
        "transition_times": _positives("[86.0, 106.0]", "flow times between which records are close"),
        "smaller_horizon": _positive("400.0", "time at which the gradient flow ends at the smaller size"),
        "horizon": _positive("100.0", "time at which the gradient flow ends"),
        # one measurement
        "strength_ratio": Parameter(
            TypeAdapter(_Fraction),
            "a number between 0 and 1, such as 0.6",
            "how strongly the measurement pulls at the first singular value, relative to the second",
        ),
        "start_value": _positive("0.05", "singular values of the product at the start"),
        "start_ratios": _positives("[0.5, 1.0]", "first singular value over the second at the start"),
        "reach": _positive("5.0", "value that the second singular value is followed to"),
        "finite_difference_steps": _list_of(
            _DifferenceStep,
            "numbers above 0 and at most 0.01",
            "[1e-2, 1e-5]",
            "time steps of the central differences that judge formulas",
        ),
        # what is kept
        "n_records": _count("points kept along a trajectory"),
        "n_singular_values": _count("largest singular values kept"),
        "exponents": _list_of(_Fraction, "numbers between 0 and 1", "[0.1, 0.5]", "exponents of Schatten quasi-norms"),
        "epsilons": _list_of(_Fraction, "numbers between 0 and 1", "[1e-3, 0.1]", "sizes of a perturbation"),
        # the real data
        "dataset": _choice(Literal["movielens-100k", "synthetic"], '"movielens-100k" or "synthetic"', "ratings to fit"),
        "movielens": Parameter(
            TypeAdapter(_NonEmptyText),
            '"auto" or the path of a MovieLens 100K u.data or zip file',
            "where the MovieLens 100K ratings come from",
            is_text=True,
        ),
        "n_ratings": _count("ratings used, the first ones of the file"),
        "n_users": _count("users, the rows of the rating matrix"),
        "n_items": _count("items, the columns of the rating matrix"),
        "movielens_horizon": _positive("0.4", "time at which the flow on the ratings ends"),
        "movielens_lrs": _positives("[1e-3, 4e-4]", "learning rates on the ratings"),
        "movielens_hidden_width": _count("hidden width of the factorization of the ratings"),
        # a matrix of one's own
        "matrix_file": Parameter(
            TypeAdapter(_Text),
            'the path of a .csv, .tsv, .npy or .parquet file as text, or "" for the example matrix',
            "file that the matrix is read from",
            is_text=True,
            is_file=True,
        ),
        "held_out": Parameter(
            TypeAdapter(_Fraction),
            "a number between 0 and 1, such as 0.1",
            "share of the known entries that is held out",
        ),
        "held_out_seeds": _list_of(_Seed, _SEEDS, "[0, 1, 2]", "seeds that draw the entries held out"),
        # how it is computed
        "device": _choice(Literal["auto", "cpu", "cuda"], '"auto", "cpu" or "cuda"', "processor that computes"),
        "recompute": Parameter(
            TypeAdapter(Annotated[bool, Field(strict=True)]),
            "True or False",
            "compute even where a stored result exists",
        ),
        "results": Parameter(
            TypeAdapter(_Text),
            'the path of a folder as text, or "" for the book\'s own folder',
            "folder of the stored results",
            is_text=True,
        ),
    }
)
