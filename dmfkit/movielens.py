"""Fetches MovieLens 100K's `u.data`, never shipped with the book, and checks every byte of it by hash.

The ratings may be used for research but not redistributed, so each reader fetches a copy from whoever may
offer one. F. M. Harper and J. A. Konstan, "The MovieLens Datasets: History and Context", ACM Transactions
on Interactive Intelligent Systems 5(4), 2015.
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
import zipfile
import zlib
from pathlib import Path

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
