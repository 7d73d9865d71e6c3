"""Stored results: netCDF files, written whole or not at all, keyed by everything that determines their numbers.

A result's key is a checksum of its specification (task, start, method, grid, recorders) and of `NUMERICS`, which is
raised whenever a change of the code changes numbers. Results are looked for in the folder of published results that
comes with the book and in a working folder; they are only ever written to the working folder.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import tempfile
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from filelock import BaseFileLock, FileLock
from xarray.backends import H5NetCDFStore

from dmfkit.errors import InputError
from dmfkit.experiments.interrupts import deferred_interrupts
from dmfkit.paths import published_results, working_results

# Raise when a change of the engine changes results beyond rounding; every stored result is then computed anew.
NUMERICS = 1
# Measured times are never twice the same and so no part of a result's content.
TIMINGS = frozenset({"wall_seconds"})


def specification_key(specification: Mapping[str, Any]) -> str:
    """Checksum of a specification of plain values, together with the version of the numerics."""
    text = json.dumps({"numerics": NUMERICS, **specification}, sort_keys=True, allow_nan=True)
    return hashlib.sha256(text.encode()).hexdigest()


def content_hash(dataset: xr.Dataset) -> str:
    """Checksum of names, dimensions, types and values of all variables and coordinates.

    Attributes and measured times do not count.
    """
    digest = hashlib.sha256()
    for name in sorted({str(name) for name in dataset.variables} - TIMINGS):
        variable = dataset.variables[name]
        values = np.ascontiguousarray(variable.values)
        if values.dtype.kind in "OUS":
            texts = [str(item).encode() for item in values.ravel()]
            values = np.array(texts, dtype=f"S{max([64, *map(len, texts)])}")
        digest.update(f"{name}{variable.dims}{variable.shape}{values.dtype}".encode())
        digest.update(values.tobytes())
    return digest.hexdigest()


@dataclass(frozen=True)
class Store:
    """Where results are looked for and kept.

    Attributes
    ----------
    working : Path
        Folder that new results and unfinished parts are written to.
    published : Path, optional
        Folder of the results that come with the book; never written to.
    """

    working: Path
    published: Path | None = None

    def find(self, name: str, key: str) -> xr.Dataset | None:
        """Load the result of this name and key, or ``None`` where there is none.

        Raises
        ------
        InputError
            If the file is there but damaged.
        """
        for folder in (self.published, self.working):
            if folder is not None and (path := folder / file_name(name, key)).is_file():
                return read(path, key)
        return None

    def write(self, name: str, key: str, dataset: xr.Dataset) -> Path:
        """Write a result to the working folder, whole or not at all."""
        path = self.working / file_name(name, key)
        write(path, dataset.assign_attrs(key=key))
        return path

    def lock(self, name: str, key: str) -> BaseFileLock:
        """Lock under which a result is computed; the operating system releases it even after a kill.

        Chapters that run side by side may ask for the same result: the second one waits and finds it.
        """
        folder = self.working / ".locks"
        folder.mkdir(parents=True, exist_ok=True)
        return FileLock(folder / f"{file_name(name, key)}.lock")

    def parts(self, name: str, key: str) -> Path:
        """Folder for the finished parts of an unfinished result."""
        return self.working / f"{file_name(name, key)}.parts"


def open_store(results: str = "") -> Store:
    """Open the store in folder `results`; empty means the book's own folders.

    Raises
    ------
    InputError
        If nothing can be written to the working folder; said before anything is computed.
    """
    store = Store(Path(results)) if results else Store(working_results(), published_results())
    try:
        store.working.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=store.working):
            pass
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise InputError(
            f"results folder {str(store.working)!r} cannot be written to ({reason}): name a folder that you may write "
            "to, for example results = '/tmp/results'."
        ) from None
    return store


def file_name(name: str, key: str) -> str:
    """Name of the file of a result."""
    return f"{name}-{key[:12]}.nc"


def read(path: Path, key: str | None = None) -> xr.Dataset:
    """Read a stored result and check that it is whole.

    Raises
    ------
    InputError
        If the file cannot be read, its values do not match their checksum, or it belongs to another key.
    """
    advice = "delete the file and run again to compute it anew."
    try:
        # Interrupted while it opens a file, h5netcdf complains about the interrupt when it destroys what it has.
        with deferred_interrupts(), xr.open_dataset(path, engine="h5netcdf") as opened:
            dataset = opened.load()
    except Exception as error:  # a damaged file can fail anywhere inside the reader
        raise InputError(f"stored result {path.name} cannot be read ({type(error).__name__}): {advice}") from None
    if dataset.attrs.get("content_sha256") != content_hash(dataset):
        raise InputError(f"stored result {path.name} is damaged (its values do not match their checksum): {advice}")
    if key is not None and dataset.attrs.get("key") != key:
        raise InputError(f"stored result {path.name} belongs to other parameters than its name says: {advice}")
    return dataset


def read_part(path: Path | None) -> xr.Dataset | None:
    """Read a finished part of an unfinished result; ``None`` where there is none, or none that can be used.

    Unlike a finished result, which is named and left alone, a damaged part is only a computation to be done once more.
    A warning says so.
    """
    if path is None or not path.is_file():
        return None
    try:
        return read(path)
    except InputError:
        warnings.warn(f"part {path.name} of an unfinished result is damaged, and computed anew.", stacklevel=2)
        return None


def write(path: Path, dataset: xr.Dataset) -> None:
    """Write `dataset` with its checksum through a temporary file, so that no reader ever sees a part of it.

    Raises
    ------
    InputError
        If the folder cannot take the file, for example because the disk is full. Then there is no such file, or still
        the one of before.
    """
    import h5netcdf  # takes a tenth of a second, which `import dmfkit` need not wait for

    dataset = dataset.assign_attrs(content_sha256=content_hash(dataset))
    numeric = {
        name: {"zlib": True, "complevel": 5} for name, item in dataset.data_vars.items() if item.dtype.kind in "fi"
    }
    # HDF5 writes to memory: on a full disk its library would leave a file that it can never close, and crash at exit.
    buffer = io.BytesIO()
    # As in `read`.
    with deferred_interrupts(), h5netcdf.File(buffer, "w") as opened:
        dataset.dump_to_store(H5NetCDFStore(opened), encoding=numeric)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_bytes(buffer.getbuffer())
        temporary.replace(path)
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise InputError(
            f"result {path.name} cannot be written to {str(path.parent)!r} ({reason}): make room there or name another "
            "folder, and run again; what was stored before is kept."
        ) from None
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()
