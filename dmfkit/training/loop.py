"""One training loop for every method: what a method offers, which runs go on, and how they are brought to their end.

A method, such as `Descent` or `Flow`, is a frozen dataclass of plain values. Its `start` makes a `Training`, which
advances a batch of runs; both keep their books in `ActiveRuns`.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from itertools import accumulate, pairwise
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor

from dmfkit.errors import InputError
from dmfkit.factorizations.factorization import Factorization
from dmfkit.gradients.choice import execution_for
from dmfkit.gradients.threads import Workers
from dmfkit.problems.losses import Problem
from dmfkit.training.recorders import Log, Recorder
from dmfkit.training.result import Result, Status, joined

# Metadata of a method's field that may differ between runs of one batch.
PER_RUN = {"per_run": True}


@dataclass(frozen=True)
class Record:
    """What is kept along the way.

    Attributes
    ----------
    recorders : tuple of Recorder
    moments : sequence of numbers
        Steps of descent or times of the flow, ascending.
    on_end : callable, optional
        Called with the number of runs that have ended.
    """

    recorders: tuple[Recorder, ...] = ()
    moments: Sequence[float] = ()
    on_end: Callable[[int], None] | None = None


class Method(Protocol):
    """A way to train, as plain values: a frozen dataclass."""

    moment_name: ClassVar[str]
    """What moments count: ``"step"`` or ``"time"``."""

    stays_in_batch: ClassVar[bool]
    """Whether batches that train side by side are each a `Training`; else one training divides its runs itself."""

    @property
    def dtype(self) -> str:
        """Name of the precision in which a sweep trains."""

    def until(self, moment: float) -> Method:
        """The same, with runs that end at this moment at the latest."""

    def start(
        self,
        runs: ActiveRuns,
        workers: Workers,
        *,
        factor_rates: Sequence[float] = (),
        per_run: Mapping[str, Sequence[Any]] | None = None,
    ) -> Training:
        """Begin to train; see `train`."""


class Training(Protocol):
    """Runs on their way."""

    @property
    def runs(self) -> ActiveRuns:
        """Which of them go on."""

    @property
    def running(self) -> bool:
        """Whether one of them goes on."""

    @property
    def state(self) -> Tensor:
        """States of the runs that go on, ``(k, n_parameters)``; memory that is used again."""

    def squares(self) -> Tensor:
        """Sums of squared residuals of the runs that go on, ``(k,)``."""

    def columns(self) -> dict[str, Tensor]:
        """Steps, evaluations and times of the runs that go on, as named in `Result`, each ``(k,)``."""

    def advance(self, at_most: int | None = None) -> None:
        """Take as many steps in every run as are worth taking before the next look, but not more than so many.

        The steps are the same however they are divided.
        """

    def result(self) -> Result:
        """How the runs have ended."""


class ActiveRuns:
    """The runs of a batch that go on, and what is known of those that have ended.

    Parameters
    ----------
    problem : Problem
    start : Factorization
        Initial factors of all runs; left unchanged.
    record : Record

    Attributes
    ----------
    ids : Tensor of shape (k,), int64
        Numbers of the runs that go on.
    """

    def __init__(self, problem: Problem, start: Factorization, record: Record | None = None) -> None:
        self.problem, self.start, self._record = problem, start, record or Record()
        self.moments = self._record.moments
        n_runs, like = start.n_runs, start.state
        self.ids = torch.arange(n_runs, device=like.device)
        self._log = Log(self._record.recorders, n_runs, len(self.moments))
        self._final: Tensor | None = None
        whole, real = torch.zeros(n_runs, dtype=torch.int64, device=like.device), like.new_full((n_runs,), torch.nan)
        self._columns = {name: whole.clone() for name in ("status", "n_steps", "n_evaluations")}
        self._columns |= {name: real.clone() for name in ("time", "mean_square", "measured_stable_lr")}

    def __len__(self) -> int:
        return len(self.ids)

    def reorder(self, index: Tensor) -> None:
        """Let the active runs stand in this order."""
        self.ids = self.ids[index]

    def write(self, moment: int, rows: Tensor | slice, state: Tensor) -> None:
        """Record states, of those active runs that stand in `rows`, as moment number `moment`."""
        self._log.write(moment, self.ids[rows], self.problem, Factorization(state, self.start.widths))

    def end(self, ended: Tensor, status: Tensor, state: Tensor, squares: Tensor, columns: Mapping[str, Tensor]) -> None:
        """Take runs out, with their results.

        Parameters
        ----------
        ended : Tensor of shape (k,), bool
            Which of the active runs.
        status : Tensor of shape (k,)
            Values of `Status`.
        state : Tensor of shape (k, n_parameters)
        squares : Tensor of shape (k,)
            Sums of squared residuals.
        columns : mapping of str to Tensor
            As from `Training.columns`.
        """
        gone = self.ids[ended]
        if len(gone) == self.start.n_runs:  # as a single large run does: no copy is made
            self._final = state
        else:
            self._final = torch.empty_like(self.start.state) if self._final is None else self._final
            self._final[gone] = state[ended]
        values = {"status": status, "mean_square": squares * self.problem.loss_scale("mean"), **columns}
        for name, value in values.items():
            self._columns[name][gone] = value[ended].to(self._columns[name])
        self.ids = self.ids[~ended]
        if self._record.on_end is not None:
            self._record.on_end(len(gone))

    def diverged(self) -> Tensor:
        """Numbers of the runs that have diverged."""
        return torch.nonzero(self._columns["status"] == int(Status.DIVERGED)).flatten()

    def result(self, measure_stable_lr: Callable[[Result], Tensor] | None = None) -> Result:
        """How the runs have ended; for `measure_stable_lr` see `Result`."""
        final = self.start.state if self._final is None else self._final
        factorization = Factorization(final, self.start.widths)
        return Result(factorization, **self._columns, records=self._log.data, measure_stable_lr=measure_stable_lr)


def train(
    problem: Problem,
    start: Factorization,
    method: Method,
    *,
    factor_rates: Sequence[float] = (),
    per_run: Mapping[str, Sequence[Any]] | None = None,
    record: Record | None = None,
) -> Result:
    """Train a batch of factorizations until every run has ended.

    Parameters
    ----------
    problem : Problem
    start : Factorization
        Initial factors, left unchanged.
    method : Descent or Flow
    factor_rates : sequence of float
        Multipliers of the speed of ``W_1 .. W_N``; empty means those of the method, or all one.
    per_run : mapping of str to sequence
        Fields of the method that may differ between runs, such as a learning rate, with a value for each run.
    record : Record

    Raises
    ------
    InputError
        If the shapes of problem and factorization differ, or rates do not match runs or factors.
    """
    check(problem, start, method, factor_rates, per_run)
    record = record or Record()
    counted = replace(record, on_end=_one_at_a_time(record.on_end))
    with Workers(execution_for(problem, start.widths, start.n_runs)) as workers, workers.library_threads():

        def to_the_end(runs: slice) -> Result:
            active = ActiveRuns(problem, Factorization(start.state[runs], start.widths), counted)
            own = {name: values[runs] for name, values in (per_run or {}).items()}
            training = method.start(active, workers, factor_rates=factor_rates, per_run=own)
            while training.running and not workers.stop.is_set():
                training.advance()
            return training.result()

        number = workers.execution.batches if method.stays_in_batch else 1
        return joined(workers.map(to_the_end, _slices(start.n_runs, number)))


def check(
    problem: Problem,
    start: Factorization,
    method: Method,
    factor_rates: Sequence[float] = (),
    per_run: Mapping[str, Sequence[Any]] | None = None,
) -> None:
    """Raise `InputError` if these cannot be trained together; see `train`."""
    if start.shape != problem.shape:
        raise InputError(f"the factorization gives {start.shape} matrices, but the problem asks for {problem.shape}.")
    check_factor_rates(factor_rates or getattr(method, "factor_rates", ()), start.depth)
    for name, values in (per_run or {}).items():
        if len(values) != start.n_runs:
            raise InputError(f"{len(values)} values of {name} were given for {start.n_runs} runs: give one per run.")
        for value in values:
            replace(method, **{name: value})  # type: ignore[type-var]  # checks it


def check_factor_rates(factor_rates: Sequence[float], depth: int) -> None:
    """Raise `InputError` unless there is none, or one per factor, not negative and not all zero."""
    if factor_rates and len(factor_rates) != depth:
        raise InputError(
            f"{len(factor_rates)} factor_rates were given for depth {depth}: give one per factor, or none."
        )
    if factor_rates and not (all(math.isfinite(rate) and rate >= 0 for rate in factor_rates) and any(factor_rates)):
        raise InputError(
            f"factor_rates = {tuple(factor_rates)} are not allowed: they must be finite, at least 0, and not all 0."
        )


def per_run_fields(method: Method) -> tuple[str, ...]:
    """Names of the fields that may differ between runs of one batch."""
    return tuple(item.name for item in fields(method) if item.metadata.get("per_run", False))  # type: ignore[arg-type]


def per_run_settings(methods: Sequence[Method]) -> dict[str, list[Any]]:
    """Values of those fields, for a batch with one method for each run."""
    return {name: [getattr(method, name) for method in methods] for name in per_run_fields(methods[0])}


def shared_settings(method: Method) -> Method:
    """The method with those fields at their defaults: equal for runs that can train as one batch."""
    defaults = {item.name: item.default for item in fields(method)}  # type: ignore[arg-type]
    return replace(method, **{name: defaults[name] for name in per_run_fields(method)})  # type: ignore[type-var]


def _slices(n_runs: int, number: int) -> list[slice]:
    """Divide runs into batches of like size."""
    edges = [0, *accumulate(len(rows) for rows in torch.arange(n_runs).tensor_split(number))]
    return [slice(first, end) for first, end in pairwise(edges)]


def _one_at_a_time(function: Callable[[int], None] | None) -> Callable[[int], None] | None:
    """Let a function be called by one thread at a time: batches end side by side."""
    if function is None:
        return None
    lock = threading.Lock()

    def call(number: int) -> None:
        with lock:
            function(number)

    return call
