"""A result says which processor and which kernels made its numbers."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from threadpoolctl import threadpool_info

from benchmarks.rows import machine
from dmfkit import CompletionTask, Flow, Start, sweep
from dmfkit.experiments.provenance import blas_kernels, hardware, processor_name
from dmfkit.experiments.store import Store, read, write

SMALL = CompletionTask(d=8, rank=2, n_observed=45, data_seed=3)


def library(api, path, version, architecture=None, user="blas"):
    found = {"user_api": user, "internal_api": api, "filepath": path, "version": version}
    return found if architecture is None else {**found, "architecture": architecture}


@pytest.mark.parametrize(
    ("libraries", "sentence"),
    [
        ([], "unknown"),
        ([library("openmp", "/lib/torch/lib/libgomp.so", None, user="openmp")], "unknown"),
        ([library("mkl", "/conda/lib/libmkl_rt.so", "2024.2")], "MKL 2024.2"),
        ([library("openblas", "/usr/lib/libopenblas.so", None, "Haswell")], "OpenBLAS, Haswell"),
        (
            [
                library("openblas", "/site-packages/scipy.libs/libscipy_openblas-1.so", "0.3.30", "Zen"),
                library("openblas", "/site-packages/numpy.libs/libscipy_openblas-2.so", "0.3.31", "Zen"),
            ],
            "numpy's OpenBLAS 0.3.31, Zen; scipy's OpenBLAS 0.3.30, Zen",
        ),
    ],
)
def test_kernels_are_those_of_every_library_that_is_loaded(libraries, sentence, monkeypatch):
    monkeypatch.setattr("dmfkit.experiments.provenance.threadpool_info", lambda: libraries)
    assert blas_kernels() == sentence


def test_the_kernels_in_use_are_named():
    architectures = [one["architecture"] for one in threadpool_info() if one["internal_api"] == "openblas"]
    assert all(f", {name}" in blas_kernels() for name in architectures)


def test_the_processor_is_the_model_that_the_system_names():
    assert processor_name()
    known = Path("/proc/cpuinfo")
    if platform.system() == "Linux" and "model name" in known.read_text():
        assert f": {processor_name()}\n" in known.read_text()


def test_a_result_and_a_benchmark_say_the_same_of_a_machine():
    expected = hardware(torch.device("cpu"))
    made = sweep(SMALL, Start(init_scale=0.3), Flow(), device="cpu", seed=(0,)).attrs
    measured = machine(torch.device("cpu"))
    assert set(expected) == {"device", "processor", "kernels"}
    for name, words in expected.items():
        assert made[name] == measured[name] == words


def test_a_part_of_an_older_version_says_nothing_of_the_processor(tmp_path, monkeypatch):
    options = {"store": Store(tmp_path), "runs_per_batch": 1, "device": "cpu", "seed": (0, 1)}

    def interrupted(path, part):
        older = part.copy()
        del older.attrs["processor"], older.attrs["kernels"]
        write(path, older)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("dmfkit.experiments.experiment.write", interrupted)
        with pytest.raises(KeyboardInterrupt):
            sweep(SMALL, Start(init_scale=0.3), Flow(), **options)
    resumed = sweep(SMALL, Start(init_scale=0.3), Flow(), **options)
    assert resumed.attrs["processor"] == "; ".join(sorted([processor_name(), "not recorded"]))
    (path,) = tmp_path.glob("*.nc")
    assert read(path).attrs["kernels"] == "; ".join(sorted([blas_kernels(), "not recorded"]))


@pytest.mark.slow
def test_the_variable_that_chooses_kernels_chooses_those_of_every_openblas():
    cpu = Path("/proc/cpuinfo")
    if not cpu.exists() or " avx2 " not in cpu.read_text() or "OpenBLAS" not in blas_kernels():
        pytest.skip("no OpenBLAS here, or no processor that can run the kernels for Haswell")
    code = "import scipy.linalg; from dmfkit.experiments.provenance import blas_kernels; print(blas_kernels())"
    environment = {**os.environ, "OPENBLAS_CORETYPE": "Haswell"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.count("OpenBLAS") == done.stdout.count(", Haswell") >= 1
