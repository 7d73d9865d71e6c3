"""Timings are measured once, stored, and named after what was timed; how long anything takes is not tested."""

import pytest

from dmfkit import CompressedStart, FullObservationTask, InputError, OrthogonalStart, Store, step_timings
from dmfkit.experiments import step_timings as timings


def test_timings_of_several_starts_are_measured_and_stored(tmp_path, monkeypatch):
    monkeypatch.setattr(timings, "REPEAT_SECONDS", 0.03)
    task = FullObservationTask(d=30, rank=2, target="truncated")
    starts = {"full": OrthogonalStart(), "compressed": CompressedStart(rank_bound=2)}
    options = {"name": "small-timing", "store": Store(tmp_path), "repeats": 2}
    first = step_timings(task, starts, **options)
    assert dict(first.sizes) == {"start": 2, "repeat": 2}
    # Nothing more: a difference of two times, of so few steps and on a busy machine, may have either sign.
    assert bool(first["step_seconds"].notnull().all())
    assert bool((first["begin_seconds"] > 0).all())
    assert first["n_parameters"].values.tolist() == [3 * 900, 3 * 16]
    again = step_timings(task, starts, **options)
    assert again.attrs["loaded_from_store"] == 1
    assert again["step_seconds"].equals(first["step_seconds"])
    assert again.attrs["device"] == first.attrs["device"]


def test_nothing_to_time_is_refused():
    with pytest.raises(InputError, match="nothing to time"):
        step_timings(FullObservationTask(), {})
