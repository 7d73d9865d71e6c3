"""``python -m benchmarks NAME``: measure one group of speeds on the machine at hand."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from benchmarks import compression as compression_group
from benchmarks.rows import machine, table, write_json
from dmfkit.errors import InputError
from dmfkit.grids import choose_device

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


def main() -> None:
    """Run the command line; wrong input is one sentence."""
    try:
        app()
    except InputError as error:
        typer.echo(str(error), err=True)
        sys.exit(2)


if __name__ == "__main__":
    main()
