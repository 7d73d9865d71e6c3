"""Parameter sets on a Dask cluster: the same results as on this machine, whatever happens to a worker."""

from __future__ import annotations

import os
import signal
import threading
import time

import nbformat
import pytest
import yaml
from nbformat import v4

from bookbuild.project import Layout, RerunError
from bookbuild.rerun import rerun
from bookbuild.rerun.on_cluster import execute, on_cluster, opener
from dmfkit import InputError, cluster
from dmfkit.experiments.store import read

pytestmark = pytest.mark.cluster

distributed = pytest.importorskip("distributed")

NAMES = """
from pathlib import Path
import dmfkit as dm
import xarray as xr
dm.hand_over("square", xr.DataArray(float(d * d)))
beside = Path("beside.txt")
dm.hand_over("found", xr.DataArray(float(beside.read_text()) if beside.exists() else -1.0))
if d == 3:
    raise ValueError("three is not liked")
"""
# Says that it runs, and waits until it may end.
WAITS = """
import time
from pathlib import Path
Path(f"started-{d}").touch()
while not Path("go").exists():
    time.sleep(0.1)
import dmfkit as dm
import xarray as xr
dm.hand_over("square", xr.DataArray(float(d * d)))
"""


def written(folder, source):
    """A notebook with the parameter d, and a file of two sets beside it."""
    folder.mkdir()
    cells = [
        v4.new_code_cell("d = 1", id="parameters", metadata={"tags": ["parameters"]}),
        v4.new_code_cell(source, id="work"),
    ]
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(v4.new_notebook(cells=cells, metadata={"kernelspec": kernel}), folder / "own.ipynb")
    return folder / "own.ipynb"


def sets(folder, values):
    path = folder / "sets.yml"
    path.write_text(yaml.safe_dump({"d": values}))
    return path


@pytest.fixture(scope="module")
def client():
    with (
        distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address="127.0.0.1:0") as started,
        distributed.Client(started, set_as_default=False) as opened,
    ):
        yield opened


def test_a_grid_has_the_results_of_this_machine_and_a_failure_its_cell(client, tmp_path):
    notebook = written(tmp_path / "notebooks", NAMES)
    (notebook.parent / "beside.txt").write_text("7")
    runner = on_cluster(lambda _: cluster(client))
    with pytest.raises(RerunError, match=r"d = 3[\s\S]*id work[\s\S]*three is not liked") as remote:
        rerun(Layout(tmp_path, tmp_path / "far"), notebook, sets(tmp_path, [2, 3]), run_jobs=runner)
    with pytest.raises(RerunError) as local:
        rerun(Layout(tmp_path, tmp_path / "near"), notebook, sets(tmp_path, [2, 3]))
    assert str(remote.value).replace("far", "near") == str(local.value)
    far, near = (read(tmp_path / name / "results.nc") for name in ("far", "near"))
    for found in (far, near):
        assert found["square"].values.tolist()[0] == 4.0
        assert found["found"].values.tolist()[0] == 7.0
    assert far.drop_vars("wall_seconds").equals(near.drop_vars("wall_seconds"))
    assert client.nthreads(), "a cluster that was given stays open"


def test_a_worker_that_does_not_see_the_folder_uses_one_of_its_own(tmp_path):
    notebook = written(tmp_path / "notebooks", NAMES)
    done = execute(notebook.read_text(), "own.ipynb", {"d": 2}, str(tmp_path / "nowhere"))
    assert done.return_code == 0, done.log
    values = [output.data for cell in nbformat.reads(done.notebook, 4).cells for output in cell.get("outputs", [])]
    results = [
        one["application/vnd.dmfkit.result+json"] for one in values if "application/vnd.dmfkit.result+json" in one
    ]
    assert {one["name"]: one["values"] for one in results} == {"square": [4.0], "found": [-1.0]}


def test_a_notebook_whose_worker_is_killed_is_executed_again(client, tmp_path):
    notebook = written(tmp_path / "notebooks", WAITS)
    killed = []

    def kill():
        started = notebook.parent / "started-2"
        while not started.exists():
            time.sleep(0.05)
        busy = [worker for worker, tasks in client.processing().items() if tasks]
        killed.append(busy[0])
        os.kill(client.run(os.getpid, workers=busy)[busy[0]], signal.SIGKILL)
        (notebook.parent / "go").touch()

    thread = threading.Thread(target=kill)
    thread.start()
    runner = on_cluster(lambda _: cluster(client))
    target = rerun(Layout(tmp_path, tmp_path / "out"), notebook, sets(tmp_path, [2]), run_jobs=runner)
    thread.join()
    assert len(killed) == 1
    assert read(target)["square"].item() == 4.0


def test_the_commands_cluster(monkeypatch):
    with pytest.raises(InputError, match=r"jobs = 3 is not allowed with the cluster tcp://10\.0\.0\.1:8786"):
        opener("tcp://10.0.0.1:8786", 3)
    asked = {}
    monkeypatch.setattr(
        "bookbuild.rerun.on_cluster.cluster", lambda where=None, **given: asked.update(given, where=where)
    )
    opener("local", 2)(2)
    assert asked == {"where": None, "workers": 2, "threads": max(1, (os.cpu_count() or 1) // 2)}
    opener("tcp://10.0.0.1:8786", None)(8)
    assert asked["where"] == "tcp://10.0.0.1:8786"
