"""What machine and which software made a result."""

from __future__ import annotations

import json
import platform
import subprocess
from importlib import metadata

import torch

from dmfkit.paths import checkout

PACKAGES = ("torch", "numpy", "numba", "scipy", "xarray")


def device_name(device: torch.device) -> str:
    """Describe the processor, for example ``"CPU (2 threads, x86_64)"`` or a GPU's own name."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    threads = torch.get_num_threads()
    return f"CPU ({threads} thread{'s' if threads != 1 else ''}, {platform.machine()})"


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


def run_provenance(device: str) -> dict[str, str]:
    """Attributes of a result: the device's name, package versions and commit."""
    return {
        "device": device,
        "versions": versions(),
        "commit": commit(),
    }
