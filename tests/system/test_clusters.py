"""Sweeps on executors: the same bits as in one process, and nothing lost when processes die or are interrupted.

Workers, clients and signals are real; every wait is bounded.
"""

from __future__ import annotations

import multiprocessing
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import weakref
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import processes
import psutil
import pytest
import torch
from processes import ENDLESS, PATIENCE, wait_until

from dmfkit import CompletionTask, Descent, Flow, InputError, Loss, RelativeError, Start, Store, cluster, sweep
from dmfkit.experiments.cluster import check_software, completed, software
from dmfkit.experiments.interrupts import noticed_interrupts
from dmfkit.experiments.store import content_hash, read

pytestmark = pytest.mark.cluster

distributed = pytest.importorskip("distributed")

SMALL = CompletionTask(d=8, rank=2, n_observed=45, data_seed=3)
MIXED = {"depth": (2, 3), "n_observed": (40, 50), "seed": (0, 1, 2)}
# Comes to its second part and no further, however long the signal that ends it takes.
SCRIPT = f"""
import signal
import sys
import threading
from pathlib import Path
sys.path[:0] = {[str(Path(__file__).parent), str(Path(processes.__file__).parent)]!r}
from dmfkit import Store, cluster
from dmfkit.experiments import experiment
from test_clusters import twelve, whole, workers
folder, write = Path(sys.argv[2]), experiment.write
def write_two(path, part):
    write(path, part)
    if len(whole(folder)) == 2:
        threading.Event().wait()
if __name__ == "__main__":
    experiment.write = write_two
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with (cluster(workers=1) if sys.argv[1] == "dask" else workers(1)) as executor:
        twelve(Store(folder), executor)
"""


def workers(count):
    """Processes of the standard library, as *Many runs, many machines* advises to make them."""
    spawning = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(count, spawning, initializer=torch.set_num_threads, initargs=(1,))


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
def client():
    with (
        distributed.LocalCluster(
            n_workers=2,
            threads_per_worker=1,
            dashboard_address="127.0.0.1:0",
            env=dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1"),
        ) as started,
        distributed.Client(started, set_as_default=False) as opened,
    ):
        yield opened


@pytest.fixture
def executor(client):
    with cluster(client) as opened:
        yield opened


def entered(*arguments, **options):
    with cluster(*arguments, **options):
        pass


@pytest.fixture(scope="module")
def sequential():
    torch.set_num_threads(1)
    return twelve()


def parts(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.parts/*"))


def whole(folder: Path) -> list[Path]:
    """Parts that are written, under their own names."""
    return [path for path in parts(folder) if not path.name.startswith(".")]


def count_batches(monkeypatch) -> list[list[int]]:
    """The list to which every batch that is trained in this process is added."""
    trained = []
    original = sys.modules["dmfkit.experiments.sweeps"]._train

    def counting(plan, batch, *rest):
        trained.append(batch.indices)
        return original(plan, batch, *rest)

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
    assert together.attrs["executor"] == "Dask, LocalCluster"
    assert together.attrs["device"].startswith("CPU (1 thread, ")
    # Stored under the same key as without a cluster, and the caller may change what was returned.
    assert sweep(SMALL, Start(init_scale=0.3), method, store=store, **options).attrs["loaded_from_store"] == 1
    assert all(item.values.flags.writeable for item in together.data_vars.values())


@pytest.mark.parametrize(
    ("name", "opened"),
    [
        ("ProcessPoolExecutor", lambda _: workers(2)),
        ("ThreadPoolExecutor", lambda _: ThreadPoolExecutor(2)),
        ("ClientExecutor", lambda client: client.get_executor()),
    ],
)
def test_any_executor_gives_the_same_bits(client, name, opened):
    options = {"record": (Loss(),), "record_at": (0, 1), "runs_per_batch": 2, **MIXED}
    alone = sweep(SMALL, Start(init_scale=0.3), Flow(), **options)
    with opened(client) as other:
        together = sweep(SMALL, Start(init_scale=0.3), Flow(), executor=other, **options)
    assert content_hash(together) == content_hash(alone)
    assert together.attrs["executor"] == name
    assert together.attrs["device"].startswith("CPU (1 thread, ")


def test_calls_run_on_the_workers_with_the_threads_that_were_asked_for(client, executor):
    found = dict(completed(executor, os.getpid, dict.fromkeys(range(8), ())))
    assert sorted(found) == list(range(8))
    assert os.getpid() not in found.values()
    # The same scheduler, as others find it.
    address = client.scheduler_info()["address"]
    for threads in (2, 1):
        with cluster(address, threads=threads, timeout=PATIENCE) as other:
            assert dict(completed(other, torch.get_num_threads, {"here": ()})) == {"here": threads}
            assert other.description == f"Dask, scheduler {address}"
    with pytest.raises(InputError, match=r"takes no calls .*open another one"):
        list(completed(other, abs, {"late": (-1,)}))


def test_what_a_batch_raises_is_raised_here(executor):
    with pytest.raises(InputError, match=r"device = 'tpu' is not allowed"):
        sweep(SMALL, Start(), Flow(), executor=executor, device="tpu", seed=(0, 1))


def test_an_interrupted_sweep_begins_no_further_batch_and_goes_on_later(client, executor, tmp_path, monkeypatch):
    write = sys.modules["dmfkit.experiments.experiment"].write

    def interrupted(path, part):
        write(path, part)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("dmfkit.experiments.experiment.write", interrupted)
        with pytest.raises(KeyboardInterrupt):
            twelve(Store(tmp_path), executor)
    # The scheduler has forgotten what was waiting, and what had begun ends by itself.
    wait_until(lambda: not any(client.processing().values()))
    assert [len(read(path)["run"]) for path in parts(tmp_path)] == [1]
    assert dict(completed(executor, abs, {"after": (-1,)})) == {"after": 1}


class Marked:
    """Something that a weak reference can see end."""


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("elsewhere", [False, True], ids=["this process", "executor"])
def test_an_interrupt_that_python_drops_while_a_batch_is_written_ends_the_sweep(
    elsewhere, executor, tmp_path, monkeypatch
):
    write = sys.modules["dmfkit.experiments.experiment"].write

    def interrupted(path, part):
        write(path, part)
        marked = Marked()
        # What is raised in such a callback is dropped.
        reference = weakref.ref(marked, lambda _: signal.raise_signal(signal.SIGINT))
        del marked
        assert reference() is None

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with monkeypatch.context() as patch:
            patch.setattr("dmfkit.experiments.experiment.write", interrupted)
            with pytest.raises(KeyboardInterrupt):
                twelve(Store(tmp_path), executor if elsewhere else None)
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)
    assert len(parts(tmp_path)) == 1


def test_interrupts_belong_to_the_main_thread():
    with ThreadPoolExecutor(1) as pool:
        assert not pool.submit(lambda: noticed_interrupts().__enter__().is_set()).result()


def test_an_interrupt_ends_the_workers_of_this_machine_whatever_they_do(tmp_path):
    flag = tmp_path / "worker"

    def interrupted():
        with cluster(workers=1) as opened, closing(completed(opened, endless, {"endless": (flag,)})) as results:
            threading.Thread(target=lambda: (wait_until(flag.exists), os.kill(os.getpid(), signal.SIGINT))).start()
            next(results)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            interrupted()
    finally:
        signal.signal(signal.SIGINT, before)
    wait_until(lambda: not psutil.pid_exists(int(flag.read_text())))


def endless(flag):
    """Say by whom, and never return."""
    part = flag.with_suffix(".part")
    part.write_text(str(os.getpid()))
    part.rename(flag)
    time.sleep(ENDLESS)


@pytest.mark.parametrize(
    ("kind", "sent"), [("dask", signal.SIGINT), ("dask", signal.SIGKILL), ("processes", signal.SIGINT)]
)
def test_ctrl_c_and_sigkill_leave_whole_parts_and_no_process(kind, sent, sequential, tmp_path, monkeypatch):
    script, folder = tmp_path / "script.py", tmp_path / "results"
    script.write_text(SCRIPT)
    client = subprocess.Popen(
        [sys.executable, str(script), kind, str(folder)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    wait_until(lambda: len(whole(folder)) == 2 or client.poll() is not None)
    family = psutil.Process(client.pid).children(recursive=True)
    # Ctrl-C goes to the workers, too.
    (os.killpg if sent == signal.SIGINT else os.kill)(client.pid, sent)
    _, errors = client.communicate(timeout=PATIENCE)
    assert client.returncode == -sent, errors
    # Not necessarily the last line: destructors, and processes of the standard library, may have their say.
    assert sent == signal.SIGKILL or "KeyboardInterrupt" in errors.splitlines()
    assert family
    wait_until(lambda: not any(process.is_running() and process.status() != "zombie" for process in family))
    kept = whole(folder)
    assert len(kept) == 2
    for path in kept:
        read(path)
    if sent == signal.SIGINT:
        assert kept == parts(folder)
    with monkeypatch.context() as patch:
        trained = count_batches(patch)
        resumed = twelve(Store(folder))
    assert len(trained) == 12 - len(kept)
    assert content_hash(resumed) == content_hash(sequential)


def test_workers_with_other_software_are_refused(client, executor):
    client.wait_for_workers(2, timeout=PATIENCE)
    client.run(set_numerics, 999)
    try:
        with pytest.raises(InputError, match=r"a worker on .* has other software.*numerics 999 instead of"):
            sweep(SMALL, Start(), Flow(), executor=executor, seed=(0, 1))
    finally:
        client.run(set_numerics, software()["numerics"])


def test_a_scheduler_with_other_software_is_refused(client, executor, monkeypatch):
    # It runs in this process, so it says what the patch says.
    monkeypatch.setattr(client, "run_on_scheduler", lambda function: {**function(), "torch": "0.1"})
    with pytest.raises(InputError, match=r"the scheduler has other software.*torch 0.1 instead of"):
        entered(client)
    assert client.status == "running"


def test_a_worker_without_what_a_call_needs_is_said(executor):
    with pytest.raises(InputError, match=r"other software than this process.*No module named 'absent_here'"):
        list(completed(executor, absent, {"one": ()}))


def absent():
    import absent_here  # noqa: F401


def set_numerics(version):
    from dmfkit.experiments import store

    store.NUMERICS = version


def test_a_batch_whose_worker_is_killed_is_trained_again(client, executor, sequential, tmp_path):
    client.wait_for_workers(2, timeout=PATIENCE)
    pids = client.run(os.getpid)
    killed = []

    def kill():
        wait_until(lambda: parts(tmp_path))
        worker, _ = next(item for item in client.processing().items() if item[1])
        os.kill(pids[worker], signal.SIGKILL)
        killed.append(worker)

    thread = threading.Thread(target=kill)
    thread.start()
    found = twelve(Store(tmp_path), executor)
    thread.join(PATIENCE)
    (worker,) = killed
    # The scheduler's own notes: it died in the middle of a task.
    gone = [event for _, event in client.get_events("all") if event.get("action") == "remove-worker"]
    assert [event["worker"] for event in gone if event["processing-tasks"]] == [worker]
    assert content_hash(found) == content_hash(sequential)
    assert not parts(tmp_path)


def test_a_task_that_kills_every_worker_ends_in_one_sentence(client, executor, monkeypatch):
    monkeypatch.setattr(client.cluster.scheduler, "allowed_failures", 0)
    with pytest.raises(InputError, match=r"workers died 1 times in a row.*more memory.*run again"):
        list(completed(executor, os._exit, {"deadly": (1,)}))


def test_a_process_of_the_standard_library_that_dies_ends_in_one_sentence(tmp_path):
    with (
        workers(1) as pool,
        pytest.raises(InputError, match=r"worker process died .*BrokenProcessPool.*more memory.*run again"),
    ):
        list(completed(pool, os._exit, {"deadly": (1,)}))


def test_a_scheduler_that_goes_away_ends_in_one_sentence():
    def dask(what, *arguments):
        command = [sys.executable, "-m", f"distributed.cli.dask_{what}", *arguments]
        return subprocess.Popen(command, stderr=subprocess.PIPE, text=True)

    scheduler = dask("scheduler", "--port", "0", "--no-dashboard", "--host", "127.0.0.1")
    started = [scheduler]
    try:
        address = next(found[0] for line in scheduler.stderr if (found := re.search(r"tcp://[\d.]+:\d+", line)))
        started.append(dask("worker", address, "--nthreads", "1", "--no-dashboard"))
        with (
            cluster(address, timeout=PATIENCE) as opened,
            closing(completed(opened, time.sleep, {"quick": (0,), "endless": (ENDLESS,)})) as results,
        ):
            assert next(results) == ("quick", None)
            scheduler.kill()
            with pytest.raises(InputError, match=r"lost the connection to its scheduler.*run again"):
                next(results)
    finally:
        for process in started:
            process.kill()
            process.communicate()


@pytest.mark.parametrize("name", ["dmfkit", "numerics", "torch", "numpy"])
def test_every_part_of_the_software_counts(name):
    check_software(software(), software(), "worker")
    with pytest.raises(InputError, match=f"{name} other instead of"):
        check_software(software(), {**software(), name: "other"}, "worker")


@pytest.mark.parametrize(
    ("name", "said"),
    [("local", "Dask, 2 workers on this machine"), ("processes", "ProcessPoolExecutor"), ("function", "[1, 2]")],
)
def test_the_recipes_for_one_machine_work_as_they_stand(name, said, tmp_path):
    page = (Path(__file__).parents[2] / "book" / "scale_out.md").read_text(encoding="utf-8")
    code = re.search(rf"^% tested: {name}\n\n```python\n(.*?)```", page, re.DOTALL | re.MULTILINE)[1]
    smaller = code.replace("d=50, rank=3, n_observed=900", "d=12, rank=1, n_observed=90")
    assert name == "function" or smaller != code
    (tmp_path / "recipe.py").write_text(smaller)
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    command = [sys.executable, "recipe.py"]
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    if name == "function":
        assert done.stdout == f"{said}\n"
        return
    assert f"{said} on CPU (1 thread, " in done.stdout
    assert [path.name.rpartition("-")[0] for path in (tmp_path / "results").glob("*.nc")] == ["my-sweep"]


def test_a_cluster_without_workers_is_given_up():
    with distributed.LocalCluster(n_workers=0, dashboard_address="127.0.0.1:0") as empty:
        with pytest.raises(InputError, match=r"no worker for 0.5 s \(Dask, LocalCluster\)"):
            entered(empty, timeout=0.5)
        assert empty.status == distributed.Status.running


def test_nobody_answers():
    with socket.create_server(("127.0.0.1", 0)) as silent:
        for port in (silent.getsockname()[1], 1):
            with pytest.raises(InputError, match=rf"no Dask scheduler .*:{port}' within 0.5 s"):
                entered(f"tcp://127.0.0.1:{port}", timeout=0.5)


def test_a_wrong_address_is_not_waited_for_as_long_as_workers_are(monkeypatch):
    monkeypatch.setattr("dmfkit.experiments.cluster.ANSWER_SECONDS", 0.5)
    with pytest.raises(InputError, match=r"no Dask scheduler .* within 0.5 s"):
        entered("tcp://127.0.0.1:1")


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
        entered(**{"timeout": 5.0, **arguments})


def test_a_sweep_wants_an_executor():
    with pytest.raises(InputError, match=r"executor = 'tcp://.*concurrent\.futures\.Executor.*dm\.cluster"):
        sweep(SMALL, Start(), Flow(), executor="tcp://127.0.0.1:8786", seed=(0,))


def test_without_dask_one_is_told_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(InputError, match="pip install distributed"):
        entered(workers=1)
