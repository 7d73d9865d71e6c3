"""Figures from datasets, in one style."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import resources
from typing import Any, Literal

import matplotlib.pyplot as plt
import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.image import AxesImage

from dmfkit.training.result import Status

WIDTH = 5.6  # inches: on a phone, labels of 12 points stay readable at this width
MARKERS = ("o", "s", "^", "D")


def use_style() -> None:
    """Use the book's style for all figures of this kernel."""
    with resources.as_file(resources.files("dmfkit.chapters") / "book.mplstyle") as path:
        plt.style.use(str(path))


def converged(dataset: xr.Dataset, name: str) -> xr.DataArray:
    """Return variable `name` where the run converged, ``nan`` elsewhere."""
    return dataset[name].where(dataset["status"] == int(Status.CONVERGED))


def error_panels(descent: xr.Dataset, flow: xr.Dataset) -> Figure:
    """Draw Figure 1 of Arora et al. (2019): reconstruction error against initial norm, a panel a depth and sample size.

    Parameters
    ----------
    descent : Dataset
        ``final_relative_error`` and ``status`` over ``n_observed, depth, init_scale, lr, seed``.
    flow : Dataset
        The same without ``lr``: the limit of small learning rates, drawn as a line in black.
    """
    depths, samples = descent["depth"].values, descent["n_observed"].values
    figure, axes = plt.subplots(
        *(len(depths), len(samples)),
        figsize=(WIDTH if len(samples) > 1 else WIDTH * 0.7, 2.3 * len(depths) + 0.9),
        sharex=True,
        sharey=True,
        squeeze=False,
    )
    for row, depth in enumerate(depths):
        for column, sample in enumerate(samples):
            ax, here = axes[row, column], {"depth": depth, "n_observed": sample}
            limit = converged(flow.sel(here), "final_relative_error")
            ax.plot(limit["init_scale"], limit.mean("seed"), color="black", lw=1.0, label="gradient flow", zorder=1)
            for number, lr in enumerate(descent["lr"].values):
                _error_bars(ax, descent.sel(here).sel(lr=lr), number, f"descent, lr {lr:g}")
            ax.set(xscale="log", yscale="log", title=f"depth {depth}, {sample} entries")
    figure.supxlabel(r"expected Frobenius norm of the initial product, $c$")
    figure.supylabel(r"error $\|W - W^*\|_F^2\,/\,\|W^*\|_F^2$")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=min(len(labels), 3))
    return figure


def _error_bars(ax: Axes, runs: xr.Dataset, number: int, label: str) -> None:
    """Mean and standard deviation over seeds; a cross on the upper edge where a run did not converge."""
    error = converged(runs, "final_relative_error")
    # Curves that coincide are shifted a little so that both can be seen.
    shift = 1.08 ** (2 * number - 1)
    ax.errorbar(
        runs["init_scale"] * shift,
        error.mean("seed"),
        error.std("seed"),
        marker=MARKERS[number % len(MARKERS)],
        color=f"C{number}",
        ls="none",
        capsize=2.5,
        label=label,
    )
    failed = error.isnull().any("seed").values
    top = np.full(int(failed.sum()), 0.97)
    ax.plot(
        runs["init_scale"].values[failed] * shift,
        top,
        marker="x",
        color=f"C{number}",
        ls="none",
        transform=ax.get_xaxis_transform(),
    )


def by_init_scale(
    runs: xr.Dataset,
    rows: Sequence[tuple[str, str, Mapping[str, Any]]],
    references: Mapping[str, Mapping[str, xr.DataArray]] | None = None,
    *,
    limit: xr.Dataset | None = None,
    observed: str = "measurements",
    sharey: Literal["row"] | bool = "row",
) -> Figure:
    """Draw measured quantities against the initial norm: a row a quantity, a column a number of observations.

    Parameters
    ----------
    runs : Dataset
        Over ``n_observed, depth, init_scale, seed``, with ``status``; runs that did not converge are left out.
    rows : sequence of (name, label, options)
        Variables of `runs`, their axis labels, and options for ``Axes.set``.
    references : mapping, optional
        For each label of a horizontal line its values over ``n_observed``, by the name of the variable.
    limit : Dataset, optional
        The same for gradient flow: drawn as lines, and `runs` as points then.
    observed : str
        What the observations are called in the titles.
    sharey : {"row", False}
        Whether the panels of a row share their axis.
    """
    samples, depths = runs["n_observed"].values, runs["depth"].values
    figure, axes = plt.subplots(
        *(len(rows), len(samples)),
        figsize=(WIDTH if len(samples) > 1 else WIDTH * 0.7, 2.3 * len(rows) + 0.9),
        sharex=True,
        sharey=sharey,
        squeeze=False,
    )
    for row, (name, label, settings) in enumerate(rows):
        axes[row, 0].set_ylabel(label)
        for column, sample in enumerate(samples):
            ax, here = axes[row, column], converged(runs.sel(n_observed=sample), name)
            lines = None if limit is None else converged(limit.sel(n_observed=sample), name).mean("seed", skipna=False)
            for number, (line, values) in enumerate((references or {}).items()):
                if name in values:
                    height = float(values[name].sel(n_observed=sample))
                    # The first a dashed line, further ones broad and grey below it, since they may coincide.
                    look: dict[str, Any] = (
                        {"color": "0.75", "lw": 4.0, "zorder": 0}
                        if number
                        else {"color": "black", "ls": "--", "lw": 1.0}
                    )
                    ax.axhline(height, label=line, **look)
            for number, depth in enumerate(depths):
                one, shift = here.sel(depth=depth), 1.0
                if lines is not None:
                    ax.plot(lines["init_scale"], lines.sel(depth=depth), color=f"C{number}", lw=1.0)
                    # Points that coincide are shifted a little so that all can be seen.
                    shift = 1.15 ** (number - (len(depths) - 1) / 2)
                ax.errorbar(
                    *(one["init_scale"] * shift, one.mean("seed", skipna=False), one.std("seed", skipna=False)),
                    marker=MARKERS[number % len(MARKERS)],
                    color=f"C{number}",
                    lw=1.0,
                    ls="-" if lines is None else "none",
                    elinewidth=1.0,
                    capsize=2.5,
                    label=f"depth {depth}",
                )
            ax.set(xscale="log", **settings)
            if row == 0:
                ax.set_title(f"{sample} {observed}")
    figure.supxlabel(r"expected Frobenius norm of the initial product, $c$")
    labelled = {
        label: handle for ax in axes.flat for handle, label in zip(*ax.get_legend_handles_labels(), strict=True)
    }
    figure.legend(labelled.values(), labelled.keys(), loc="outside upper center", ncols=min(len(labelled), 3))
    return figure


def matrices(titled: Sequence[tuple[str, np.ndarray]], *, columns: int, limit: float) -> Figure:
    """Draw matrices as heat maps with one colour scale from ``-limit`` to ``limit``; ``nan`` stays grey."""
    rows = -(-len(titled) // columns)
    figure, axes = plt.subplots(rows, columns, figsize=(WIDTH, WIDTH / columns * rows * 1.04 + 0.3), squeeze=False)
    image: AxesImage | None = None
    for ax, (title, matrix) in zip(axes.flat, titled, strict=False):
        image = ax.imshow(matrix, vmin=-limit, vmax=limit, interpolation="nearest")
        ax.set(title=title, xticks=[], yticks=[], facecolor="0.85")
        ax.grid(False)
    for ax in axes.flat[len(titled) :]:
        ax.set_visible(False)
    if image is not None:
        figure.colorbar(image, ax=list(axes.flat), shrink=0.6, location="bottom", aspect=40)
    return figure


def trajectories(
    panels: Sequence[tuple[str, np.ndarray, np.ndarray]], *, xlabel: str, ylabel: str, **options: Any
) -> Figure:
    """Draw families of curves over time, one panel below the other.

    Parameters
    ----------
    panels : sequence of (title, x, curves)
        ``x`` of shape (moments,), ``curves`` of shape (moments, k), largest first.
    xlabel, ylabel : str
    **options
        Passed to ``Axes.set`` of every panel.
    """
    figure, axes = plt.subplots(len(panels), 1, figsize=(WIDTH, 2.2 * len(panels) + 0.5), squeeze=False)
    colours = plt.get_cmap("viridis")
    for ax, (title, x, curves) in zip(axes[:, 0], panels, strict=True):
        count = curves.shape[1]
        for index in range(count):
            ax.plot(x, curves[:, index], color=colours(0.9 * index / max(count - 1, 1)), lw=1.4)
        ax.set(title=title, xlim=(0, x[-1]), **options)
    figure.supxlabel(xlabel)
    figure.supylabel(ylabel)
    return figure


def bands(
    panels: Sequence[tuple[str, np.ndarray, dict[str, tuple[np.ndarray, np.ndarray]]]],
    *,
    xlabel: str,
    ylabel: str,
    **options: Any,
) -> Figure:
    """Draw means with shaded standard deviations, one panel below the other.

    Parameters
    ----------
    panels : sequence of (title, x, {label: (mean, deviation)})
    xlabel, ylabel : str
    **options
        Passed to ``Axes.set`` of every panel.
    """
    figure, axes = plt.subplots(len(panels), 1, figsize=(WIDTH, 2.5 * len(panels) + 0.5), squeeze=False)
    for ax, (title, x, series) in zip(axes[:, 0], panels, strict=True):
        for number, (label, (mean, deviation)) in enumerate(series.items()):
            ax.plot(x, mean, color=f"C{number}", ls=("-", "--")[number % 2], label=label)
            # Kept above zero, which a logarithmic axis does not have.
            low = np.maximum(mean - deviation, 0.01 * mean)
            ax.fill_between(x, low, mean + deviation, color=f"C{number}", alpha=0.25, lw=0)
        ax.set(title=title, xlim=(0, x[-1]), **options)
    figure.supxlabel(xlabel)
    figure.supylabel(ylabel)
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=min(len(labels), 3))
    return figure


def log_maps(
    rows: Sequence[tuple[str, Sequence[tuple[str, np.ndarray]]]], *, lowest: float, largest: float, split: float = -1.0
) -> Figure:
    """Draw absolute entries of matrices as heat maps with one logarithmic colour scale.

    Parameters
    ----------
    rows : sequence of (label, sequence of (title, matrix))
        Every row of panels has the same number of matrices.
    lowest, largest : float
        Ends of the colour scale; what is smaller, zero included, has the colour of `lowest`.
    split : float
        Number of leading rows and columns to be set off by thin lines; none if negative.
    """
    count = len(rows[0][1])
    figure, axes = plt.subplots(
        len(rows), count, figsize=(WIDTH, WIDTH / count * len(rows) * 0.97 + 0.9), squeeze=False
    )
    scale = LogNorm(lowest, largest)
    image: AxesImage | None = None
    for line, (label, panels) in zip(axes, rows, strict=True):
        line[0].set_ylabel(label)
        for ax, (title, matrix) in zip(line, panels, strict=True):
            shown = np.clip(np.nan_to_num(np.abs(matrix), posinf=largest), lowest, largest)
            image = ax.imshow(shown, norm=scale, cmap="viridis", interpolation="nearest")
            ax.set(xticks=[], yticks=[], title=title)
            ax.grid(False)
            if split >= 0:
                ax.axhline(split - 0.5, color="white", lw=0.6)
                ax.axvline(split - 0.5, color="white", lw=0.6)
    if image is not None:
        figure.colorbar(image, ax=list(axes.flat), shrink=0.7, location="bottom", aspect=40)
    return figure
