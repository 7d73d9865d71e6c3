"""Sweeps on a Dask cluster: the same bits as in one process, and nothing lost when processes die or are interrupted.

Workers, clients and signals are real; every wait is bounded.
"""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import psutil
import pytest
import torch
from processes import PATIENCE, wait_until

from dmfkit import CompletionTask, Descent, Flow, InputError, Loss, RelativeError, Start, Store, cluster, sweep
from dmfkit.experiments.cluster import check_software, noticed_interrupts, software
from dmfkit.experiments.store import content_hash, read

pytestmark = pytest.mark.cluster

distributed = pytest.importorskip("distributed")

SMALL = CompletionTask(d=8, rank=2, n_observed=45, data_seed=3)
MIXED = {"depth": (2, 3), "n_observed": (40, 50), "seed": (0, 1, 2)}
# Comes to its second part and no further, however long the signal that ends it takes.
SCRIPT = f"""
import sys, threading
from pathlib import Path
sys.path.insert(0, {str(Path(__file__).parent)!r})
from dmfkit import Store, cluster
from test_clusters import parts, twelve
sweeps = sys.modules["dmfkit.experiments.sweeps"]
write = sweeps.write
def write_two(path, part):
    write(path, part)
    if len(parts(Path(sys.argv[1]))) == 2:
        threading.Event().wait()
sweeps.write = write_two
with cluster(workers=1) as executor:
    twelve(Store(Path(sys.argv[1])), executor)
"""


def twelve(store=None, executor=None):
    """Twelve batches of about a tenth of a second each; the same here and in the processes that are killed."""
    return sweep(
        CompletionTask(d=30, rank=2),
        Start(),
        Descent(lr=0.002, stop=0.0, max_steps=30_000),
        name="twelve",
        store=store,
        record=(Loss(),),
        record_at=(0, 100),
        runs_per_batch=1,
        device="cpu",
        executor=executor,
        n_observed=(300, 400),
        depth=(2, 3),
        seed=(0, 1, 2),
    )


@pytest.fixture(autouse=True)
def one_thread():
    """As many threads here as in a worker, so that sums have the same order."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def executor():
    with cluster(workers=2) as opened:
        yield opened


@pytest.fixture(scope="module")
def sequential():
    torch.set_num_threads(1)
    return twelve()


def parts(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.parts/*"))


def whole(folder: Path) -> list[Path]:
    """Parts that are not just being written."""
    return [path for path in parts(folder) if not path.name.startswith(".")]


def count_batches(monkeypatch) -> list[list[int]]:
    """The list to which every batch that is trained in this process is added."""
    trained = []
    original = sys.modules["dmfkit.experiments.sweeps"]._train

    def counting(plan, indices, *rest):
        trained.append(indices)
        return original(plan, indices, *rest)

    monkeypatch.setattr("dmfkit.experiments.sweeps._train", counting)
    return trained


@pytest.mark.parametrize("method", [Flow(), Descent(lr=0.01, max_steps=400)], ids=["flow", "descent"])
def test_a_cluster_gives_the_same_bits(executor, method, tmp_path, monkeypatch):
    options = {"record": (Loss(), RelativeError()), "record_at": (0, 1, 2), "runs_per_batch": 2, **MIXED}
    alone = sweep(SMALL, Start(init_scale=0.3), method, **options)
    monkeypatch.setenv("DMFKIT_PROGRESS", str(tmp_path / "progress"))
    store = Store(tmp_path / "results")
    together = sweep(SMALL, Start(init_scale=0.3), method, executor=executor, store=store, **options)
    assert content_hash(together) == content_hash(alone)
    assert together.attrs["total_evaluations"] == alone.attrs["total_evaluations"]
    assert (tmp_path / "progress").read_text() == "sweep 12/12\n"
    assert alone.attrs["executor"] == "this process"
    assert together.attrs["executor"] == "Dask, 2 workers on this machine"
    assert together.attrs["device"].startswith("CPU (1 thread, ")
    # Stored under the same key as without a cluster, and the caller may change what was returned.
    assert sweep(SMALL, Start(init_scale=0.3), method, store=store, **options).attrs["loaded_from_store"] == 1
    assert all(item.values.flags.writeable for item in together.data_vars.values())


def test_functions_run_on_the_workers_with_the_threads_that_were_asked_for(executor):
    found = dict(executor.run(os.getpid, dict.fromkeys(range(8), ())))
    assert sorted(found) == list(range(8))
    assert os.getpid() not in found.values()
    # The same scheduler, as others find it.
    address = executor.client.scheduler_info()["address"]
    for threads in (2, 1):
        with cluster(address, threads=threads, timeout=PATIENCE) as other:
            assert dict(other.run(torch.get_num_threads, {"here": ()})) == {"here": threads}
            assert other.description == f"Dask, scheduler {address}"


def test_what_a_batch_raises_is_raised_here(executor):
    with pytest.raises(InputError, match=r"device = 'tpu' is not allowed"):
        sweep(SMALL, Start(), Flow(), executor=executor, device="tpu", seed=(0, 1))


def test_an_interrupted_sweep_stops_its_workers_and_goes_on_later(executor, tmp_path, monkeypatch):
    executor.client.wait_for_workers(2, timeout=PATIENCE)
    before = executor.client.run(os.getpid)
    short, endless = 50, 10**9
    options = {"store": Store(tmp_path), "runs_per_batch": 1, "seed": (0,)}
    start, method = Start(init_scale=1e-9), Descent(lr=1e-9, stop=0.0)
    write = sys.modules["dmfkit.experiments.sweeps"].write

    def interrupted(path, part):
        write(path, part)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("dmfkit.experiments.sweeps.write", interrupted)
        with pytest.raises(KeyboardInterrupt):
            sweep(SMALL, start, method, executor=executor, max_steps=(short, endless, endless + 1), **options)
    # Nothing else could end the other two.
    wait_until(lambda: not any(executor.client.run(running_tasks).values()))
    assert executor.client.run(os.getpid) == before
    assert [len(read(path)["run"]) for path in parts(tmp_path)] == [1]
    assert dict(executor.run(abs, {"after": (-1,)})) == {"after": 1}


class Marked:
    """Something that a weak reference can see end."""


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_an_interrupt_that_python_drops_is_noticed(executor):
    before = signal.getsignal(signal.SIGINT)
    marked = Marked()
    # What is raised in such a callback is dropped.
    reference = weakref.ref(marked, lambda _: os.kill(os.getpid(), signal.SIGINT))
    with closing(executor.run(abs, {number: (number,) for number in range(4)})) as results:
        next(results)
        del marked
        assert reference() is None
        with pytest.raises(KeyboardInterrupt):
            next(results)
    assert signal.getsignal(signal.SIGINT) is before


def test_interrupts_belong_to_the_main_thread():
    with ThreadPoolExecutor(1) as pool:
        assert not pool.submit(lambda: noticed_interrupts().__enter__().is_set()).result()


def running_tasks(dask_worker):
    return len(dask_worker.active_threads)


def test_ctrl_c_and_sigkill_leave_whole_parts_and_no_process(sequential, tmp_path, monkeypatch):
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    sent = {tmp_path / "interrupted": signal.SIGINT, tmp_path / "killed": signal.SIGKILL}
    clients = {
        folder: subprocess.Popen(
            [sys.executable, "-c", SCRIPT, str(folder)],
            env=environment,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        for folder in sent
    }
    family = []
    for folder, client in clients.items():
        wait_until(lambda folder=folder, client=client: len(whole(folder)) == 2 or client.poll() is not None)
        family += psutil.Process(client.pid).children(recursive=True)
        # Ctrl-C goes to the workers, too.
        (os.killpg if sent[folder] == signal.SIGINT else os.kill)(client.pid, sent[folder])
    for folder, client in clients.items():
        _, errors = client.communicate(timeout=PATIENCE)
        assert client.returncode == -sent[folder], errors
        # Not necessarily the last line: destructors may have their say.
        assert sent[folder] == signal.SIGKILL or "KeyboardInterrupt" in errors.splitlines()
    assert family
    wait_until(lambda: not any(process.is_running() and process.status() != "zombie" for process in family))
    for folder in sent:
        kept = whole(folder)
        assert len(kept) == 2
        for path in kept:
            read(path)
        if sent[folder] == signal.SIGINT:
            assert kept == parts(folder)
        with monkeypatch.context() as patch:
            trained = count_batches(patch)
            resumed = twelve(Store(folder))
        assert len(trained) == 12 - len(kept)
        assert content_hash(resumed) == content_hash(sequential)


def test_workers_with_other_software_are_refused(executor):
    executor.client.wait_for_workers(2, timeout=PATIENCE)
    other = next(iter(executor.client.run(os.getpid)))
    executor.client.run(set_numerics, 999, workers=[other])
    try:
        with pytest.raises(InputError, match=rf"{other} has other software.*numerics 999 instead of"):
            sweep(SMALL, Start(), Flow(), executor=executor, seed=(0, 1))
    finally:
        executor.client.run(set_numerics, software()["numerics"], workers=[other])


def set_numerics(version):
    from dmfkit.experiments import store

    store.NUMERICS = version


def test_a_batch_whose_worker_is_killed_is_trained_again(executor, sequential, tmp_path):
    executor.client.wait_for_workers(2, timeout=PATIENCE)
    pids = executor.client.run(os.getpid)
    killed = []

    def kill():
        wait_until(lambda: parts(tmp_path))
        worker, _ = next(item for item in executor.client.processing().items() if item[1])
        os.kill(pids[worker], signal.SIGKILL)
        killed.append(worker)

    thread = threading.Thread(target=kill)
    thread.start()
    found = twelve(Store(tmp_path), executor)
    thread.join(PATIENCE)
    (worker,) = killed
    # The scheduler's own notes: it died in the middle of a task.
    gone = [event for _, event in executor.client.get_events("all") if event.get("action") == "remove-worker"]
    assert [event["worker"] for event in gone if event["processing-tasks"]] == [worker]
    assert content_hash(found) == content_hash(sequential)
    assert not parts(tmp_path)


def test_a_task_that_kills_every_worker_ends_in_one_sentence(executor, monkeypatch):
    monkeypatch.setattr(executor.client.cluster.scheduler, "allowed_failures", 0)
    with pytest.raises(InputError, match=r"workers died 1 times in a row.*more memory.*run again"):
        list(executor.run(os._exit, {"deadly": (1,)}))


@pytest.mark.parametrize("name", ["dmfkit", "numerics", "torch", "numpy"])
def test_every_part_of_the_software_counts(name):
    check_software(software(), software(), "worker")
    with pytest.raises(InputError, match=f"{name} other instead of"):
        check_software(software(), {**software(), name: "other"}, "worker")
    with pytest.raises(InputError, match="No module named"):
        check_software(software(), ModuleNotFoundError("No module named 'dmfkit'"), "worker")


def test_the_recipe_for_one_machine_works_as_it_stands(tmp_path):
    page = (Path(__file__).parents[1] / "book" / "scale_out.md").read_text(encoding="utf-8")
    code = re.search(r"^% tested: local\n\n```python\n(.*?)```", page, re.DOTALL | re.MULTILINE)[1]
    smaller = code.replace("d=50, rank=3, n_observed=900", "d=12, rank=1, n_observed=90")
    assert smaller != code
    (tmp_path / "recipe.py").write_text(smaller)
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    command = [sys.executable, "recipe.py"]
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "Dask, 2 workers on this machine on CPU (1 thread, " in done.stdout
    assert [path.name.rpartition("-")[0] for path in (tmp_path / "results").glob("*.nc")] == ["my-sweep"]


def test_a_cluster_without_workers_is_given_up():
    with distributed.LocalCluster(n_workers=0, dashboard_address="127.0.0.1:0") as empty:
        with cluster(empty, timeout=0.5) as opened:
            assert opened.description == "Dask, LocalCluster"
            with pytest.raises(InputError, match=r"no worker for 0.5 s"):
                sweep(SMALL, Start(), Flow(), executor=opened, seed=(0,))
        assert empty.status == distributed.Status.running


def test_nobody_answers():
    with socket.create_server(("127.0.0.1", 0)) as silent:
        for port in (silent.getsockname()[1], 1):
            with pytest.raises(InputError, match=rf"no Dask scheduler .*:{port}' within 0.5 s"):
                cluster(f"tcp://127.0.0.1:{port}", timeout=0.5)


def test_a_wrong_address_is_not_waited_for_as_long_as_workers_are(monkeypatch):
    monkeypatch.setattr("dmfkit.experiments.cluster.ANSWER", 0.5)
    with pytest.raises(InputError, match=r"no Dask scheduler .* within 0.5 s"):
        cluster("tcp://127.0.0.1:1")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"where": "nonsense"}, "no Dask scheduler answered at 'nonsense'"),
        ({"where": "http://127.0.0.1:1"}, "unknown address scheme"),
        ({"where": 8786}, "where = 8786"),
        ({"workers": 0}, "workers = 0"),
        ({"workers": 1.5}, "workers = 1.5"),
        ({"threads": 0}, "threads = 0"),
        ({"timeout": 0.0}, "timeout = 0"),
        ({"timeout": float("inf")}, "timeout = inf"),
        ({"where": "tcp://127.0.0.1:1", "workers": 2}, "give either where or workers"),
    ],
)
def test_impossible_clusters_are_refused(arguments, words):
    with pytest.raises(InputError, match=words):
        cluster(**{"timeout": 5.0, **arguments})


def test_a_sweep_wants_an_executor_of_ours():
    with pytest.raises(InputError, match=r"executor = 'tcp://.*dm\.cluster"):
        sweep(SMALL, Start(), Flow(), executor="tcp://127.0.0.1:8786", seed=(0,))


def test_without_dask_one_is_told_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(InputError, match="pip install distributed"):
        cluster(workers=1)
