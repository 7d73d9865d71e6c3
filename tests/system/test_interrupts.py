"""Interrupts come when they do no harm, and in tests they come at all."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import h5netcdf
import numpy as np
import pytest
import xarray as xr
from processes import ENDLESS, PATIENCE, alive, interruptible, wait_until

from dmfkit.experiments.interrupts import deferred_interrupts
from dmfkit.experiments.store import read, write

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_waits_for_the_end_of_the_block_and_its_handler_is_called_once(number):
    said = []
    before = signal.signal(number, lambda received, _: said.append(received))
    try:
        with deferred_interrupts():
            os.kill(os.getpid(), number)
            os.kill(os.getpid(), number)
            assert said == []
        assert said == [number]
        os.kill(os.getpid(), number)
        assert said == [number, number]
    finally:
        signal.signal(number, before)


def test_an_error_in_the_block_is_the_context_of_the_interrupt():
    def interrupted_and_wrong():
        with deferred_interrupts():
            os.kill(os.getpid(), signal.SIGINT)
            raise ValueError("first")

    with pytest.raises(KeyboardInterrupt) as caught:
        interrupted_and_wrong()
    assert isinstance(caught.value.__context__, ValueError)


def test_what_is_ignored_stays_ignored_and_other_threads_are_let_alone():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with deferred_interrupts():
            os.kill(os.getpid(), signal.SIGINT)
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)
    with ThreadPoolExecutor(1) as pool:
        pool.submit(lambda: deferred_interrupts().__enter__()).result()
    assert signal.getsignal(signal.SIGINT) is before


def test_a_result_that_is_interrupted_at_any_line_of_its_making_is_whole_and_nothing_complains(tmp_path, monkeypatch):
    complaints = []
    monkeypatch.setattr(sys, "unraisablehook", complaints.append)
    dataset, code = xr.Dataset({"x": ("run", np.arange(5.0))}), h5netcdf.File.__init__.__code__
    lines: set[int] = set()

    def interrupted_at(line, action):
        """Act, with an interrupt at one line of h5netcdf's constructor; return the lines that were passed."""
        passed = set()

        def tracer(frame, event, arg):
            if frame.f_code is code and event == "line":
                passed.add(frame.f_lineno)
                if frame.f_lineno == line:
                    os.kill(os.getpid(), signal.SIGINT)
            return tracer if frame.f_code is code else None

        before = sys.gettrace()
        sys.settrace(tracer)
        try:
            if line is None:
                action()
            else:
                with pytest.raises(KeyboardInterrupt):
                    action()
        finally:
            sys.settrace(before)
        return passed

    path = tmp_path / "result.nc"
    for action in (lambda: write(path, dataset), lambda: read(path)):
        lines = interrupted_at(None, action)
        assert len(lines) > 10
        for line in lines:
            interrupted_at(line, action)
    assert read(path).equals(dataset)
    assert list(tmp_path.iterdir()) == [path]
    assert complaints == []


def ignoring(code):
    """Run Python code in a process that was started to ignore interrupts."""
    script = f"import os, signal, sys\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\nos.execv(sys.executable, {code!r})"
    return [sys.executable, "-c", script]


def test_children_are_interrupted_even_if_this_process_was_started_to_ignore_that():
    code = (
        "import signal, subprocess, sys; sys.path.insert(0, 'tests/support')\n"
        "from processes import interruptible\n"
        "ask = [sys.executable, '-c', 'import signal; print(signal.getsignal(signal.SIGINT).__name__)']\n"
        "with interruptible():\n"
        "    print(subprocess.run(ask, capture_output=True, text=True).stdout.strip())\n"
        "print(signal.getsignal(signal.SIGINT).name)"
    )
    done = subprocess.run(
        ignoring([sys.executable, "-c", code]), cwd=ROOT, capture_output=True, text=True, check=True, timeout=PATIENCE
    )
    assert done.stdout.split() == ["default_int_handler", "SIG_IGN"]
    # Here, too, by the fixture of all tests.
    assert callable(signal.getsignal(signal.SIGINT))
    with interruptible():
        assert callable(signal.getsignal(signal.SIGINT))


@pytest.mark.kernel
def test_a_build_in_the_background_is_stopped_by_a_request_to_terminate(tmp_path):
    from small_chapters import write_chapter

    marker = tmp_path / "kernel.pid"
    says_so = f"import os, pathlib, time\npathlib.Path({str(marker)!r}).write_text(str(os.getpid()))"
    write_chapter(tmp_path, "01_long", says_so, f"time.sleep({ENDLESS})")
    command = [sys.executable, "-m", "bookbuild", "book", "--root", str(tmp_path)]
    process = subprocess.Popen(ignoring(command), cwd=ROOT, stderr=subprocess.PIPE, stdout=subprocess.PIPE)
    said = []
    reader = threading.Thread(target=lambda: said.extend(process.communicate()))
    reader.start()
    wait_until(lambda: (marker.exists() and marker.read_text()) or process.poll() is not None)
    # As the shell that started it wants: Ctrl-C is for what runs in the foreground.
    process.send_signal(signal.SIGINT)
    process.terminate()
    reader.join(PATIENCE)
    assert process.returncode not in (0, None), said
    wait_until(lambda: not alive(int(marker.read_text())))
