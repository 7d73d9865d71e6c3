"""Timings are measured once, stored, and named after what was timed; how long anything takes is not tested."""

import pytest

from dmfkit import CompressedStart, FullObservationTask, InputError, OrthogonalStart, Store, step_timings
from dmfkit.experiments import step_timings as timings
from dmfkit.experiments.experiment import find_or_compute


class Clock:
    """Time goes on only with training steps: a millisecond for each, and a second for each call."""

    def __init__(self, train):
        self.seconds, self._original = 0.0, train

    def __call__(self):
        return self.seconds

    def train(self, problem, start, settings, **options):
        self.seconds += 1.0 + 1e-3 * settings.max_steps * start.state.shape[1]
        return self._original(problem, start, settings, **options)


def test_timings_of_several_starts_are_measured_and_stored(tmp_path, monkeypatch):
    clock = Clock(timings.train)
    monkeypatch.setattr(timings, "train", clock.train)
    task = FullObservationTask(d=30, rank=2, target="truncated")
    starts = {"full": OrthogonalStart(), "compressed": CompressedStart(rank_bound=2)}
    store = Store(tmp_path)
    timing = timings.StepTiming(task, starts, 2, clock)
    first = find_or_compute(timing, "small-timing", store=store, recompute=False)
    assert dict(first.sizes) == {"start": 2, "repeat": 2}
    assert first["n_parameters"].values.tolist() == [3 * 900, 3 * 16]
    # What a call costs beside its steps is not in them.
    assert first["step_seconds"].values == pytest.approx(1e-3 * first["n_parameters"].values[:, None].repeat(2, 1))
    assert first["begin_seconds"].values.tolist() == [0.0, 0.0]
    assert (first["wall_seconds"], first.attrs["total_wall_seconds"]) == (clock.seconds, clock.seconds)
    assert first.attrs["total_evaluations"] == int(first["n_steps"].sum()) > 0
    again = step_timings(task, starts, name="small-timing", store=store, repeats=2)
    assert again.attrs["loaded_from_store"] == 1
    assert again["step_seconds"].equals(first["step_seconds"])
    assert again.attrs["device"] == first.attrs["device"]


def test_nothing_to_time_is_refused():
    with pytest.raises(InputError, match="nothing to time"):
        step_timings(FullObservationTask(), {})
