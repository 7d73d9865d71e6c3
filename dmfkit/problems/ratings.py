"""Ratings of items by users as vectors and as a matrix, and synthetic ones to stand in for MovieLens.

Fetches MovieLens 100K's `u.data`, never shipped with the book, and checks every byte of it by hash.

The ratings may be used for research but not redistributed, so each reader fetches a copy from whoever may
offer one. F. M. Harper and J. A. Konstan, "The MovieLens Datasets: History and Context", ACM Transactions
on Interactive Intelligent Systems 5(4), 2015.

The real ratings, MovieLens 100K: from a file, a cache or the network, never from the book itself.
"""

from __future__ import annotations

import hashlib
import http.client
import io
import ssl
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
import warnings
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dmfkit.errors import InputError
from dmfkit.paths import cache_folder

MOVIELENS_USERS = 943
MOVIELENS_ITEMS = 1682


@dataclass(frozen=True, eq=False)
class Ratings:
    """Ratings of items by users, in the order of their file; the arrays are read-only.

    Attributes
    ----------
    users, items : ndarray of int64, shape (n,)
        Zero-based row and column of every rating.
    values : ndarray of float64, shape (n,)
        The ratings themselves.
    n_users, n_items : int
        Shape of the matrix that they are entries of.
    source : str
        Where they come from, one sentence without local paths.
    sha256 : str
        Hash of the raw file, or for synthetic ratings of the bytes of the three arrays.

    Raises
    ------
    InputError
        If the lengths differ or an index lies outside of the matrix.
    """

    users: NDArray[np.int64]
    items: NDArray[np.int64]
    values: NDArray[np.float64]
    n_users: int
    n_items: int
    source: str
    sha256: str

    def __post_init__(self) -> None:
        if not self.users.shape == self.items.shape == self.values.shape == (len(self.values),):
            raise InputError("Ratings need three vectors of equal length: users, items and values.")
        for name, index, size in (("users", self.users, self.n_users), ("items", self.items, self.n_items)):
            if index.size and not 0 <= index.min() <= index.max() < size:
                raise InputError(f"The {name} of ratings must be whole numbers from 0 to {size - 1}.")
        for name in ("users", "items", "values"):
            own = getattr(self, name).copy()
            own.flags.writeable = False
            object.__setattr__(self, name, own)

    def __len__(self) -> int:
        return len(self.values)

    def first(self, n: int) -> Ratings:
        """Keep the first `n` ratings in the order of the file; the matrix keeps its shape.

        Raises
        ------
        InputError
            If there are fewer than `n` ratings, or `n` is below 1.
        """
        if not 1 <= n <= len(self):
            raise InputError(
                f"The first {n} ratings were asked for, but there are {len(self)}: ask for 1 to {len(self)}."
            )
        if n == len(self):
            return self
        return replace(
            self,
            users=self.users[:n],
            items=self.items[:n],
            values=self.values[:n],
            source=f"The first {n:,} of these ratings: {self.source}",
        )

    def matrix(self) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        """Spread the ratings over their matrix.

        Returns
        -------
        values : ndarray of float64, shape (n_users, n_items)
            The ratings, 0 where there is none.
        mask : ndarray of bool, shape (n_users, n_items)
            Whether an entry is rated.

        Raises
        ------
        InputError
            If a user rates an item twice.
        """
        values = np.zeros((self.n_users, self.n_items))
        mask = np.zeros((self.n_users, self.n_items), dtype=bool)
        values[self.users, self.items] = self.values
        mask[self.users, self.items] = True
        if mask.sum() < len(self):
            raise InputError(
                f"{len(self) - mask.sum()} ratings repeat a user and an item that already have one: "
                "remove all but one of each."
            )
        return values, mask


def synthetic_ratings(
    n_users: int = MOVIELENS_USERS, n_items: int = MOVIELENS_ITEMS, n_ratings: int = 100_000, seed: int = 0
) -> Ratings:
    """Draw ratings 1 to 5 that have the shape of MovieLens 100K, but nothing of its content.

    A rating is 3.5 plus a user's and an item's offset, plus a product of rank 3, plus noise, rounded to 1..5.
    Items are rated unevenly: which pairs are rated is drawn without replacement with weights that fall as the
    inverse of an item's popularity rank and vary log-normally among the users.

    Parameters
    ----------
    n_users, n_items, n_ratings : int
        Shape of the matrix and number of its rated entries.
    seed : int
        Seed of NumPy's default generator.

    Returns
    -------
    ratings : Ratings
        In random order.

    Raises
    ------
    InputError
        If the matrix has fewer entries than `n_ratings`.
    """
    if not (n_users >= 1 and n_items >= 1 and 1 <= n_ratings <= n_users * n_items):
        raise InputError(
            f"{n_ratings} ratings of {n_items} items by {n_users} users are impossible: "
            f"n_ratings must be from 1 to n_users * n_items = {n_users * n_items}."
        )
    rng = np.random.default_rng(seed)
    # The largest n of log-weight plus Gumbel noise are a weighted draw without replacement.
    popularity = -np.log(rng.permutation(n_items) + 10.0)
    race = rng.normal(size=(n_users, 1)) + popularity + rng.gumbel(size=(n_users, n_items))
    rated = rng.permutation(np.argpartition(race.ravel(), -n_ratings)[-n_ratings:])
    users, items = np.divmod(rated.astype(np.int64), n_items)
    taste = np.einsum("nk,nk->n", rng.normal(size=(n_users, 3))[users], rng.normal(size=(n_items, 3))[items])
    score = 3.5 + 0.4 * rng.normal(size=n_users)[users] + 0.5 * rng.normal(size=n_items)[items]
    values = np.clip(np.rint(score + 0.4 * taste + 0.6 * rng.normal(size=n_ratings)), 1.0, 5.0)
    return Ratings(
        users=users,
        items=items,
        values=values,
        n_users=n_users,
        n_items=n_items,
        source=f"{n_ratings:,} synthetic ratings (seed {seed}), not MovieLens.",
        sha256=hashlib.sha256(users.tobytes() + items.tobytes() + values.tobytes()).hexdigest(),
    )


OFFICIAL_PAGE = "https://grouplens.org/datasets/movielens/100k/"
OFFICIAL_ZIP = "https://files.grouplens.org/datasets/movielens/ml-100k.zip"
ZIP_SHA256 = "50d2a982c66986937beb9ffb3aa76efe955bf3d5c6b761f4e3a7cd717c6a3229"
U_DATA_SHA256 = "06416e597f82b7342361e41163890c81036900f418ad91315590814211dca490"
U_DATA_BYTES = 1_979_173
# A package on PyPI that carries the same rows, below one header line, as an example. It is read as a zip file
# and never installed.
WHEEL = "recbole==1.2.1"
WHEEL_SHA256 = "9c9948202011f37eb0a7c6768129313f00d6403ad221ec940d5e2d5d5f33a407"
WHEEL_MEMBER = "recbole/dataset_example/ml-100k/ml-100k.inter"
MEMBERS = ("ml-100k/u.data", "u.data", WHEEL_MEMBER)
# More than any genuine file has; what is larger is not read into memory.
LARGEST_FILE = 50_000_000
# Seconds without a sign of life after which a host counts as unreachable.
SILENCE = 5.0


class NoRatingsError(Exception):
    """Says in a few words why a source does not give the ratings."""


def read_official_zip(timeout: float) -> bytes:
    """Fetch `u.data` from the official site.

    Raises
    ------
    NoRatingsError
        If the site does not give the genuine file within `timeout` seconds.
    """
    end = time.monotonic() + timeout
    content = bytearray()
    try:
        # The certificate is verified, even where the site lets it expire: we would rather not have the file.
        with urllib.request.urlopen(OFFICIAL_ZIP, timeout=min(timeout, SILENCE)) as answer:
            while chunk := answer.read(1 << 16):
                content += chunk
                if time.monotonic() > end or len(content) > LARGEST_FILE:
                    raise NoRatingsError(f"not complete after {timeout:g} s and {len(content)} bytes")
    except urllib.error.HTTPError as error:
        raise NoRatingsError(f"it answered with status {error.code}") from error
    except (OSError, http.client.HTTPException) as error:
        raise NoRatingsError(_network_reason(getattr(error, "reason", error))) from error
    found = hashlib.sha256(content).hexdigest()
    if found != ZIP_SHA256:
        raise NoRatingsError(f"the zip file's sha256 is {found} instead of {ZIP_SHA256}")
    return checked(unzip(bytes(content)))


def _network_reason(reason: object) -> str:
    if isinstance(reason, ssl.SSLCertVerificationError):
        return f"its certificate is not valid: {reason.verify_message}"
    if isinstance(reason, TimeoutError):
        return "it did not answer"
    return str(getattr(reason, "strerror", None) or reason)


def read_wheel(timeout: float) -> bytes:
    """Fetch `u.data` from PyPI, or from the index that pip is configured for, without installing anything.

    Raises
    ------
    NoRatingsError
        If pip does not deliver the genuine wheel within `timeout` seconds.
    """
    with tempfile.TemporaryDirectory() as folder:
        requirements = Path(folder) / "requirements.txt"
        requirements.write_text(f"{WHEEL} --hash=sha256:{WHEEL_SHA256}\n")
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:"]
        command += ["--require-hashes", "--no-input", "--disable-pip-version-check", "--progress-bar=off"]
        command += [
            f"--timeout={SILENCE:g}",
            "--retries=0",
            f"--dest={folder}",
            f"--requirement={requirements}",
        ]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, stdin=subprocess.DEVNULL)
        except subprocess.TimeoutExpired as error:
            raise NoRatingsError(f"not complete after {timeout:g} s") from error
        except OSError as error:
            raise NoRatingsError(f"pip does not start: {error.strerror}") from error
        if done.returncode:
            raise NoRatingsError(_pip_reason(done.stderr))
        return checked(unzip(next(Path(folder).glob("*.whl")).read_bytes()))


def _pip_reason(said: str) -> str:
    if "No module named pip" in said:
        return "this Python has no pip"
    if "DO NOT MATCH THE HASHES" in said:
        return f"its sha256 is not {WHEEL_SHA256}"
    errors = [line.removeprefix("ERROR: ") for line in said.splitlines() if line.startswith("ERROR: ")]
    return f"pip says: {errors[-1][:100]}" if errors else "pip failed"


def unzip(content: bytes) -> bytes:
    """Take `u.data` out of the bytes of a zip file.

    Raises
    ------
    NoRatingsError
        If the zip file is damaged or does not have it.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            present = [member for member in MEMBERS if member in archive.namelist()]
            if not present:
                raise NoRatingsError("the zip file has no u.data")
            if archive.getinfo(present[0]).file_size > LARGEST_FILE:
                raise NoRatingsError("its u.data is too large")
            rows = archive.read(present[0])
    # RuntimeError: an encrypted member, or packed by a method that is not known.
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError) as error:
        raise NoRatingsError("the zip file is damaged") from error
    return rows.partition(b"\n")[2] if present[0] == WHEEL_MEMBER else rows


def checked(content: bytes) -> bytes:
    """Return the bytes of `u.data` if they are the genuine ones.

    Raises
    ------
    NoRatingsError
        If their hash is another one.
    """
    found = hashlib.sha256(content).hexdigest()
    if found != U_DATA_SHA256:
        raise NoRatingsError(
            f"{len(content)} bytes with sha256 {found} instead of {U_DATA_BYTES} bytes with sha256 {U_DATA_SHA256}"
        )
    return content


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
