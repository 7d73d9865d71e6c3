"""Plain values: frozen dataclasses of numbers and words that say what was computed.

Tasks, starts, methods and recorders are such values. They stand in the key of a stored result as their class name and
their fields, and are made again from those when the result is checked. A class takes part by the decorator
`plain_value`, wherever it is defined.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any, TypeVar

from dmfkit.errors import InputError

# Metadata of a field whose default means what was meant before there was the field.
ADDED_LATER = {"added_later": True}

Value = TypeVar("Value")

_KINDS: dict[str, type] = {}


def plain_value(kind: type[Value]) -> type[Value]:
    """Let instances of a frozen dataclass be made again from `key_values`; decorates the class.

    Raises
    ------
    InputError
        If a class of another module has the same name: stored results tell classes apart by their names alone. The
        same module may define its class anew, as a notebook's cell does that is run twice.
    """
    known = _KINDS.setdefault(kind.__name__, kind)
    if known.__module__ != kind.__module__:
        raise InputError(
            f"{kind.__name__} is the name of a class in {known.__module__} already: give the one in {kind.__module__} "
            "another name, since stored results tell classes apart by their names."
        )
    _KINDS[kind.__name__] = kind
    return kind


def key_values(value: Any) -> dict[str, Any]:
    """Return the class and the fields of a dataclass instance that determine numbers, as plain values.

    A field that was `ADDED_LATER` is left out while it has its default, so that results stored before it was thought of
    keep their keys.
    """
    kept = {
        item.name: getattr(value, item.name)
        for item in fields(value)
        if item.metadata.get("in_key", True)
        and not (item.metadata.get("added_later", False) and getattr(value, item.name) == item.default)
    }
    return {"kind": type(value).__name__, **kept}


def from_key_values(values: Mapping[str, Any]) -> Any:
    """Make the instance that `key_values` took apart, also from JSON, which knows no tuples.

    Raises
    ------
    InputError
        If no class of that name was decorated with `plain_value`.
    """
    plain = {name: tuple(item) if isinstance(item, list) else item for name, item in values.items()}
    kind = str(plain.pop("kind"))
    if kind not in _KINDS:
        raise InputError(
            f"{kind!r} is no known kind of value: import the module that defines the class {kind}, decorated with "
            f"dmfkit.values.plain_value; known are {', '.join(sorted(_KINDS))}."
        )
    return _KINDS[kind](**plain)


def field_names(value: Any) -> set[str]:
    """Names of the fields of a dataclass instance."""
    return {field.name for field in fields(value)}


def with_fields(value: Any, names: Mapping[str, Any]) -> Any:
    """Return the dataclass instance with those of `names` that it has replaced."""
    return replace(value, **{name: item for name, item in names.items() if name in field_names(value)})
