"""``python -m benchmarks NAME``: measure one group of speeds on the machine at hand."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import torch
import typer

from benchmarks import compression as compression_group
from benchmarks import growth, products, recovery
from benchmarks.rows import machine, table, write_json
from dmfkit.errors import InputError
from dmfkit.grids import choose_device
from dmfkit.sparse_tasks import SparseCompletionTask

app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False)


@app.callback()
def groups() -> None:
    """Measure speeds, side by side in one run. Compare ratios: seconds belong to the machine."""


@app.command()
def compression(
    d: Annotated[int, typer.Option(min=20, help="Rows and columns of the matrix.")] = 1000,
    rank: Annotated[int, typer.Option(min=1, help="Of the matrix, and the bound of it that is used.")] = 5,
    observed_share: Annotated[float, typer.Option(min=0.0, max=1.0, help="Observed share of entries.")] = 0.2,
    device: Annotated[str, typer.Option(help="'auto', 'cpu' or 'cuda'.")] = "auto",
    repeats: Annotated[int, typer.Option(min=1, help="Of each step; medians are reported.")] = 5,
    json: Annotated[Path | None, typer.Option(help="Write the rows, and what the machine is, to this file.")] = None,
) -> None:
    """Compressed, full-width and narrow factorizations of one completion problem."""
    chosen = choose_device(device)
    rows = compression_group.rows(d, rank, observed_share, device, repeats)
    typer.echo(f"compression at d = {d} on {machine(chosen)['device']}\n{table(rows)}")
    if json is not None:
        write_json(json, rows, chosen)


@app.command()
def size(
    d: Annotated[int, typer.Option(min=100, help="Rows and columns of the smallest matrix.")] = 4000,
    rank: Annotated[int, typer.Option(min=1, help="Of the matrix, and the bound of it that is used.")] = 5,
    per_row: Annotated[int, typer.Option(min=1, help="Observed entries per row, on average.")] = 50,
    repeats: Annotated[int, typer.Option(min=1, help="Of each step; medians are reported.")] = 5,
    part: Annotated[str, typer.Option(help="'growth', 'products', 'recovery' or 'all'.")] = "all",
    json: Annotated[Path | None, typer.Option(help="Write the rows, and what the machine is, to this file.")] = None,
) -> None:
    """Sparse completion: growth of time and memory, ways to compute, and recovery beside other methods."""
    if part not in ("growth", "products", "recovery", "all"):
        raise InputError(f"part = {part!r} is not allowed: choose 'growth', 'products', 'recovery' or 'all'.")
    # The scale of the matrix is that of the leading part of a Gaussian one.
    norm = 2.0 * (d * rank) ** 0.5
    task = SparseCompletionTask(d=d, rank=rank, n_observed=per_row * d, target_norm=norm, n_held_out=5 * d)
    rows = []
    if part in ("growth", "all"):
        rows += growth.rows(growth.Point(d, per_row * d, 2 * rank), rank, repeats)
    if part in ("products", "all"):
        rows += products.rows(task.problem(), 2 * rank, repeats)
    if part in ("recovery", "all"):
        rows += recovery.rows(task.problem(), rank)
    cpu = torch.device("cpu")
    typer.echo(f"size at d = {d} on {machine(cpu)['device']}\n{table(rows)}")
    if json is not None:
        write_json(json, rows, cpu)


def main() -> None:
    """Run the command line; wrong input is one sentence."""
    try:
        app()
    except InputError as error:
        typer.echo(str(error), err=True)
        sys.exit(2)


if __name__ == "__main__":
    main()
