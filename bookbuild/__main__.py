"""The command line: builds the book, computes its stored results anew, re-runs chapters, cleans notebooks."""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from typing import Annotated

import typer

from bookbuild import Layout
from bookbuild import build as build_book
from bookbuild.build import publish_results
from bookbuild.generated import FIGURE, draw_readme_figure
from bookbuild.notebooks import run_processes
from bookbuild.outputs import strip_file
from bookbuild.project import PAPER, BuildError
from bookbuild.repository import write_repository
from bookbuild.rerun import rerun
from bookbuild.rerun.on_cluster import on_cluster, opener
from dmfkit.errors import InputError

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # else it takes the brackets in help texts for styles and drops them
)


@app.command()
def book(
    preset: Annotated[str, typer.Option(help="'paper', or the name of a file in notebooks/presets.")] = "paper",
    only: Annotated[list[str] | None, typer.Option(help="Chapters, such as 01; may be repeated.")] = None,
    recompute: Annotated[bool, typer.Option("--recompute", help="Ignore the stored results.")] = False,
    jobs: Annotated[int | None, typer.Option(help="Chapters executed at a time [default: one per core].")] = None,
    repository: Annotated[str | None, typer.Option(help="Replaces the address in _config.yml for this build.")] = None,
    root: Annotated[Path, typer.Option(help="The project's folder.")] = Path(),
    output: Annotated[Path | None, typer.Option(help="Folder for all that is made [default: ROOT/_build].")] = None,
) -> None:
    """Execute the chapters and build the book as HTML."""
    layout = Layout(root.resolve(), (output or root / "_build").resolve())
    build_book(layout, preset=preset, only=only or (), recompute=recompute, jobs=jobs, repository=repository)
    typer.echo(f"The book is {layout.html / 'index.html'}")


@app.command("publish-results")
def publish(
    jobs: Annotated[int | None, typer.Option(help="Chapters executed at a time [default: one per core].")] = None,
    root: Annotated[Path, typer.Option(help="The project's folder.")] = Path(),
) -> None:
    """Compute the stored results, and the README's figure, anew with the papers' settings."""
    layout = Layout(root.resolve(), (root / "_build" / "publish").resolve())
    for path in publish_results(layout, jobs):
        typer.echo(f"{path.name}: {path.stat().st_size / 1024:.0f} KiB")
    (layout.root / FIGURE).write_bytes(draw_readme_figure(layout))
    typer.echo(f"{FIGURE}: drawn from them")


@app.command("repository")
def set_repository(
    url: Annotated[str, typer.Argument(help="Such as https://github.com/OWNER/NAME; '' for none.")],
    branch: Annotated[str | None, typer.Option(help="What Colab and Binder open; unchanged if not given.")] = None,
    root: Annotated[Path, typer.Option(help="The project's folder.")] = Path(),
) -> None:
    """Say where the sources are published: in _config.yml, and in the first code cell of every chapter."""
    layout = Layout(root.resolve(), (root / "_build").resolve())
    for path in write_repository(layout, url, branch):
        typer.echo(f"{path.relative_to(layout.root)}: written")


@app.command("rerun")
def rerun_sets(
    notebook: Annotated[Path, typer.Argument(help="The notebook, such as notebooks/06_one_measurement.ipynb.")],
    sets: Annotated[Path, typer.Argument(help="YAML: a list of parameter sets, or the values of each parameter.")],
    output: Annotated[Path, typer.Option(help="Folder for the executed notebooks and for results.nc.")],
    preset: Annotated[
        str, typer.Option(help="Values where a set has none: 'paper', or a preset such as 'quick'.")
    ] = PAPER,
    jobs: Annotated[int | None, typer.Option(help="Notebooks executed at a time [default: one per core].")] = None,
    where: Annotated[
        str | None,
        typer.Option("--cluster", help="Address of a Dask scheduler, or 'local' for Dask workers on this machine."),
    ] = None,
    root: Annotated[Path, typer.Option(help="The project's folder.")] = Path(),
) -> None:
    """Execute a notebook with many parameter sets, and put the results side by side."""
    layout = Layout(root.resolve(), output.resolve())
    runner = run_processes if where is None else on_cluster(opener(where, jobs))
    try:
        target = rerun(layout, notebook, sets, preset=preset, jobs=jobs, run_jobs=runner)
        typer.echo(f"The results are in {target}")
    except KeyboardInterrupt:
        typer.echo("Interrupted. What was finished is kept: the same command goes on from there.", err=True)
        raise typer.Exit(130) from None


@app.command()
def strip(notebooks: Annotated[list[Path], typer.Argument(help="Notebook files, changed in place.")]) -> None:
    """Clear outputs, execution counts and widget state from notebooks."""
    for notebook in notebooks:
        if not notebook.is_file():
            raise InputError(f"There is no notebook {notebook}: name existing .ipynb files.")
        typer.echo(f"{notebook}: {'stripped' if strip_file(notebook) else 'was clean'}")


def _interrupt(signal_number: int, frame: object) -> None:  # noqa: ARG001
    raise KeyboardInterrupt


def main() -> None:
    """Run the command line; mistakes end in one sentence and exit code 2, failed builds in exit code 1."""
    # A terminated build must stop its workers as an interrupted one does.
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        app()
    except InputError as error:
        sys.exit(_say(str(error), 2))
    except BuildError as error:
        sys.exit(_say(f"{error.heading}\n{error}", 1))


def _say(text: str, code: int) -> int:
    typer.echo(text, err=True)
    return code


if __name__ == "__main__":
    main()
