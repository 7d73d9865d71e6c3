"""The explorables of the chapters on invariant subspaces and on compression, as widgets."""

from dataclasses import replace
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch

import dmfkit as dm
from dmfkit import theory
from dmfkit.chapters.settings import paper_settings
from dmfkit.errors import InputError
from dmfkit.experiments.store import read
from dmfkit.interactive import BUDGET, CompressionRace, CompressIt, ErrorCurve, InsideWeights

RESULTS = Path(__file__).parents[2] / "notebooks" / "results"


def picture():
    return plt.figure(figsize=(1, 1))


def inside(d=12, rank=2, depths=(2, 3), **changed):
    """What the chapter gives its explorable, at a small size."""
    problem = dm.FullObservationTask(d=d, rank=rank, target="truncated").problem()
    units = [factor[0] for factor in dm.OrthogonalStart(max(depths), 1.0).full(problem).factors]
    given = {
        "target": problem.values,
        "starts": units,
        "first_frames": {
            n: theory.carried_frames(units[:n], theory.inert_space(units[:n], problem.values))[0] for n in depths
        },
        "learned": 2 * rank,
        "mask": torch.ones(d, d, dtype=torch.float64),
        "layer_scales": {"one": [1.0] * len(units)},
        "lr": 1e-3,
        "weight_decays": [0.1],
        "steps": [0, 1, 10],
        "depth": depths[-1],
        "step": 1,
    }
    return InsideWeights(picture(), **(given | changed))


def test_inside_gets_the_start_and_nothing_of_the_theorems_form():
    widget = inside()
    content = widget.content
    assert content["settings"]["weightDecays"] == [0.0, 0.1]
    shapes = {name: packed["shape"] for name, packed in content["arrays"].items()}
    assert shapes == {"target": [12, 12], "starts": [3, 12, 12], "first": [2, 12, 12], "mask": [12, 12]}
    starts = np.frombuffer(content["arrays"]["starts"]["data"]).reshape(3, 12, 12)
    np.testing.assert_allclose(starts @ starts.transpose(0, 2, 1), np.broadcast_to(np.eye(12), (3, 12, 12)), atol=1e-12)


def test_inside_keeps_to_its_budget_at_the_papers_settings():
    paper = paper_settings("08_invariant_subspaces")
    widget = inside(paper["d"], paper["rank"], tuple(paper["depths"]), steps=[*range(45)])
    assert widget.stored_size() < 0.5 * BUDGET
    # The chapter shows no larger matrices than these.
    assert inside(40, 10, (1, 2, 3, 4)).stored_size() < BUDGET


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"mask": torch.ones(11, 11)}, "of the target's size, 12 x 12"),
        ({"learned": 12}, "learned = 12 is not allowed: it must lie between 0 and d = 12"),
        ({"depth": 4}, "depth = 4 with first frames for"),
        ({"layer_scales": {"two": [1.0, 1.0]}}, "at least one list of 3 scales"),
        ({"layer_scales": {}}, "at least one list of 3 scales"),
        ({"steps": [1, 2]}, "steps must rise from 0"),
        ({"steps": [0, 10, 1]}, "steps must rise from 0"),
        ({"step": 7}, "step = 7 with steps"),
    ],
)
def test_inside_refuses_what_does_not_fit(changed, sentence):
    with pytest.raises(InputError, match=sentence):
        inside(**changed)


def curve(kind="wide", rate=0.0, bound=0, length=5):
    return ErrorCurve(kind, np.arange(length) * 1.0, np.full(length, 0.5), True, 0.1, 1e-3, rate, bound)


def race(curves=None, bounds=(2, 3)):
    pairs = [(g, b) for g in (0.0, 0.01) for b in bounds]
    curves = curves or [curve(), *(curve("compressed", g, b) for g, b in pairs)]
    return CompressionRace(9, 3, 0.3, 0.01, "CPU", curves, dict.fromkeys(bounds, 0.2), dict.fromkeys(bounds, 0.0))


def test_a_race_finds_its_rates_and_bounds_and_its_curves_lie_end_to_end():
    widget = CompressIt(picture(), [race()], discrepant_rate=0.01, rank_bound=3)
    (one,) = widget.content["settings"]["races"]
    assert (one["rates"], one["bounds"]) == ([0.0, 0.01], [2, 3])
    assert [(item["from"], item["count"]) for item in one["curves"]] == [(5 * k, 5) for k in range(5)]
    assert widget.content["arrays"]["errors0"]["shape"] == [25]


def test_compress_it_keeps_to_its_budget_with_the_stored_runs():
    lengths = {
        name: read(next(RESULTS.glob(f"fig3-part-{name}-*.nc")))["relative_error"]
        for name in ("wide", "narrow", "compressed")
    }
    rates, bounds = (lengths["compressed"][name].values.tolist() for name in ("discrepant_rate", "rank_bound"))
    curves = [curve(length=1 + lengths["wide"].sizes["time"])]
    curves += [curve("narrow", 0.0, b, 1 + lengths["narrow"].sizes["time"]) for b in bounds]
    curves += [curve("compressed", g, b, 1 + lengths["compressed"].sizes["time"]) for g in rates for b in bounds]
    small = CompressionRace(120, 5, 0.3, 0.01, "CPU", curves, dict.fromkeys(bounds, 0.2), dict.fromkeys(bounds, 0.0))
    # As if no run ended before its horizon, with another race of 95 moments a run.
    large = race([curve(length=100), *(curve("compressed", g, 5, 95) for g in rates)], bounds=(5,))
    widget = CompressIt(picture(), [small, replace(large, d=1000)], discrepant_rate=rates[-1], rank_bound=5)
    assert widget.stored_size() < BUDGET


def without(kind):
    return race([one for one in race().curves if one.kind != kind])


@pytest.mark.parametrize(
    ("races", "sentence"),
    [
        ([], "nothing to compare: give at least one race"),
        ([without("wide")], r"needs every run once; missing: \[\('wide', 0.0, 0\)\]"),
        ([race(race().curves[:-1])], r"missing: \[\('compressed', 0.01, 3\)\]"),
        ([race([*race().curves, curve()])], "none, but some are doubled"),
        ([without("compressed")], "has no compressed run with discrepant_rate = 0.01 and rank_bound = 3"),
        ([race([replace(curve(), errors=np.ones(4)), *race().curves[1:]])], "two rising times and as many errors"),
        ([race([replace(curve(), errors=np.zeros(5)), *race().curves[1:]])], "must be positive numbers"),
        ([race([replace(curve(), step_seconds=0.0), *race().curves[1:]])], "must be positive numbers"),
        ([race(), race()], "d = 9 with a share of 0.3 is given twice"),
    ],
)
def test_compress_it_refuses_what_does_not_fit(races, sentence):
    with pytest.raises(InputError, match=sentence):
        CompressIt(picture(), races, discrepant_rate=0.01, rank_bound=3)
