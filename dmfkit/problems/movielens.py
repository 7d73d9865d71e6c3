"""MovieLens 100K from whoever may offer it: a file of the user's, the cache, the official site or the package index.

The ratings may be used for research but not redistributed, so they never come with the book, and every reader fetches a
copy. F. M. Harper and J. A. Konstan, "The MovieLens Datasets: History and Context", ACM Transactions on Interactive
Intelligent Systems 5(4), 2015. Whatever the source, all bytes of `u.data` are checked by one hash before they are used.
"""

from __future__ import annotations

import hashlib
import io
import subprocess
import sys
import tempfile
import time
import warnings
import zipfile
import zlib
from pathlib import Path
from types import SimpleNamespace

import numpy as np

from dmfkit.errors import InputError
from dmfkit.paths import cache_folder
from dmfkit.problems.ratings import MOVIELENS_ITEMS, MOVIELENS_USERS, Ratings

OFFICIAL_PAGE = "https://grouplens.org/datasets/movielens/100k/"
OFFICIAL_ZIP = "https://files.grouplens.org/datasets/movielens/ml-100k.zip"
ZIP_SHA256 = "50d2a982c66986937beb9ffb3aa76efe955bf3d5c6b761f4e3a7cd717c6a3229"
U_DATA_SHA256 = "06416e597f82b7342361e41163890c81036900f418ad91315590814211dca490"
# A package that carries the same rows, below one header line, as an example. It is read as a zip file, never installed.
WHEEL = "recbole==1.2.1"
WHEEL_SHA256 = "9c9948202011f37eb0a7c6768129313f00d6403ad221ec940d5e2d5d5f33a407"
WHEEL_MEMBER = "recbole/dataset_example/ml-100k/ml-100k.inter"
MEMBERS = ("ml-100k/u.data", "u.data", WHEEL_MEMBER)
# More than any genuine file has; what is larger is not read into memory.
LARGEST_FILE = 50_000_000
# Seconds without a sign of life after which a host counts as unreachable.
SILENCE = 4.0


class NoRatingsError(Exception):
    """Says in a few words why a source does not give the ratings."""


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
        "auto" tries the local cache, the official site and the package index, in this order; else the path of a
        `u.data` or of a zip file that holds it.
    cache : str or path, optional
        Folder of the cache; by default the environment variable `DMFKIT_CACHE` or the user's cache folder.
    timeout : float
        Seconds after which one download is given up; a host that does not answer is given up after 4.
    wheel : bool
        Whether to ask PyPI, or the index that pip is configured for, for a package that has the ratings as an example.

    Returns
    -------
    ratings : Ratings
        In the order of `u.data`, without the times.

    Raises
    ------
    InputError
        If the named file is not MovieLens 100K's, or no source gives the ratings.
    """
    if str(source) == "auto":
        content, origin = _cached_or_fetched(cache_file(cache), timeout, wheel)
    else:
        content, origin = _read_named_file(str(source)), f"the file {Path(source).name}"
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


def _cached_or_fetched(stored: Path, timeout: float, wheel: bool) -> tuple[bytes, str]:
    """Return the genuine `u.data` and, in words, where it came from."""
    import pooch  # here, because only these ratings need it

    origin = "the local cache"
    tried = [f"{origin} (it has no genuine file)"]
    sources = [("the official site", _read_official_zip), (f"PyPI's {WHEEL}", _read_wheel)]

    def download(_url: str, output_file: str, _pooch: object) -> None:
        nonlocal origin
        # Unpacked here: pooch's Unzip would keep the zip file, too, and write u.data in place, unchecked, bit by bit.
        for origin, read in sources[: 1 + wheel]:
            try:
                Path(output_file).write_bytes(read(timeout))
                return
            except NoRatingsError as reason:
                tried.append(f"{origin} ({reason})")
        raise InputError(
            f"MovieLens 100K is not to be had from {', '.join(tried)}: download ml-100k.zip by hand from "
            f'{OFFICIAL_PAGE} and set movielens to its path, or set dataset="synthetic".'
        )

    def retrieve(folder: str | Path) -> bytes:
        return Path(pooch.retrieve(OFFICIAL_ZIP, U_DATA_SHA256, stored.name, folder, downloader=download)).read_bytes()

    log, level = pooch.get_logger(), pooch.get_logger().level
    log.setLevel("WARNING")  # below that it would show the reader's folders in a chapter's output
    try:
        return retrieve(stored.parent), origin
    except OSError as error:
        reason = error.strerror or "no permission"
        warnings.warn(f"The MovieLens ratings could not be cached: {reason}.", stacklevel=3)
        with tempfile.TemporaryDirectory() as folder:
            return retrieve(folder), origin
    finally:
        log.setLevel(level)


def _read_official_zip(timeout: float) -> bytes:
    import pooch

    end, content = time.monotonic() + timeout, io.BytesIO()

    def update(_: int) -> None:
        if time.monotonic() > end:
            raise NoRatingsError(f"not complete after {timeout:g} s")

    # Pooch limits the silence of a host only, but tells a progress bar of every kilobyte.
    clock = SimpleNamespace(total=0, update=update, reset=lambda: None, close=lambda: None)
    # The certificate is verified, even where the site lets it expire: we would rather not have the file.
    fetch = pooch.HTTPDownloader(progressbar=clock, timeout=min(timeout, SILENCE), verify=True)
    try:
        fetch(OFFICIAL_ZIP, content, None)
    except (OSError, ValueError) as error:  # OSError: every error of requests is one; ValueError: headers of nonsense
        cause: BaseException = error
        while cause.__context__ is not None:  # the first error, because what requests makes of it is long
            cause = cause.__context__
        if isinstance(cause, TimeoutError):
            raise NoRatingsError("it did not answer") from error
        reason = getattr(cause, "verify_message", None) or getattr(cause, "strerror", None) or cause
        raise NoRatingsError(str(reason)[:100]) from error
    return _unzip(_genuine(content.getvalue(), ZIP_SHA256))


def _read_wheel(timeout: float) -> bytes:
    """Let pip fetch the wheel, and install nothing.

    Pip and not pooch with a second address, because many machines reach nothing but a mirror of PyPI, whose address,
    credentials, proxy and certificates stand in pip's configuration.
    """
    with tempfile.TemporaryDirectory() as folder:
        requirements = Path(folder) / "requirements.txt"
        requirements.write_text(f"{WHEEL} --hash=sha256:{WHEEL_SHA256}\n")
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--require-hashes"]
        command += ["--no-input", "--disable-pip-version-check", "--progress-bar=off", "--retries=0"]
        command += [f"--timeout={SILENCE:g}", f"--dest={folder}", f"--requirement={requirements}"]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, stdin=subprocess.DEVNULL)
        except subprocess.TimeoutExpired as error:
            raise NoRatingsError(f"not complete after {timeout:g} s") from error
        except OSError as error:
            raise NoRatingsError(f"pip does not start: {error.strerror}") from error
        if done.returncode:
            said = done.stderr.strip().splitlines() or ["nothing"]
            first = next((line for line in said if line.startswith("ERROR: ")), said[-1])
            raise NoRatingsError(f"pip says: {first.removeprefix('ERROR: ').partition('. ')[0][:100]}")
        return _unzip(next(Path(folder).glob("*.whl")).read_bytes())


def _read_named_file(name: str) -> bytes:
    path = Path(name).expanduser()
    advice = f'download ml-100k.zip from {OFFICIAL_PAGE} and name it, set movielens="auto", or set dataset="synthetic"'
    try:
        if path.stat().st_size > LARGEST_FILE:
            raise NoRatingsError(f"it has {path.stat().st_size} bytes, and no genuine one more than {LARGEST_FILE}")
        content = path.read_bytes()
        return _genuine(_unzip(content) if content.startswith(b"PK") else content, U_DATA_SHA256)
    except OSError as error:
        raise InputError(f"The ratings file {name} cannot be read ({error.strerror}): {advice}.") from error
    except NoRatingsError as reason:
        raise InputError(f"{name} is not MovieLens 100K's u.data ({reason}): {advice}.") from reason


def _unzip(content: bytes) -> bytes:
    """Take `u.data` out of the bytes of a zip file."""
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


def _genuine(content: bytes, sha256: str) -> bytes:
    found = hashlib.sha256(content).hexdigest()
    if found != sha256:
        raise NoRatingsError(f"{len(content)} bytes with sha256 {found} instead of {sha256}")
    return content
