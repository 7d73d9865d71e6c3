"""Sweeps: labels, agreement with single runs, resuming after a kill, and stored results that are damaged."""

from __future__ import annotations

import json
import math
import os
import shutil
import signal
import stat
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr
from processes import PATIENCE, wait_until

from dmfkit import (
    CompletionTask,
    CompressedStart,
    Descent,
    Flow,
    FullObservationTask,
    InputError,
    Loss,
    RelativeError,
    SensingTask,
    SingularValues,
    Start,
    Status,
    Store,
    full_widths,
    gradient_flow,
    initialise,
    open_store,
    sweep,
)
from dmfkit.experiments.experiment import choose_device
from dmfkit.experiments.store import content_hash, read

SMALL = CompletionTask(d=8, rank=2, n_observed=45, data_seed=3)
# Lets a sweep come to the middle of its fourth batch and no further, however long the signal that ends it takes.
HELD = """
import sys, time
from pathlib import Path
import dmfkit
sweeps = sys.modules["dmfkit.experiments.sweeps"]
train, trained = sweeps._train, []
def held(*arguments):
    trained.append(arguments)
    if len(trained) == 4:
        (Path(sys.argv[1]) / "held").touch()
        time.sleep(3600)
    return train(*arguments)
sweeps._train = held
"""
SCRIPT = """
import sys
from pathlib import Path
from dmfkit import CompletionTask, Descent, Flow, Loss, Start, Store, sweep
dataset = sweep(
    CompletionTask(d=30, rank=2), Start(), Descent(lr=0.002, stop=0.0, max_steps=2500), name="killed",
    store=Store(Path(sys.argv[1])), record=(Loss(),), record_at=(0, 100), runs_per_batch=1, device="cpu",
    n_observed=(300, 400), depth=(2, 3), seed=(0, 1, 2),
)
"""


def test_dimensions_are_the_swept_names_in_order():
    dataset = sweep(
        SMALL,
        Start(init_scale=0.3),
        Flow(),
        record=(SingularValues(4), Loss(), RelativeError()),
        record_at=(0.0, 0.5, 1.0),
        depth=(1, 2, 3),
        n_observed=(40, 50),
        seed=(0, 1),
    )
    assert dict(dataset.sizes) == {
        "depth": 3,
        "n_observed": 2,
        "seed": 2,
        "time": 3,
        "index": 4,
        "final_index": 8,
    }
    assert dataset["final_relative_error"].dims == ("depth", "n_observed", "seed")
    assert dataset["singular_value"].dims == ("depth", "n_observed", "seed", "time", "index")
    assert dataset["time"].values.tolist() == [0.0, 0.5, 1.0]
    assert json.loads(dataset.attrs["specification"])["task"]["d"] == 8
    for name in ("device", "versions", "commit", "total_wall_seconds", "total_evaluations"):
        assert name in dataset.attrs


@pytest.mark.parametrize("task", [SMALL, SensingTask(d=6, rank=1, n_observed=25)], ids=["completion", "sensing"])
def test_every_grid_point_is_the_run_it_says_it_is(task):
    dataset = sweep(task, Start(), Flow(stop=1e-5), depth=(2, 3), init_scale=(0.3, 0.5), seed=(0, 4), runs_per_batch=3)
    for depth in (2, 3):
        for scale in (0.3, 0.5):
            for seed in (0, 4):
                start = initialise("gaussian", full_widths(task.shape, depth), [scale], [seed])
                alone = gradient_flow(task.problem(), start, Flow(stop=1e-5))
                there = dataset.sel(depth=depth, init_scale=scale, seed=seed)
                values = torch.linalg.svdvals(alone.factorization.end_to_end())[0].numpy()
                np.testing.assert_allclose(there["final_singular_value"], values, rtol=1e-7, atol=1e-9)
                assert int(there["n_evaluations"]) == int(alone.n_evaluations)
                assert float(there["initial_norm"]) == pytest.approx(
                    float(torch.linalg.matrix_norm(start.end_to_end())), rel=1e-12
                )


def test_matrices_of_different_sizes_stand_in_one_dataset():
    dataset = sweep(SMALL, Start(init_scale=0.3), Flow(stop=1e-3), d=(6, 8), n_observed=(30,))
    spectra = dataset["final_singular_value"].squeeze("n_observed")
    assert np.isnan(spectra.sel(d=6).values[6:]).all()
    assert np.isfinite(spectra.sel(d=8).values).all()


def test_a_compressed_run_has_as_many_final_singular_values_as_its_matrix():
    # What is trained is the projected problem, which is smaller.
    task = FullObservationTask(d=20, rank=2, target="truncated")
    dataset = sweep(task, CompressedStart(depth=2, rank_bound=2), Flow(stop=1e-2), seed=(0,))
    assert dataset.sizes["final_index"] == 20


def test_learning_rates_share_a_batch_and_diverged_runs_are_marked():
    dataset = sweep(SMALL, Start(init_scale=0.5), Descent(stop=1e-3), lr=(0.5, 0.01), seed=(0,))
    assert dataset["status"].sel(lr=0.5).item() == Status.DIVERGED
    assert dataset["status"].sel(lr=0.01).item() == Status.CONVERGED
    assert math.isfinite(dataset["stable_lr"].sel(lr=0.5).item())


def test_a_stored_sweep_is_loaded_and_recomputed_to_the_same_values(tmp_path):
    options = {"name": "small", "store": Store(tmp_path), "depth": (2, 3), "seed": (0, 1)}
    first = sweep(SMALL, Start(init_scale=0.3), Flow(), **options)
    again = sweep(SMALL, Start(init_scale=0.3), Flow(), **options)
    anew = sweep(SMALL, Start(init_scale=0.3), Flow(), recompute=True, **options)
    assert (first.attrs["loaded_from_store"], again.attrs["loaded_from_store"]) == (0, 1)
    assert anew.attrs["loaded_from_store"] == 0
    assert content_hash(first) == content_hash(again) == content_hash(anew)
    # No parts and no temporary files stay behind.
    assert len([path for path in tmp_path.iterdir() if path.name != ".locks"]) == 1
    other = sweep(SMALL, Start(init_scale=0.31), Flow(), **options)
    assert other.attrs["loaded_from_store"] == 0  # another parameter, another key


@pytest.mark.slow
def test_a_killed_sweep_resumes_and_gives_the_same_bytes(tmp_path):
    whole = run_script(tmp_path / "whole")
    killed = tmp_path / "killed"
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen([sys.executable, "-c", HELD + SCRIPT, str(killed)], env=environment)
    wait_until(lambda: process.poll() is not None or (killed / "held").exists())
    assert process.poll() is None, "the sweep ended before it could be killed"
    process.send_signal(signal.SIGKILL)
    process.wait()
    before = {path: path.stat().st_mtime_ns for path in parts(killed)}
    assert len(before) == 3
    resumed = run_script(killed)
    assert content_hash(read(resumed)) == content_hash(read(whole))
    # Resumed, not begun anew: what was finished was not computed a second time.
    seconds = read(resumed)["wall_seconds"]
    assert int((seconds > 0).sum()) == 12
    assert not parts(killed)


def test_a_sweep_waits_for_another_process_that_computes_the_same(tmp_path):
    start, method, options = Start(init_scale=0.3), Flow(), {"name": "both", "seed": (0, 1)}
    sweep(SMALL, start, method, store=Store(tmp_path / "elsewhere"), **options)
    (finished,) = (tmp_path / "elsewhere").glob("*.nc")
    shared = Store(tmp_path / "shared")
    with ThreadPoolExecutor(1) as pool, shared.lock("both", read(finished).attrs["key"]):
        waiting = pool.submit(sweep, SMALL, start, method, store=shared, **options)
        # Two runs of this size take a few hundredths of a second: without the lock it would be done by now.
        time.sleep(1.0)
        assert not waiting.done()
        shutil.copy(finished, shared.working)
    assert waiting.result(timeout=PATIENCE).attrs["loaded_from_store"] == 1


def parts(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.parts/*.nc"))


def run_script(folder: Path) -> Path:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, "-c", SCRIPT, str(folder)], check=True, env=environment)
    (path,) = folder.glob("*.nc")
    return path


def test_finished_parts_are_not_computed_again(tmp_path, monkeypatch):
    options = {"name": "parts", "store": Store(tmp_path), "runs_per_batch": 1, "seed": (0, 1, 2)}
    trained = []
    original = sys.modules["dmfkit.experiments.sweeps"]._train

    def stopping(plan, batch, *rest):
        if len(trained) == 2:
            raise KeyboardInterrupt
        trained.append(batch.indices)
        return original(plan, batch, *rest)

    monkeypatch.setattr("dmfkit.experiments.sweeps._train", stopping)
    with pytest.raises(KeyboardInterrupt):
        sweep(SMALL, Start(init_scale=0.3), Flow(), **options)
    trained.clear()
    sweep(SMALL, Start(init_scale=0.3), Flow(), **options)
    assert trained == [(2,)]


def test_a_damaged_stored_result_is_named_not_used(tmp_path):
    options = {"name": "small", "store": Store(tmp_path), "seed": (0, 1)}
    sweep(SMALL, Start(init_scale=0.3), Flow(), **options)
    (path,) = tmp_path.glob("*.nc")
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match=f"{path.name} cannot be read.*delete the file"):
        sweep(SMALL, Start(init_scale=0.3), Flow(), **options)
    path.write_bytes(whole)
    with xr.open_dataset(path, engine="h5netcdf") as opened:
        changed = opened.load()
    changed["final_relative_error"][0] *= 1.0001
    changed.to_netcdf(path, engine="h5netcdf")
    with pytest.raises(InputError, match="is damaged"):
        sweep(SMALL, Start(init_scale=0.3), Flow(), **options)


def test_an_unwritable_results_folder_is_said_at_once(tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    with pytest.raises(InputError, match="cannot be written to"):
        open_store(str(blocked / "results"))
    if os.geteuid() != 0:  # root may write anywhere
        closed = tmp_path / "closed"
        closed.mkdir()
        closed.chmod(stat.S_IRUSR | stat.S_IXUSR)
        with pytest.raises(InputError, match="cannot be written to"):
            open_store(str(closed))


@pytest.mark.parametrize(
    ("grid", "words"),
    [
        ({"depth": ()}, "depth is an empty list"),
        ({"depth": (2, 2)}, "twice"),
        ({"depth": (2, 0)}, "depth = 0"),
        ({"width": (2,)}, "'width' cannot be swept"),
        ({"n_observed": (45, 65)}, "n_observed = 65"),
        ({"rank": (9,)}, "rank = 9"),
        ({"lr": (-1e-3,)}, "lr = -0.001"),
        ({"lr": (math.nan,)}, "lr = nan"),
        ({"normalisation": ("half",)}, "normalisation = 'half'"),
    ],
)
def test_impossible_grids_are_refused_before_any_training(grid, words, monkeypatch):
    monkeypatch.setattr("dmfkit.experiments.sweeps._train", lambda *_: pytest.fail("something was trained"))
    with pytest.raises(InputError, match=words):
        sweep(SMALL, Start(), Descent(), **grid)


def test_a_batch_has_runs():
    with pytest.raises(InputError, match="runs_per_batch = 0"):
        sweep(SMALL, Start(), Flow(), runs_per_batch=0, seed=(0,))


def test_moments_must_rise():
    with pytest.raises(InputError, match="rise strictly"):
        sweep(SMALL, Start(), Flow(), record=(Loss(),), record_at=(0.0, 1.0, 1.0))


def test_a_gpu_that_is_not_there_is_said():
    with pytest.raises(InputError, match="device = 'gpu'"):
        choose_device("gpu")
    if not torch.cuda.is_available():
        with pytest.raises(InputError, match="no CUDA GPU"):
            choose_device("cuda")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA GPU here")
def test_cuda_equals_cpu():
    # Same random numbers; products sum in another order, so agreement is to rounding, amplified by training.
    cpu, gpu = (sweep(SMALL, Start(init_scale=0.3), Flow(), device=device, seed=(0, 1)) for device in ("cpu", "cuda"))
    np.testing.assert_allclose(cpu["final_singular_value"], gpu["final_singular_value"], rtol=1e-6, atol=1e-9)


def test_a_stored_result_needs_neither_its_data_nor_a_check_of_it(tmp_path, monkeypatch):
    options = {"name": "small", "store": Store(tmp_path), "seed": (0,)}
    sweep(SMALL, Start(init_scale=0.3), Flow(), **options)
    monkeypatch.setattr(CompletionTask, "check", lambda _: pytest.fail("the stored result was not used at once"))
    assert sweep(SMALL, Start(init_scale=0.3), Flow(), **options).attrs["loaded_from_store"] == 1
