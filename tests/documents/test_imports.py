"""What importing the package loads: chapters and readers wait for it, so what few need comes when it is needed."""

import json
import subprocess
import sys

import pytest

# Each takes a tenth of a second or more, on top of PyTorch and xarray.
LATER = ["cvxpy", "distributed", "matplotlib", "numba", "pooch", "scipy.fft", "scipy.sparse", "scipy.stats", "sphinx"]


@pytest.mark.slow
def test_importing_the_package_loads_nothing_that_takes_long():
    code = f"import json, sys, dmfkit; print(json.dumps([name for name in {LATER!r} if name in sys.modules]))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    # On failure, import what takes long in the function that needs it.
    assert json.loads(done.stdout) == []
