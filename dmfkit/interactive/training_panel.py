"""Train-it-yourself: controls over a task, a start and a method, with the run under a stop button.

The picture of a training panel: fall of the errors, and the spectrum against the truth.

Whether somebody sits in front of this notebook.
"""

from __future__ import annotations

import asyncio
import html
import io
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import ipywidgets as widgets
import numpy as np
from IPython.core.getipython import get_ipython
from IPython.display import Image, display
from matplotlib.figure import Figure

from dmfkit.chapters.plotting import WIDTH
from dmfkit.errors import InputError
from dmfkit.experiments.sweeps import check_grid, choose_device
from dmfkit.factorizations.starts import AnyStart
from dmfkit.linalg import spectra
from dmfkit.problems.losses import Problem
from dmfkit.problems.tasks import Task, field_names, with_fields
from dmfkit.training.loop import Method
from dmfkit.training.result import Status
from dmfkit.training.stepping import TrainingState, watch

SHOWN_VALUES = 12


@dataclass
class Trace:
    """What a panel has seen of one run."""

    evaluations: list[int] = field(default_factory=list)
    training: list[float] = field(default_factory=list)
    error: list[float] = field(default_factory=list)
    values: np.ndarray = field(default_factory=lambda: np.empty(0))
    effective_rank: float = float("nan")

    def add(self, now: TrainingState, problem: Problem) -> None:
        """Measure the run where it is; `problem` is the one that the factors solve."""
        end_to_end = problem.lift(now.factorization.end_to_end())
        finite = bool(end_to_end.isfinite().all())
        self.evaluations.append(now.n_evaluations)
        self.training.append(now.mean_square)
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


def has_live_front_end() -> bool:
    """Return whether a front end runs this cell that could ask its user something.

    JupyterLab, Colab and Visual Studio Code say so with every cell they send. Papermill and other programs that
    execute a notebook say that they cannot; there, and outside a notebook, the answer is no.
    """
    kernel = getattr(get_ipython(), "kernel", None)
    return bool(getattr(kernel, "_allow_stdin", False))


# The picture is drawn anew so often, in seconds: more would take time from the training.
PICTURE_EVERY = 0.5

_ENDS = {
    Status.CONVERGED: "The training loss fell below the stopping value.",
    Status.LIMIT: "The limit of steps came first: raise the learning rate, or take gradient flow.",
    Status.DIVERGED: "The run diverged: lower the learning rate.",
    Status.HORIZON: "The end of the flow's time was reached.",
}


class TrainingPanel:
    """Controls and a picture, for a running notebook; elsewhere the picture of one run with what is chosen at first.

    Parameters
    ----------
    task : Task
        What is learned.
    starts, methods : mapping of str to start or method
        What can be chosen, by the name to show; the first ones are chosen at first.
    device : {"auto", "cpu", "cuda"}
    **choices
        Fields of task, starts or methods, each with the values that a control offers. A control is disabled while the
        chosen start and method have no such field. The first value that the task, start or method itself has is
        chosen at first, or else the first one.

    Raises
    ------
    InputError
        For a field that nothing has, an empty list, a value twice.
    """

    def __init__(
        self,
        task: Task,
        starts: Mapping[str, AnyStart],
        methods: Mapping[str, Method],
        *,
        device: str = "auto",
        **choices: Sequence[Any],
    ) -> None:
        parts = (task, *starts.values(), *methods.values())
        check_grid(
            {name: tuple(values) for name, values in choices.items()}, {n for part in parts for n in field_names(part)}
        )
        self._task, self._starts, self._methods = task, dict(starts), dict(methods)
        self._device = choose_device(device)
        self._choices = {name: tuple(values) for name, values in choices.items()}
        self._traces: list[Trace] = []
        self._truth = np.empty(0)
        self._settings = ""
        self._running: asyncio.Task[None] | None = None
        self._build()

    def _build(self) -> None:
        wide = {"style": {"description_width": "9em"}, "layout": widgets.Layout(width="24em")}
        self.start = widgets.Dropdown(options=list(self._starts), description="start", **wide)
        self.method = widgets.Dropdown(options=list(self._methods), description="method", **wide)
        first = {name: self._first(name) for name in self._choices}
        self.knobs = {
            name: widgets.SelectionSlider(
                options=[(_show(value), value) for value in values], value=first[name], description=_words(name), **wide
            )
            for name, values in self._choices.items()
        }
        self.train = widgets.Button(description="Train", button_style="primary", icon="play")
        self.stop = widgets.Button(description="Stop", icon="stop", disabled=True)
        self.text = widgets.HTML()
        self.picture = widgets.Image(format="png", layout=widgets.Layout(max_width="100%", display="none"))
        self.train.on_click(lambda _: self._begin())
        self.stop.on_click(lambda _: self._end())
        for control in (self.start, self.method):
            control.observe(lambda _: self._enable(), names="value")
        chosen = [one for one in (self.start, self.method) if len(one.options) > 1]
        grid = widgets.Layout(display="flex", flex_flow="row wrap")
        self.widget = widgets.VBox(
            [
                widgets.Box([*chosen, *self.knobs.values()], layout=grid),
                widgets.HBox([self.train, self.stop]),
                self.text,
                self.picture,
            ]
        )
        self._enable()
        self._say("Choose, and press Train.")

    def _first(self, name: str) -> Any:
        """Value of a field in the task, or in the first start or method that has it, if it is among the choices."""
        for part in (self._task, *self._starts.values(), *self._methods.values()):
            if name in field_names(part) and getattr(part, name) in self._choices[name]:
                return getattr(part, name)
        return self._choices[name][0]

    def chosen(self) -> tuple[Task, AnyStart, Method]:
        """Return task, start and method with the values that the controls show."""
        values = {name: knob.value for name, knob in self.knobs.items()}
        start, method = self._starts[self.start.value], self._methods[self.method.value]
        return with_fields(self._task, values), with_fields(start, values), with_fields(method, values)

    def _describe(self) -> str:
        """Return what the controls say that have a say."""
        names = [one.value for one in (self.start, self.method) if len(one.options) > 1]
        return ", ".join([*names, *(f"{_words(n)} {_show(k.value)}" for n, k in self.knobs.items() if not k.disabled)])

    def _enable(self) -> None:
        parts = (self._task, self._starts[self.start.value], self._methods[self.method.value])
        known = {name for part in parts for name in field_names(part)}
        for name, knob in self.knobs.items():
            knob.disabled = name not in known

    def _begin(self) -> None:
        if self._running is None or self._running.done():
            self._running = asyncio.ensure_future(self._run())

    def _end(self) -> None:
        if self._running is not None:
            self._running.cancel()

    async def _run(self) -> None:
        self.train.disabled, self.stop.disabled = True, False
        try:
            drawn = 0.0
            for now in self._states():
                self._tell(now)
                if now.status is None and time.perf_counter() - drawn > PICTURE_EVERY:
                    self._draw()
                    drawn = time.perf_counter()
                if now.status is None:
                    # The front end's messages, the stop button among them, are handled here.
                    await asyncio.sleep(0.02)
            self._draw()
        except asyncio.CancelledError:
            self._draw()
            self._say(f"Stopped. {self.text_value}")
        except InputError as error:
            self._say(str(error))
        finally:
            self.train.disabled, self.stop.disabled = False, True

    def _states(self, seconds: float = 0.1) -> Iterator[TrainingState]:
        """Train with what is chosen, measuring as it goes, about every so many seconds."""
        task, start, method = self.chosen()
        problem = task.problem().to(self._device)
        start.widths(problem.shape)
        point = start.begin(problem)
        truth = problem.ground_truth
        if truth is not None:
            self._truth = spectra.singular_values(truth)[:SHOWN_VALUES].cpu().numpy()
        trace = Trace()
        self._traces = [*self._traces[-1:], trace]
        self._settings = self._describe()
        for now in watch(point.problem, point.factorization, method, factor_rates=point.factor_rates, seconds=seconds):
            trace.add(now, point.problem)
            yield now

    def _tell(self, now: TrainingState) -> None:
        trace = self._traces[-1]
        end = _ENDS[now.status] if now.status is not None else "Training."
        self._say(
            f"{self._settings}: {now.n_steps} steps, {now.n_evaluations} gradients, mean square "
            f"{now.mean_square:.3g}, relative error {trace.error[-1]:.3g}, "
            f"effective rank {trace.effective_rank:.3g}. {end}"
        )

    def _say(self, text: str) -> None:
        self.text_value = text
        self.text.value = f'<div role="status">{html.escape(text)}</div>'

    def _draw(self) -> None:
        if self._traces and self._traces[-1].evaluations:
            self.picture.value = self._png()
            self.picture.layout.display = None

    def _png(self) -> bytes:
        with io.BytesIO() as buffer:
            draw(self._traces, self._truth).savefig(buffer, format="png", dpi=144)
            return buffer.getvalue()

    def _ipython_display_(self) -> None:
        if has_live_front_end():
            display(self.widget)
            return
        # Slices of no time are as short as can be: the same picture on every machine.
        for now in self._states(seconds=0.0):
            self._tell(now)
        display(Image(self._png()))


def _words(name: str) -> str:
    return name.replace("_", " ")


def _show(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
