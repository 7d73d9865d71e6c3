"""The picture of a training panel: fall of the errors, and the spectrum against the truth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from matplotlib.figure import Figure

from dmfkit.chapters.plotting import WIDTH
from dmfkit.linalg import spectra
from dmfkit.problems.losses import Problem
from dmfkit.training.stepping import Moment

SHOWN_VALUES = 12


@dataclass
class Trace:
    """What a panel has seen of one run."""

    evaluations: list[int] = field(default_factory=list)
    training: list[float] = field(default_factory=list)
    error: list[float] = field(default_factory=list)
    values: np.ndarray = field(default_factory=lambda: np.empty(0))
    effective_rank: float = float("nan")

    def add(self, moment: Moment, problem: Problem) -> None:
        """Measure the run where it is; `problem` is the one that the factors solve."""
        end_to_end = problem.lift(moment.factorization.end_to_end())
        finite = bool(end_to_end.isfinite().all())
        self.evaluations.append(moment.n_evaluations)
        self.training.append(moment.mean_square)
        truth = problem.ground_truth
        self.error.append(
            float(spectra.relative_error(end_to_end, truth)[0]) if finite and truth is not None else float("nan")
        )
        if finite:
            values = spectra.singular_values(end_to_end)
            self.values = values[0, :SHOWN_VALUES].cpu().numpy()
            self.effective_rank = float(spectra.effective_rank(values)[0])


def draw(traces: Sequence[Trace], truth: np.ndarray) -> Figure:
    """Draw the runs, the last one in colour and an earlier one in grey behind it.

    Parameters
    ----------
    traces : sequence of Trace
        One or two runs, the present one last.
    truth : array
        Singular values of the matrix to be found, greatest first.
    """
    figure = Figure(figsize=(WIDTH, 6.0), layout="constrained")
    fall, spectrum = figure.subplots(2, 1)
    looks = [("the run before", "0.6", "0.75"), ("training", "C0", "C1")][-len(traces) :]
    for trace, (name, dark, light) in zip(traces, looks, strict=True):
        fall.plot(trace.evaluations, trace.training, color=dark, label=name)
        fall.plot(trace.evaluations, trace.error, color=light, ls="--", label="error" if dark == "C0" else None)
        spectrum.plot(
            np.arange(1, len(trace.values) + 1), trace.values, "o", color=dark, label="found" if dark == "C0" else None
        )
    spectrum.plot(np.arange(1, len(truth) + 1), truth, "_", color="black", ms=18, label="truth")
    fall.set(yscale="log", xlabel="gradients evaluated", ylabel="mean square, error")
    spectrum.set(xlabel="number", ylabel="singular value", xticks=range(1, SHOWN_VALUES + 1))
    for ax in (fall, spectrum):
        ax.legend()
    return figure
