"""Plain values: named by their class, made again from their fields, and never confused."""

from __future__ import annotations

import json
from dataclasses import dataclass

import pytest

from dmfkit import CompletionTask, CompressedStart, Flow, InputError, NuclearNorm, SingularValues, Start, sweep
from dmfkit.experiments.reproduce import kind_of, plan_of
from dmfkit.values import from_key_values, key_values, plain_value


@pytest.mark.parametrize(
    "value",
    [
        CompletionTask(d=7),
        CompressedStart(layer_scale=(0.1, 0.2, 0.3)),
        Flow(rtol=1e-4),
        NuclearNorm(),
        SingularValues(3),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_value_is_made_again_from_json(value):
    assert from_key_values(json.loads(json.dumps(key_values(value)))) == value


def test_an_unknown_kind_is_said():
    with pytest.raises(InputError, match=r"'Absent' is no known kind of value.*import the module.*CompletionTask"):
        from_key_values({"kind": "Absent", "d": 3})


def test_a_name_belongs_to_one_module():
    @dataclass(frozen=True)
    class Start:
        depth: int = 1

    with pytest.raises(InputError, match=r"Start is the name of a class in dmfkit\.factorizations\.starts already"):
        plain_value(Start)


def test_a_class_may_be_defined_anew_where_it_was():
    @plain_value
    @dataclass(frozen=True)
    class Own:
        count: int

    first = Own

    @plain_value
    @dataclass(frozen=True)
    class Own:
        count: int

    assert first is not Own
    assert type(from_key_values({"kind": "Own", "count": 2})) is Own


def test_a_result_says_its_kind_and_an_older_one_is_known_by_its_words():
    runs = sweep(CompletionTask(d=6, rank=1, n_observed=30), Start(init_scale=0.3), Flow(stop=1e-2), depth=(2,))
    assert runs.attrs["kind"] == kind_of(runs) == "sweep"
    del runs.attrs["kind"]
    assert kind_of(runs) == "sweep"
    assert plan_of(runs).grid == {"depth": (2,)}
