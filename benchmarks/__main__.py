"""``python -m benchmarks NAME``: measure one group of speeds on the machine at hand; without a name, all of them."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated

import torch
import typer

from benchmarks import compiled, figure1, growth, peak, products, recovery, steps, stop, workers
from benchmarks import compression as compression_group
from benchmarks.rows import Row, machine, table, write_json
from dmfkit import CompletionTask, Start
from dmfkit.errors import InputError
from dmfkit.experiments.experiment import choose_device
from dmfkit.problems.tasks import SparseCompletionTask

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)

Json = Annotated[Path | None, typer.Option(help="Write the rows, and what the machine is, to this file.")]
Device = Annotated[str, typer.Option(help="'auto', 'cpu' or 'cuda'.")]
Repeats = Annotated[int, typer.Option(min=1, help="Of each measurement; medians are reported.")]
Size = Annotated[int, typer.Option("--d", min=4, help="Rows and columns of the matrix.")]
Rank = Annotated[int, typer.Option(min=1, help="Of the matrix.")]
Observed = Annotated[int, typer.Option(min=1, help="Observed entries.")]
Runs = Annotated[int, typer.Option(min=1, help="Runs in the batch.")]
Depths = Annotated[list[int], typer.Option("--depth", min=1, help="Repeat the option for several.")]


@app.callback(invoke_without_command=True)
def every(
    context: typer.Context,
    device: Device = "auto",
    long: Annotated[bool, typer.Option("--long", help="With what takes minutes: the grids of Figure 1.")] = False,
    json: Json = None,
) -> None:
    """Measure speeds, side by side in one run: one group, or all. Compare ratios: seconds belong to the machine."""
    if context.invoked_subcommand is not None:
        return
    # What each command measures when nothing is said.
    groups: dict[str, Callable[[], list[Row]]] = {
        "steps": lambda: _steps(device),
        "peak": lambda: peak.rows(CompletionTask(), (2, 3, 4), 24, choose_device(device), 7),
        "stop": lambda: stop.rows(_released(100, 5, 2000), Start(), choose_device(device), 600.0),
        "workers": lambda: workers.rows(CompletionTask(), (2, 3, 4), 4),
        "compression": lambda: compression_group.rows(1000, 5, 0.2, device, 5),
        "size": _size,
    }
    if long:
        groups["figure1"] = lambda: figure1.rows(figure1.settings(), device, None)
    found = []
    for name, measure in groups.items():
        typer.echo(f"measuring {name}", err=True)
        found += measure()
    _show("all", found, choose_device(device), json)


@app.command("steps")
def steps_command(
    d: Size = 100,
    rank: Rank = 5,
    n_observed: Observed = 2000,
    depth: Depths = [2, 3, 4],  # noqa: B006
    runs: Runs = 24,
    dtype: Annotated[list[str], typer.Option(help="'float64' or 'float32'; repeat for both.")] = ["float64"],  # noqa: B006
    wide: Annotated[int, typer.Option(min=0, help="Size of full and compressed steps; 0 for none.")] = 1000,
    device: Device = "auto",
    repeats: Repeats = 7,
    json: Json = None,
) -> None:
    """Seconds per run and step, against autograd through nn.Linear and against JAX."""
    task = CompletionTask(d=d, rank=rank, n_observed=n_observed)
    _show("steps", _steps(device, task, depth, runs, dtype, wide, repeats), choose_device(device), json)


@app.command("peak")
def peak_command(
    d: Size = 100,
    rank: Rank = 5,
    n_observed: Observed = 2000,
    depth: Depths = [2, 3, 4],  # noqa: B006
    runs: Runs = 24,
    device: Device = "auto",
    repeats: Repeats = 7,
    json: Json = None,
) -> None:
    """Share of the machine's rate of matrix products that steps of gradient descent attain."""
    task, chosen = CompletionTask(d=d, rank=rank, n_observed=n_observed), choose_device(device)
    _show("peak", peak.rows(task, depth, runs, chosen, repeats), chosen, json)


@app.command("stop")
def stop_command(
    d: Size = 100,
    rank: Rank = 5,
    n_observed: Observed = 2000,
    depth: Annotated[int, typer.Option(min=1)] = 3,
    init_scale: Annotated[float, typer.Option(help="Norm of the initial product.")] = 1e-3,
    limit: Annotated[float, typer.Option(min=0.1, help="Seconds after which the reference is ended.")] = 600.0,
    device: Device = "auto",
    json: Json = None,
) -> None:
    """Seconds and gradient evaluations of flow, descent, GroupRMSprop and the reference, to the stop."""
    task, chosen = _released(d, rank, n_observed), choose_device(device)
    _show("stop", stop.rows(task, Start(depth=depth, init_scale=init_scale), chosen, limit), chosen, json)


@app.command("workers")
def workers_command(
    d: Size = 100,
    rank: Rank = 5,
    n_observed: Observed = 2000,
    depth: Depths = [2, 3, 4],  # noqa: B006
    seeds: Annotated[int, typer.Option(min=1, help="Runs of each depth.")] = 4,
    json: Json = None,
) -> None:
    """One sweep in this process, and on one and two workers on this machine."""
    task = CompletionTask(d=d, rank=rank, n_observed=n_observed)
    _show("workers", workers.rows(task, depth, seeds), torch.device("cpu"), json)


@app.command("figure1")
def figure1_command(
    workers: Annotated[int | None, typer.Option(min=1, help="Processes; as many as cores if not given.")] = None,
    device: Device = "auto",
    json: Json = None,
) -> None:
    """Both grids of Figure 1 of Arora et al. (2019), 72 flows and 144 descents: minutes."""
    _show("figure1", figure1.rows(figure1.settings(), device, workers), choose_device(device), json)


@app.command()
def compression(
    d: Annotated[int, typer.Option(min=20, help="Rows and columns of the matrix.")] = 1000,
    rank: Annotated[int, typer.Option(min=1, help="Of the matrix, and the bound of it that is used.")] = 5,
    observed_share: Annotated[float, typer.Option(min=0.0, max=1.0, help="Observed share of entries.")] = 0.2,
    device: Device = "auto",
    repeats: Repeats = 5,
    json: Json = None,
) -> None:
    """Compressed, full-width and narrow factorizations of one completion problem."""
    chosen = choose_device(device)
    rows = compression_group.rows(d, rank, observed_share, device, repeats)
    _show("compression", rows, chosen, json)


@app.command()
def size(
    d: Annotated[int, typer.Option(min=100, help="Rows and columns of the smallest matrix.")] = 4000,
    rank: Annotated[int, typer.Option(min=1, help="Of the matrix, and the bound of it that is used.")] = 5,
    per_row: Annotated[int, typer.Option(min=1, help="Observed entries per row, on average.")] = 50,
    repeats: Repeats = 5,
    part: Annotated[str, typer.Option(help="'growth', 'products', 'recovery' or 'all'.")] = "all",
    json: Json = None,
) -> None:
    """Sparse completion: growth of time and memory, ways to compute, and recovery beside other methods."""
    name = "size" if part == "all" else part
    _show(name, _size(d, rank, per_row, repeats, part), torch.device("cpu"), json)


def _size(d: int = 4000, rank: int = 5, per_row: int = 50, repeats: int = 5, part: str = "all") -> list[Row]:
    if part not in ("growth", "products", "recovery", "all"):
        raise InputError(f"part = {part!r} is not allowed: choose 'growth', 'products', 'recovery' or 'all'.")
    # The scale of the matrix is that of the leading part of a Gaussian one.
    norm = 2.0 * (d * rank) ** 0.5
    task = SparseCompletionTask(d=d, rank=rank, n_observed=per_row * d, target_norm=norm, n_held_out=5 * d)
    rows: list[Row] = []
    if part in ("growth", "all"):
        rows += growth.rows(growth.Point(d, per_row * d, 2 * rank), rank, repeats)
    if part in ("products", "all"):
        rows += products.rows(task.problem(), 2 * rank, repeats)
    if part in ("recovery", "all"):
        rows += recovery.rows(task.problem(), rank)
    return rows


def _steps(
    device: str,
    task: CompletionTask = CompletionTask(),  # noqa: B008
    depths: Sequence[int] = (2, 3, 4),
    runs: int = 24,
    dtypes: Sequence[str] = ("float64",),
    wide: int = 1000,
    repeats: int = 7,
) -> list[Row]:
    for dtype in dtypes:
        if dtype not in ("float64", "float32"):
            raise InputError(f"dtype = {dtype!r} is not allowed: choose 'float64' or 'float32'.")
    chosen = choose_device(device)
    if not compiled.available():
        typer.echo(compiled.ABSENT, err=True)
    found = steps.rows(task, depths, runs, dtypes, chosen, repeats)
    return [*found, *(steps.wide_rows(wide, task.rank, 0.2, chosen, repeats) if wide else [])]


def _released(d: int, rank: int, n_observed: int) -> CompletionTask:
    """Rescaled to Frobenius norm ``d``, as in the code released with Arora et al. (2019)."""
    return CompletionTask(d=d, rank=rank, n_observed=n_observed, target_norm=float(d))


def _show(group: str, rows: list[Row], device: torch.device, json: Path | None) -> None:
    typer.echo(f"{group} on {machine(device)['device']}\n{table(rows)}")
    if json is not None:
        write_json(json, rows, device, group)


def main() -> None:
    """Run the command line; wrong input is one sentence."""
    try:
        names = [
            str(command.name or command.callback.__name__) for command in app.registered_commands if command.callback
        ]
        if sys.argv[1:] and not sys.argv[1].startswith("-") and sys.argv[1] not in names:
            raise InputError(f"there is no group {sys.argv[1]!r}: choose one of {', '.join(names)}, or none for all.")
        app()
    except InputError as error:
        typer.echo(str(error), err=True)
        sys.exit(2)


if __name__ == "__main__":
    main()
