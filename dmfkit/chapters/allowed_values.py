"""Types of the chapters' parameters: which values they allow, how text is read as one, and what the shared ones mean.

A type says in words which values it allows (`Allowed`), for the sentence that refuses another one. Those at the end of
this file also say what they mean, and belong to parameters that several chapters have.
"""

import ast
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, BeforeValidator, Field

# What people type on a command line for values that Python writes with a capital letter.
_WORDS = {"true": True, "false": False, "none": None, "null": None}


@dataclass(frozen=True)
class Allowed:
    """The values that a type allows, in words.

    Attributes
    ----------
    words : str
        Completes "name must be ..."; an example follows them where the parameter's own setting is a number or a list.
    is_file : bool
        Whether it names a file whose content is part of what is computed; empty text names none.
    """

    words: str
    is_file: bool = False


def read_text(value: Any) -> Any:
    """Read text as the Python value that it spells; what spells none stays as it is.

    Papermill's command line delivers ``[2, 5]`` as text, its interface for Python a tuple, and its YAML files ``1e-3``,
    which YAML 1.1 takes for text because it has no point.
    """
    if not isinstance(value, str):
        return value
    text = value.strip()
    if text.lower() in _WORDS:
        return _WORDS[text.lower()]
    try:
        return ast.literal_eval(text)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return value


def _read_list(value: Any) -> tuple[Any, ...]:
    """Read a list; a single value stands for a list of one."""
    given = read_text(value)
    return tuple(given) if isinstance(given, list | tuple) else (given,)


def _different(values: tuple[Any, ...]) -> tuple[Any, ...]:
    if len(set(values)) < len(values):
        raise ValueError("a value is repeated")
    return values


# Single values.
_READ = BeforeValidator(read_text)
_ITEM = TypeVar("_ITEM")

Count = Annotated[int, Field(strict=True, ge=1), _READ, Allowed("a whole number of at least 1")]
# Seeds end where every generator that the book uses still takes them.
Seed = Annotated[int, Field(strict=True, ge=0, lt=2**32), _READ, Allowed("a whole number from 0 to 4294967295")]
Positive = Annotated[float, Field(strict=True, gt=0, allow_inf_nan=False), _READ, Allowed("a finite number above 0")]
NonNegative = Annotated[
    float, Field(strict=True, ge=0, allow_inf_nan=False), _READ, Allowed("a finite number of at least 0")
]
Fraction = Annotated[float, Field(strict=True, gt=0, lt=1), _READ, Allowed("a number between 0 and 1")]
Flag = Annotated[bool, Field(strict=True), _READ, Allowed("True or False")]

# Text is taken as it stands and never read as a number.
Device = Annotated[Literal["auto", "cpu", "cuda"], Allowed('"auto", "cpu" or "cuda"')]
Dataset = Annotated[Literal["movielens-100k", "synthetic"], Allowed('"movielens-100k" or "synthetic"')]
RatingsFile = Annotated[
    str, Field(strict=True, min_length=1), Allowed('"auto" or the path of a MovieLens 100K u.data or zip file')
]
ResultsFolder = Annotated[
    str, Field(strict=True), Allowed('the path of a folder as text, or "" for the book\'s own folder')
]
MatrixFile = Annotated[
    str,
    Field(strict=True),
    Allowed('the path of a .csv, .tsv, .npy or .parquet file as text, or "" for the example matrix', is_file=True),
]

# Lists.
List = Annotated[tuple[_ITEM, ...], Field(min_length=1), BeforeValidator(_read_list)]
Different = Annotated[List[_ITEM], AfterValidator(_different)]

Counts = Annotated[Different[Count], Allowed("a list of whole numbers of at least 1, none of them repeated")]
SeveralSeeds = Annotated[
    Different[Seed], Allowed("a list of whole numbers from 0 to 4294967295, none of them repeated")
]
Positives = Annotated[Different[Positive], Allowed("a list of finite numbers above 0, none of them repeated")]
NonNegatives = Annotated[
    Different[NonNegative], Allowed("a list of finite numbers of at least 0, none of them repeated")
]
Fractions = Annotated[Different[Fraction], Allowed("a list of numbers between 0 and 1, none of them repeated")]
DifferenceSteps = Annotated[
    Different[Annotated[float, Field(strict=True, gt=0, le=1e-2), _READ]],
    Allowed("a list of numbers above 0 and at most 0.01, none of them repeated"),
]
_Side = Annotated[int, Field(strict=True, ge=2, le=12), _READ]
SmallShapes = Annotated[
    Different[Annotated[tuple[_Side, _Side], _READ]],
    Allowed("a list of pairs [rows, columns] of whole numbers from 2 to 12, none of them repeated"),
]
TimeInterval = Annotated[
    tuple[Positive, Positive],
    AfterValidator(_different),
    BeforeValidator(_read_list),
    Allowed("a list of two different finite numbers above 0, the first and the last time"),
]

# Parameters that several chapters have: the problem,
Size = Annotated[Count, Field(description="rows, and columns, of the square matrix")]
Rank = Annotated[Count, Field(description="rank of the ground truth")]
ObservedCounts = Annotated[Counts, Field(description="numbers of observed entries")]
FewerObservedCounts = Annotated[
    Counts, Field(description="smaller numbers of observed entries, at which recovery gets hard")
]
ObservedShare = Annotated[Fraction, Field(description="share of the entries that is observed")]
DataSeed = Annotated[Seed, Field(description="seed of ground truth and observed set")]
DataSeeds = Annotated[SeveralSeeds, Field(description="seeds of ground truth and observed set")]
SmallerSize = Annotated[Count, Field(description="rows, and columns, at which descent at full width is affordable")]
SmallRank = Annotated[Count, Field(description="rank of the small ground truth")]
# the factorization,
Depth = Annotated[Count, Field(description="number of factors")]
Depths = Annotated[Counts, Field(description="numbers of factors")]
InitScale = Annotated[Positive, Field(description="expected Frobenius norm of the initial product")]
InitScales = Annotated[Positives, Field(description="expected Frobenius norms of the initial product")]
LayerScale = Annotated[Positive, Field(description="every singular value of every initial factor")]
LayerScales = Annotated[
    List[Positive],
    Allowed("a list of finite numbers above 0"),
    Field(description="singular values of the initial factors, one for each of them"),
]
RankBound = Annotated[Count, Field(description="upper bound of the rank; compressed weights have twice as many rows")]
RankBounds = Annotated[
    Counts, Field(description="upper bounds of the rank; compressed weights have twice as many rows")
]
DiscrepantRate = Annotated[
    NonNegative, Field(description="learning rate of the frames, relative to that of the cores, gamma")
]
Seeds = Annotated[SeveralSeeds, Field(description="seeds of the initialisation")]
# the training,
LearningRate = Annotated[Positive, Field(description="learning rate")]
LearningRates = Annotated[Positives, Field(description="learning rates")]
WeightDecay = Annotated[NonNegative, Field(description="weight decay of every factor")]
Tolerance = Annotated[
    Positive,
    Field(description="half the squared errors, divided by the number of all entries, at which a run ends"),
]
StoppingLoss = Annotated[Positive, Field(description="training loss at which a run ends")]
MaxSteps = Annotated[Count, Field(description="steps after which a run is given up")]
FlowTolerance = Annotated[Fraction, Field(description="gradient flow's tolerance")]
Horizon = Annotated[Positive, Field(description="time at which the gradient flow ends")]
# and what is kept and looked at.
RecordCount = Annotated[Count, Field(description="points kept along a trajectory")]
SingularValueCount = Annotated[Count, Field(description="largest singular values kept")]
Epsilons = Annotated[Fractions, Field(description="sizes of a perturbation")]
