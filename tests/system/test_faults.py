"""Disks that are full, and parts of unfinished sweeps that are damaged: one sentence, and nothing lost."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import processes
import pytest
import xarray as xr
from processes import PATIENCE

from dmfkit import CompletionTask, Flow, InputError, Loss, SingularValues, Start, Store, sweep
from dmfkit.experiments.store import content_hash, read

SMALL = CompletionTask(d=8, rank=2, n_observed=45, data_seed=3)
KIB = 1024


def recorded(store, name="recorded"):
    """Four batches of about 50 KiB each."""
    return sweep(
        SMALL,
        Start(init_scale=0.3),
        Flow(),
        name=name,
        store=store,
        record=(Loss(), SingularValues(8)),
        record_at=tuple(moment / 100 for moment in range(300)),
        runs_per_batch=1,
        device="cpu",
        seed=(0, 1, 2, 3),
    )


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Folder of a sweep of which all parts are finished, but the whole could not be written."""

    def full(path, dataset):
        raise InputError("No space left on device")

    folder = tmp_path_factory.mktemp("finished")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("dmfkit.experiments.store.write", full)
        with pytest.raises(InputError, match="No space left"):
            recorded(Store(folder))
    assert len(list(folder.glob("*.parts/*"))) == 4
    return folder


@pytest.fixture(scope="module")
def whole(finished, tmp_path_factory):
    return recorded(Store(shutil.copytree(finished, tmp_path_factory.mktemp("whole") / "results")))


@pytest.fixture
def trained(monkeypatch):
    """The batches that are trained."""
    batches = []
    original = sys.modules["dmfkit.experiments.sweeps"]._train

    def counting(plan, batch, *rest):
        batches.append(batch.indices)
        return original(plan, batch, *rest)

    monkeypatch.setattr("dmfkit.experiments.sweeps._train", counting)
    return batches


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 1 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={KIB * KIB}", "none", str(folder)],
        capture_output=True,
        text=True,
        check=False,
    )
    if mounted.returncode:
        pytest.skip(f"*** NOT CHECKED, no small file system can be mounted here: {mounted.stderr.strip()} ***")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_ends_in_one_sentence_and_the_sweep_goes_on_once_there_is_room(
    small_disk, whole, trained, monkeypatch
):
    (small_disk / "filler").write_bytes(bytes((1024 - 140) * KIB))
    # Progress is written to the same disk; that it cannot be is no reason to stop.
    monkeypatch.setenv("DMFKIT_PROGRESS", str(small_disk / "progress"))
    store = Store(small_disk / "results")
    with pytest.raises(InputError, match=r"cannot be written to .*No space left on device.*make room.*run again"):
        recorded(store)
    kept = sorted(small_disk.glob("results/*.parts/*"))
    # All that is there is whole, hidden files included.
    assert 1 <= len(kept) < 4
    assert [len(read(path)["run"]) for path in kept] == [1] * len(kept)
    (small_disk / "filler").unlink()
    trained.clear()
    resumed = recorded(store)
    assert trained == [(index,) for index in range(len(kept), 4)]
    assert [path.suffix for path in (small_disk / "results").iterdir() if path.name != ".locks"] == [".nc"]
    assert content_hash(resumed) == content_hash(whole)


def test_a_disk_that_is_full_only_for_the_whole_result_loses_no_part(finished, tmp_path, trained):
    # Made by such a fault.
    folder = shutil.copytree(finished, tmp_path / "results")
    assert recorded(Store(folder)).sizes["seed"] == 4
    assert trained == []


@pytest.mark.slow
def test_a_process_that_may_not_write_so_much_ends_well(tmp_path):
    # HDF5 itself crashes at the end of a process in which it could not finish a file.
    script = f"""
import resource, sys
from pathlib import Path
sys.path[:0] = {[str(Path(__file__).parent), str(Path(processes.__file__).parent)]!r}
import dmfkit as dm
from test_faults import recorded
resource.setrlimit(resource.RLIMIT_FSIZE, (8192, 8192))
try:
    recorded(dm.Store(Path(sys.argv[1])))
except dm.InputError as error:
    print(error)
"""
    command = [sys.executable, "-c", script, str(tmp_path)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment, timeout=PATIENCE)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count("\n") == 1
    assert "cannot be written to" in done.stdout
    assert "File too large" in done.stdout
    assert not list(tmp_path.glob("*.parts/*"))


@pytest.mark.parametrize("damage", ["cut", "emptied", "changed"])
def test_a_damaged_part_is_said_and_trained_again(finished, whole, tmp_path, trained, damage):
    folder = shutil.copytree(finished, tmp_path / "results")
    part = sorted(folder.glob("*.parts/*"))[2]
    data = part.read_bytes()
    if damage == "changed":
        with xr.open_dataset(part, engine="h5netcdf") as opened:
            changed = opened.load()
        changed["final_relative_error"][0] *= 1.0001
        changed.to_netcdf(part, engine="h5netcdf")
    else:
        part.write_bytes(data[: len(data) // 2] if damage == "cut" else b"")
    with pytest.warns(UserWarning, match=rf"part {part.name} of an unfinished result is damaged"):
        resumed = recorded(Store(folder))
    assert trained == [(2,)]
    assert content_hash(resumed) == content_hash(whole)
