"""Reads the parameters of a running chapter from the cells that set them, and checks them before anything is trained.

Papermill injects whatever it is given: about a name that the notebook does not have it only warns, and about the values
it says nothing. `read_parameters` checks what the notebook holds against the chapter's model.
"""

from __future__ import annotations

import ast
import warnings
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, create_model

from dmfkit.chapters.allowed_values import read_text
from dmfkit.chapters.parameters import Parameters, show
from dmfkit.errors import InputError, brief

PARAMETERS_CELL = "# The paper's own settings"
# The same in a chapter behind which there is no paper.
OWN_PARAMETERS_CELL = "# The chapter's own settings"
INJECTED_CELL = "# Parameters"


def find_cells(namespace: Mapping[str, Any]) -> tuple[str, str]:
    """Find the sources of the parameters cell and of the injected cell.

    Parameters
    ----------
    namespace : mapping
        A notebook's `globals()`, with IPython's list `In` of the sources of the cells run so far.

    Returns
    -------
    own, injected : str
        The last cell that starts with `PARAMETERS_CELL` or `OWN_PARAMETERS_CELL`, and the last after it whose first
        line is `INJECTED_CELL`, empty where there is none.

    Raises
    ------
    InputError
        If this is no notebook's namespace, or no parameters cell has been run.
    """
    history = namespace.get("In")
    if not isinstance(history, list):
        raise InputError(
            "Parameters can only be read in a running notebook: call read_parameters(globals()) in a cell."
        )
    first_lines = [source.strip().partition("\n")[0].strip() for source in history]
    own = [i for i, line in enumerate(first_lines) if line.startswith((PARAMETERS_CELL, OWN_PARAMETERS_CELL))]
    if not own:
        raise InputError(f'No cell that starts with "{PARAMETERS_CELL}" has been run: run the parameters cell first.')
    injected = [i for i, line in enumerate(first_lines) if line == INJECTED_CELL and i > own[-1]]
    return history[own[-1]], history[injected[-1]] if injected else ""


def assignments(source: str) -> dict[str, ast.expr]:
    """Read a cell as assignments to single names.

    Raises
    ------
    InputError
        If the cell holds anything else.
    """
    try:
        body = ast.parse(source).body
    except SyntaxError as error:
        raise InputError(f"Line {error.lineno} of the parameters cell is not Python: correct it.") from error
    found = {}
    for node in body:
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        value = node.value if isinstance(node, ast.Assign | ast.AnnAssign) else None
        if value is None or len(targets) != 1 or not isinstance(targets[0], ast.Name):
            raise InputError(
                f"The parameters cell has the line {brief(ast.unparse(node))}, but only assignments "
                "such as d = 100 may stand there: move it to another cell."
            )
        found[targets[0].id] = value
    return found


def literals(source: str) -> dict[str, Any]:
    """Read a cell as assignments of literal values.

    Raises
    ------
    InputError
        If the cell holds anything else.
    """
    found = {}
    for name, expression in assignments(source).items():
        try:
            found[name] = ast.literal_eval(expression)
        except (ValueError, TypeError) as error:
            raise InputError(
                f"The parameters cell sets {name} to {brief(ast.unparse(expression))}, which would have to "
                "be computed: write the value itself, such as [0, 1, 2] for list(range(3))."
            ) from error
    return found


# `papermill --inject-paths` adds these two when it is asked to; they set nothing in a chapter.
PAPERMILL_NAMES = ("PAPERMILL_INPUT_PATH", "PAPERMILL_OUTPUT_PATH")


def chapter_models() -> dict[str, type[Parameters]]:
    """Return the models of all chapters by the chapters' names."""
    # Defining them takes 50 ms, which `import dmfkit` need not wait for.
    from dmfkit.chapters.paper_settings import CHAPTERS

    return CHAPTERS


def chapter_model(chapter: str) -> type[Parameters]:
    """Return the model of a chapter's parameters.

    Raises
    ------
    InputError
        If there is no such chapter.
    """
    models = chapter_models()
    if chapter not in models:
        raise InputError(f"{chapter!r} is no chapter of the book: the chapters are {', '.join(models)}.")
    return models[chapter]


def paper_settings(chapter: str) -> dict[str, Any]:
    """Return a chapter's own settings as the package keeps them: an edited notebook cannot change these.

    Raises
    ------
    InputError
        If there is no such chapter.
    """
    return dict(chapter_model(chapter).own().values)


def model_of_cell(own: Mapping[str, Any], has_paper: bool = False) -> type[Parameters]:
    """Make a model for a notebook that is no chapter, from the values in its parameters cell.

    A name that the book has is checked as in the first chapter that has it. Any other may have any value; text is read
    as the value that it spells unless the cell has text there, too.

    Raises
    ------
    InputError
        If a parameter has a name that no field of a model can have.
    """
    models = chapter_models()
    known = {name: field for model in reversed(models.values()) for name, field in model.model_fields.items()}
    fields: dict[str, Any] = {}
    for name, value in own.items():
        if name.startswith("_") or (name.startswith("model_") and hasattr(Parameters, name)):
            raise InputError(f"The parameters cell sets {name}, which cannot be a parameter's name: choose another.")
        kind: Any = Any if isinstance(value, str) else Annotated[Any, BeforeValidator(read_text)]
        if name in known:
            field = known[name]
            kind = Annotated[(field.annotation, *field.metadata, Field(description=field.description))]
        fields[name] = (kind, value)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of names that a model has, too, such as copy
        model = create_model("NotebookParameters", __base__=Parameters, **fields)
    model.has_paper = has_paper
    return model


def read_parameters(namespace: Mapping[str, Any], chapter: str | type[Parameters] = "") -> Parameters:
    """Check the parameters of the running notebook.

    Parameters
    ----------
    namespace : mapping
        The notebook's `globals()`. IPython's list `In` in it has the source of every cell run so far:
        the parameters cell, which starts with the comment ``# The paper's own settings`` (``# The chapter's own
        settings`` where there is no paper), and the cell that papermill injects after it.
    chapter : str or subclass of Parameters
        Name of the chapter, whose own settings the package knows, or a model of one's own. Without it the parameters
        cell is taken at its word, and only names that the book has are checked.

    Returns
    -------
    checked : Parameters
        The values, the paper's own values and where they differ.

    Raises
    ------
    InputError
        If there is no parameters cell, papermill was given a name that the cell lacks, a value is not
        allowed, or values contradict one another.
    """
    own, injected = find_cells(namespace)
    written = literals(own)
    if isinstance(chapter, str) and not chapter:
        model = model_of_cell(written, own.strip().startswith(PARAMETERS_CELL))
        model.own()
    else:
        model = chapter_model(chapter) if isinstance(chapter, str) else chapter
        for name in model.names():
            if name not in written:
                line = f"{name} = {show(model.model_fields[name].default)}"
                raise InputError(f"The parameters cell lacks {name}: put back the line {line}.")
    given = [*written, *(name for name in assignments(injected) if name not in PAPERMILL_NAMES)]
    return model.read({name: namespace[name] for name in given})
