"""Compress it: errors of wide, compressed and narrow factorizations, against iterations and against time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from dmfkit.errors import InputError
from dmfkit.interactive.explorable import Explorable

Kind = Literal["wide", "compressed", "narrow"]
Array = NDArray[np.float64]


@dataclass(frozen=True)
class ErrorCurve:
    """One run as the reader sees it.

    Attributes
    ----------
    kind : {"wide", "compressed", "narrow"}
    times, errors : arrays of equal length
        Flow times, rising from 0 to the end of the run, and relative errors ``||W - Phi||_F^2 / ||Phi||_F^2``.
    met : bool
        Whether the run ended by the stopping rule and not at its horizon.
    stable_lr : float
        Largest step at which gradient descent is stable along the run.
    step_seconds : float
        What a step of gradient descent costs.
    discrepant_rate : float
        ``gamma`` of a compressed run.
    rank_bound : int
        ``r_hat``; a narrow run has the hidden width ``2 r_hat``. 0 for a wide one.
    """

    kind: Kind
    times: Array
    errors: Array
    met: bool
    stable_lr: float
    step_seconds: float
    discrepant_rate: float = 0.0
    rank_bound: int = 0

    @property
    def key(self) -> tuple[str, float, int]:
        """What tells the run from others of one problem."""
        return self.kind, self.discrepant_rate, self.rank_bound


@dataclass(frozen=True)
class CompressionRace:
    """Runs on one problem.

    Attributes
    ----------
    d, rank : int
    observed_share, lr : float
        ``lr`` turns flow times into iterations.
    device : str
        On which the steps were timed.
    curves : sequence of ErrorCurve
        One wide run; compressed ones for every pair of their rates and bounds; narrow ones or none.
    missed : mapping of int to float
        By rank bound, the least relative error that fixed frames allow.
    beyond : mapping of int to float
        By rank bound, the least relative error of matrices of rank ``2 r_hat``.
    """

    d: int
    rank: int
    observed_share: float
    lr: float
    device: str
    curves: Sequence[ErrorCurve]
    missed: Mapping[int, float]
    beyond: Mapping[int, float]

    @property
    def rates(self) -> list[float]:
        """Rates ``gamma`` of the compressed runs, ascending."""
        return sorted({curve.discrepant_rate for curve in self.curves if curve.kind == "compressed"})

    @property
    def bounds(self) -> list[int]:
        """Rank bounds of the compressed runs, ascending."""
        return sorted({curve.rank_bound for curve in self.curves if curve.kind == "compressed"})


class CompressIt(Explorable):
    """Which compressed run keeps up with the wide one, in iterations and in time, and which one fails.

    Parameters
    ----------
    picture : Figure
        What stands in its place without JavaScript.
    races : sequence of CompressionRace
        Problems to choose from; the first is shown at first.
    discrepant_rate : float
    rank_bound : int
        Selected at first.

    Raises
    ------
    InputError
        If a run is missing or its times and errors do not fit.
    """

    scripts = ("compress_words.js", "compress_it.js")

    def __init__(
        self, picture: Figure, races: Sequence[CompressionRace], *, discrepant_rate: float, rank_bound: int
    ) -> None:
        if not races:
            raise InputError("there is nothing to compare: give at least one race.")
        for number, race in enumerate(races):
            _check(race, discrepant_rate, rank_bound)
            if any((race.d, race.observed_share) == (other.d, other.observed_share) for other in races[:number]):
                raise InputError(f"a race at d = {race.d} with a share of {race.observed_share:g} is given twice.")
        arrays: dict[str, np.ndarray] = {}
        settings = {
            "rate": float(discrepant_rate),
            "bound": int(rank_bound),
            "races": [_packed(number, race, arrays) for number, race in enumerate(races)],
        }
        super().__init__(settings, arrays, picture)


def _packed(number: int, race: CompressionRace, arrays: dict[str, np.ndarray]) -> dict[str, Any]:
    """Plain values of one race; its times and errors go, end to end, into two arrays."""
    lengths = [len(curve.times) for curve in race.curves]
    arrays[f"times{number}"] = np.concatenate([curve.times for curve in race.curves]).astype(np.float64)
    arrays[f"errors{number}"] = np.concatenate([curve.errors for curve in race.curves]).astype(np.float32)
    return {
        "d": race.d,
        "rank": race.rank,
        "share": race.observed_share,
        "lr": race.lr,
        "device": race.device,
        "rates": race.rates,
        "bounds": race.bounds,
        "missed": [race.missed[bound] for bound in race.bounds],
        "beyond": [race.beyond[bound] for bound in race.bounds],
        "curves": [
            {
                "kind": curve.kind,
                "rate": curve.discrepant_rate,
                "bound": curve.rank_bound,
                "met": curve.met,
                "stable": curve.stable_lr,
                "seconds": curve.step_seconds,
                "from": int(start),
                "count": count,
            }
            for curve, start, count in zip(race.curves, np.cumsum([0, *lengths]), lengths, strict=False)
        ],
    }


def _check(race: CompressionRace, rate: float, bound: int) -> None:
    where = f"the race at d = {race.d}"
    keys = [curve.key for curve in race.curves]
    wanted = [("compressed", g, b) for g in race.rates for b in race.bounds]
    missing = [key for key in [("wide", 0.0, 0), *wanted] if key not in keys]
    if missing or len(set(keys)) < len(keys):
        raise InputError(f"{where} needs every run once; missing: {missing or 'none, but some are doubled'}.")
    if rate not in race.rates or bound not in race.bounds:
        raise InputError(
            f"{where} has no compressed run with discrepant_rate = {rate:g} and rank_bound = {bound}: "
            f"choose from {race.rates} and {race.bounds}."
        )
    for curve in race.curves:
        if len(curve.times) != len(curve.errors) or len(curve.times) < 2 or not bool(np.all(np.diff(curve.times) >= 0)):
            raise InputError(f"{where}, {curve.key}: give at least two rising times and as many errors.")
        if not bool(np.all(np.asarray(curve.errors) > 0)) or not curve.step_seconds > 0:
            raise InputError(f"{where}, {curve.key}: errors and seconds must be positive numbers.")
