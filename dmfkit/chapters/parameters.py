"""The parameters of one chapter: what their models have in common, and one sentence for a value that is not allowed."""

from __future__ import annotations

import difflib
import html
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, Literal, get_origin

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator
from pydantic.fields import FieldInfo

from dmfkit.chapters.allowed_values import Allowed, read_text
from dmfkit.errors import InputError, brief

if TYPE_CHECKING:
    from typing import Self

# These say where and how something is computed, not what: other values of them leave the paper's experiment as it is.
TECHNICAL = frozenset({"device", "movielens", "recompute", "results"})


class Parameters(BaseModel):
    """The checked parameters of a chapter, each an attribute (lists as tuples).

    A chapter's own subclass has a field for every parameter: its default is the paper's own setting, its type says
    which values are allowed and what they mean, and `check_together` refuses those that contradict one another.

    Attributes
    ----------
    has_paper : bool
        Whether there is a paper, or all settings are the chapter's own.
    """

    # Models are built when they are first used: importing the package does not wait for all of them.
    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)
    has_paper: ClassVar[bool] = True

    def check_together(self) -> None:
        """Raise `InputError` if values contradict one another: for a chapter's own model to override."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        type(self).check_together(self)
        return self

    @classmethod
    def read(cls, given: Mapping[str, Any], chapter: str = "this chapter") -> Self:
        """Check values, by name; what is not given has the paper's own.

        Values may be those that papermill delivers: text is read as the value that it spells, unless the parameter
        itself is text, and a single value stands for a list of one.

        Raises
        ------
        InputError
            If the `chapter` has no parameter of a name, a value is not allowed, or values contradict one another.
        """
        try:
            return cls.model_validate(dict(given))
        except ValidationError as error:
            raise InputError(_sentence(cls, error, given, chapter)) from error

    @classmethod
    def names(cls) -> list[str]:
        """The parameters in the order of their fields, last those that say only where and how to compute."""
        return sorted(cls.model_fields, key=lambda name: name in TECHNICAL)

    @classmethod
    def own(cls) -> Self:
        """Return the paper's own settings."""
        return cls.read({name: field.default for name, field in cls.model_fields.items()})

    @property
    def values(self) -> Mapping[str, Any]:
        """What the chapter runs with, by name."""
        # Not by attribute: a notebook of a reader's own may have a parameter that is called like a method of models.
        return MappingProxyType({name: self.__dict__[name] for name in type(self).names()})

    @property
    def paper(self) -> Mapping[str, Any]:
        """The paper's own settings, by name."""
        return type(self).own().values

    @property
    def changed(self) -> Mapping[str, Any]:
        """The values that differ from the paper's own, by name; those that say only where to compute do not count."""
        paper = self.paper
        return MappingProxyType({n: v for n, v in self.values.items() if v != paper[n] and n not in TECHNICAL})

    @property
    def files(self) -> Mapping[str, str]:
        """The files whose content is part of what is computed, by the parameter that names them."""
        kinds = {name: _allowed(field) for name, field in type(self).model_fields.items()}
        files = {name for name, allowed in kinds.items() if allowed and allowed.is_file}
        return {name: value for name, value in self.values.items() if name in files and value}

    # Hidden from mypy, so that it goes on to know which parameters there are.
    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            raise AttributeError(f"this chapter has no parameter {name}; it has {', '.join(type(self).names())}")

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError(f"{name} cannot be set here: change it in the parameters cell and run the cells again")

    def _repr_html_(self) -> str:
        """Show, folded, a table: parameter, value, the chapter's value where it differs, meaning."""
        head = "".join(f'<th scope="col">{t}</th>' for t in ("parameter", "value", "the chapter's", "meaning"))
        own, rows, differing = self.paper, [], 0
        for name, value in self.values.items():
            differing += value != own[name]
            paper = "same" if value == own[name] else f"<code>{html.escape(show(own[name]))}</code>"
            rows.append(
                f'<tr><th scope="row"><code>{html.escape(name)}</code></th>'
                f"<td><code>{html.escape(show(value))}</code></td><td>{paper}</td>"
                f"<td>{html.escape(type(self).model_fields[name].description or '')}</td></tr>"
            )
        said = f"{differing} of {len(rows)} parameters differ from" if differing else f"All {len(rows)} parameters have"
        whose = ": the paper's, and ours where it gives none." if self.has_paper else "."
        # Focusable, because on a phone the table can be wider than the page and has to be scrolled.
        return (
            f"<details><summary>{said} the chapter's own values{whose}</summary>"
            '<div role="region" aria-label="Parameters of this chapter" tabindex="0"'
            f' style="overflow-x: auto"><table><thead><tr>{head}</tr></thead>'
            f"<tbody>{''.join(rows)}</tbody></table></div></details>"
        )


def _sentence(model: type[Parameters], error: ValidationError, given: Mapping[str, Any], chapter: str) -> str:
    """Say in one sentence what is wrong: first of the names, then of single values, last of values together."""
    problems = error.errors(include_url=False)
    problem = next((one for one in problems if one["type"] == "extra_forbidden"), problems[0])
    if not problem["loc"]:
        return str(problem["ctx"]["error"])
    name = str(problem["loc"][0])
    if problem["type"] == "extra_forbidden":
        return f"{name} is not a parameter of {chapter}: {nearest(name, model.names())}."
    field = model.model_fields[name]
    is_text = field.annotation is str or get_origin(field.annotation) is Literal
    value = given[name] if is_text else read_text(given[name])
    allowed, rule = _allowed(field), str(problem["msg"])
    if allowed:
        example = "" if isinstance(field.default, str | bool | None) else f", such as {show(field.default)}"
        rule = f"{name} must be {allowed.words}{example}"
    return f"{name} = {brief(value)} is not allowed: {rule}."


def _allowed(field: FieldInfo) -> Allowed | None:
    """What a field's type says of allowed values, if anything; the last word where one type refines another."""
    return next((one for one in reversed(field.metadata) if isinstance(one, Allowed)), None)


def nearest(name: str, names: Iterable[str]) -> str:
    """Name the nearest allowed name, if one is near, and all of them."""
    lower = {n.lower(): n for n in names}
    near = difflib.get_close_matches(name.lower(), list(lower), n=1)
    guess = f"did you mean {lower[near[0]]}? " if near else ""
    return f"{guess}allowed are {', '.join(lower.values())}"


def show(value: Any) -> str:
    """Write a value as the parameters cell does, lists in brackets."""
    return repr(list(value) if isinstance(value, tuple) else value)
