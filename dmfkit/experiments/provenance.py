"""What machine and which software made a result."""

from __future__ import annotations

import json
import platform
import subprocess
import sys
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path

import torch
from threadpoolctl import threadpool_info

from dmfkit.paths import checkout

PACKAGES = ("torch", "numpy", "numba", "scipy", "xarray")


def device_name(device: torch.device) -> str:
    """Describe the processor, for example ``"CPU (2 threads, x86_64)"`` or a GPU's own name."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    threads = torch.get_num_threads()
    return f"CPU ({threads} thread{'s' if threads != 1 else ''}, {platform.machine()})"


def processor_name() -> str:
    """Name of the processor's model, where the system tells it."""
    known = Path("/proc/cpuinfo")
    if sys.platform == "linux" and known.exists():
        for line in known.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def blas_kernels() -> str:
    """Every BLAS library that is loaded, and for which processors its kernels are where it says so.

    For example ``"numpy's OpenBLAS 0.3.31, SkylakeX; scipy's OpenBLAS 0.3.30, SkylakeX"``. Other kernels round
    otherwise. PyTorch's own library is not seen where it is linked statically, as in the wheels for x86.
    """
    found = []
    for library in threadpool_info():
        if library["user_api"] == "blas":
            # Wheels bring libraries of their own, in a folder such as numpy.libs; elsewhere all share one.
            package, dot, _ = Path(library["filepath"]).parent.name.partition(".libs")
            name = {"openblas": "OpenBLAS", "mkl": "MKL", "blis": "BLIS"}.get(
                library["internal_api"], library["internal_api"]
            )
            parts = (f"{package}'s {name}" if dot else name, library["version"])
            architecture = library.get("architecture")
            found.append(" ".join(filter(None, parts)) + (f", {architecture}" if architecture else ""))
    return "; ".join(sorted(set(found))) or "unknown"


def hardware(device: torch.device) -> dict[str, str]:
    """What computes: names of the device and of the processor's model, and the BLAS kernels it runs."""
    return {"device": device_name(device), "processor": processor_name(), "kernels": blas_kernels()}


def commit() -> str:
    """Commit of the checkout, with ``+`` where the package has changed since, or ``"unknown"`` without a checkout."""
    root = checkout()
    if root is None:
        return "unknown"

    def git(*arguments: str) -> str:
        done = subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, text=True, check=True)
        return done.stdout.strip()

    try:
        changed = git("status", "--porcelain", "--", "dmfkit", "notebooks")
        return git("rev-parse", "--short=12", "HEAD") + ("+" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def versions() -> str:
    """Versions of Python and of the packages that can change a number, as JSON."""
    return json.dumps({"python": platform.python_version()} | {name: metadata.version(name) for name in PACKAGES})


def run_provenance(computed_by: Mapping[str, str]) -> dict[str, str]:
    """Attributes of a result: what computed it, as `hardware` says, package versions and commit."""
    return {**computed_by, "versions": versions(), "commit": commit()}
