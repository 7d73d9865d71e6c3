"""MovieLens 100K: every source, every way for it to fail, and the real ratings wherever a source answers."""

import errno
import hashlib
import io
import os
import ssl
import subprocess
import sys
import urllib.error
import urllib.request
import warnings
import zipfile

import numpy as np
import pytest
from scipy.sparse.linalg import svds

from dmfkit.errors import InputError
from dmfkit.problems import ratings as movielens
from dmfkit.problems.ratings import Ratings, cache_file, movielens_100k, synthetic_ratings

# A stand-in for u.data, so that nothing of the real file is needed: the tests patch the expected hashes.
ROWS = b"".join(b"%d\t%d\t%d\t88125\n" % (u, 1 + 7 * u % 1682, 1 + u % 5) for u in range(1, 944))
HEADER = b"user_id:token\titem_id:token\trating:float\ttimestamp:float\n"


def zipped(member, content=ROWS):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(member, content)
    return buffer.getvalue()


def answering(content):
    """Make an `urlopen` that answers every request with `content`."""

    def urlopen(url, timeout):
        return io.BytesIO(content)

    return urlopen


def failing(error):
    """Make a function that fails whatever it is asked."""

    def fail(*args, **kwargs):
        raise error

    return fail


@pytest.fixture
def stand_in(monkeypatch, tmp_path):
    """Expect the stand-in's hashes and keep the cache in a temporary folder; returns the official zip."""
    official = zipped("ml-100k/u.data")
    monkeypatch.setattr(movielens, "U_DATA_SHA256", hashlib.sha256(ROWS).hexdigest())
    monkeypatch.setattr(movielens, "ZIP_SHA256", hashlib.sha256(official).hexdigest())
    monkeypatch.setenv("DMFKIT_CACHE", str(tmp_path / "cache"))
    unreachable = urllib.error.URLError(OSError(errno.ENETUNREACH, "Network is unreachable"))
    monkeypatch.setattr(urllib.request, "urlopen", failing(unreachable))
    return official


@pytest.fixture
def no_pip_index(stand_in, monkeypatch):
    def run(command, **options):
        return subprocess.CompletedProcess(command, 1, stdout="", stderr="ERROR: no index\n")

    monkeypatch.setattr(subprocess, "run", run)


@pytest.fixture
def site(stand_in, monkeypatch):
    """The official site answers; returns the list of requested addresses."""
    asked = []

    def urlopen(url, timeout):
        asked.append(url)
        return io.BytesIO(stand_in)

    monkeypatch.setattr(urllib.request, "urlopen", urlopen)
    return asked


def refusal(*args, **kwargs):
    with pytest.raises(InputError) as caught:
        movielens_100k(*args, **kwargs)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# Files that the user names.


@pytest.mark.parametrize(
    "content",
    [ROWS, zipped("ml-100k/u.data"), zipped("u.data"), zipped(movielens.WHEEL_MEMBER, HEADER + ROWS)],
    ids=["u.data", "official zip", "own zip", "wheel"],
)
def test_named_file(stand_in, tmp_path, content):
    path = tmp_path / "my ratings"
    path.write_bytes(content)
    ratings = movielens_100k(path)
    assert (ratings.users[0], ratings.items[0], ratings.values[0]) == (0, 7, 2.0)
    assert (ratings.n_users, ratings.n_items, len(ratings)) == (943, 1682, 943)
    assert ratings.sha256 == hashlib.sha256(ROWS).hexdigest()
    assert "my ratings" in ratings.source
    assert str(tmp_path) not in ratings.source
    assert not cache_file().exists()


def test_named_file_with_a_wrong_hash_is_refused_with_both_hashes(stand_in, tmp_path):
    path = tmp_path / "u.data"
    wrong = ROWS.replace(b"\n", b"\r\n")
    path.write_bytes(wrong)
    sentence = refusal(path)
    assert hashlib.sha256(wrong).hexdigest() in sentence
    assert hashlib.sha256(ROWS).hexdigest() in sentence
    assert f"{len(wrong)} bytes" in sentence


def test_named_zip_that_is_damaged_or_has_other_content(stand_in, tmp_path):
    path = tmp_path / "ml-100k.zip"
    path.write_bytes(stand_in[:-40])
    assert "the zip file is damaged" in refusal(path)
    broken = bytearray(stand_in)
    broken[60:80] = bytes(20)
    path.write_bytes(broken)
    assert "the zip file is damaged" in refusal(path)
    path.write_bytes(zipped("ml-1m/ratings.dat"))
    assert "the zip file has no u.data" in refusal(path)
    path.write_bytes(zipped("ml-100k/u.data", ROWS + b"\n"))
    assert hashlib.sha256(ROWS + b"\n").hexdigest() in refusal(path)


def test_named_file_that_is_none(stand_in, tmp_path):
    assert "cannot be read (No such file or directory)" in refusal(tmp_path / "missing")
    assert "cannot be read (Is a directory)" in refusal(tmp_path)
    huge = tmp_path / "huge"
    with huge.open("wb") as file:
        file.truncate(movielens.LARGEST_FILE + 1)
    assert f"it has {movielens.LARGEST_FILE + 1} bytes instead of 1979173" in refusal(huge)


def test_zip_that_would_unpack_to_more_than_fits_is_not_unpacked(stand_in, tmp_path):
    path = tmp_path / "bomb.zip"
    path.write_bytes(zipped("u.data", bytes(movielens.LARGEST_FILE + 1)))
    assert path.stat().st_size < 100_000
    assert "its u.data is too large" in refusal(path)


# The cache and the official site.


def test_official_site_fills_the_cache_and_the_cache_answers(site):
    first = movielens_100k()
    assert "the official site" in first.source
    assert cache_file().read_bytes() == ROWS
    second = movielens_100k()
    assert "the local cache" in second.source
    assert site == [movielens.OFFICIAL_ZIP]
    np.testing.assert_array_equal(first.values, second.values)


def test_cache_argument_overrides_the_environment(site, tmp_path):
    movielens_100k(cache=tmp_path / "elsewhere")
    assert cache_file(tmp_path / "elsewhere").read_bytes() == ROWS
    assert not cache_file().exists()


def test_cache_with_a_wrong_hash_is_named_and_replaced(site):
    cache_file().parent.mkdir(parents=True)
    cache_file().write_bytes(ROWS[:-1])
    with pytest.warns(UserWarning, match=r"cannot be used and are fetched anew: \d+ bytes with sha256") as caught:
        ratings = movielens_100k()
    assert caught[0].filename == __file__
    assert "the official site" in ratings.source
    assert cache_file().read_bytes() == ROWS


def test_interrupted_write_leaves_no_cache(site, monkeypatch):
    def interrupted(self, target):
        assert self.parent == cache_file().parent  # in the same folder, or the replacement is not atomic
        assert self.read_bytes() == ROWS
        raise KeyboardInterrupt

    monkeypatch.setattr("pathlib.Path.replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        movielens_100k()
    assert list(cache_file().parent.iterdir()) == []


def test_unwritable_cache_costs_the_cache_only(site, tmp_path):
    (tmp_path / "cache").write_text("a file where the folder should be")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert len(movielens_100k()) == 943
    assert any("could not be cached" in str(w.message) for w in caught)


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (urllib.error.HTTPError("u", 503, "busy", {}, None), "it answered with status 503"),
        (urllib.error.URLError(TimeoutError("timed out")), "it did not answer"),
        (TimeoutError("timed out"), "it did not answer"),
        (ConnectionResetError(errno.ECONNRESET, "Connection reset by peer"), "Connection reset by peer"),
    ],
)
def test_official_site_that_fails(no_pip_index, monkeypatch, error, words):
    monkeypatch.setattr(urllib.request, "urlopen", failing(error))
    assert f"the official site ({words})" in refusal()


def test_expired_certificate_is_not_accepted(no_pip_index, monkeypatch):
    reason = ssl.SSLCertVerificationError(1, "CERTIFICATE_VERIFY_FAILED")
    reason.verify_message = "certificate has expired"

    def urlopen(url, timeout, **options):
        assert "context" not in options  # the default context verifies
        raise urllib.error.URLError(reason)

    monkeypatch.setattr(urllib.request, "urlopen", urlopen)
    assert "its certificate is not valid: certificate has expired" in refusal()


def test_official_zip_with_another_hash_is_not_opened(no_pip_index, monkeypatch):
    other = zipped("ml-100k/u.data", ROWS + b"\n")
    monkeypatch.setattr(urllib.request, "urlopen", answering(other))
    assert f"the zip file's sha256 is {hashlib.sha256(other).hexdigest()} instead of" in refusal()
    assert not cache_file().exists()


def test_slow_site_is_given_up(no_pip_index, stand_in, monkeypatch):
    class Trickle(io.BytesIO):
        now, reads = 0.0, 0

        def read(self, size):
            Trickle.now, Trickle.reads = Trickle.now + 0.02, Trickle.reads + 1
            return super().read(min(size, 1))

    # A clock that only the site moves.
    monkeypatch.setattr(movielens.time, "monotonic", lambda: Trickle.now)

    def urlopen(url, timeout):
        return Trickle(stand_in)

    monkeypatch.setattr(urllib.request, "urlopen", urlopen)
    assert "not complete after 0.1 s" in refusal(timeout=0.1)
    assert Trickle.reads <= 6


def test_no_source_reachable_names_each_and_the_way_out(no_pip_index):
    sentence = refusal()
    for words in (
        "the local cache (empty)",
        "the official site (Network is unreachable)",
        "PyPI's recbole==1.2.1 (pip says: no index)",
        movielens.OFFICIAL_PAGE,
        'dataset="synthetic"',
    ):
        assert words in sentence
    assert "PyPI" not in refusal(wheel=False)


# The wheel, by the real pip from a folder instead of an index.


@pytest.fixture
def wheel_folder(stand_in, monkeypatch, tmp_path):
    for name, value in {"NO_INDEX": "1", "FIND_LINKS": str(tmp_path), "CONFIG_FILE": os.devnull}.items():
        monkeypatch.setenv(f"PIP_{name}", value)
    wheel = tmp_path / "recbole-1.2.1-py3-none-any.whl"
    info = "recbole-1.2.1.dist-info"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr(movielens.WHEEL_MEMBER, HEADER + ROWS)
        archive.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: recbole\nVersion: 1.2.1\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    return wheel


def test_wheel_is_downloaded_by_hash_and_its_header_line_dropped(wheel_folder, monkeypatch):
    monkeypatch.setattr(movielens, "WHEEL_SHA256", hashlib.sha256(wheel_folder.read_bytes()).hexdigest())
    ratings = movielens_100k()
    assert "PyPI's recbole==1.2.1" in ratings.source
    assert len(ratings) == 943
    assert cache_file().read_bytes() == ROWS


def test_wheel_with_another_hash_is_refused_by_pip(wheel_folder):
    assert f"PyPI's recbole==1.2.1 (its sha256 is not {movielens.WHEEL_SHA256})" in refusal()
    assert not cache_file().exists()


def test_python_without_pip(wheel_folder, monkeypatch, tmp_path):
    (tmp_path / "python").write_text(
        f"#!/bin/sh\nexec {sys.executable} -c \"import sys; sys.exit('No module named pip')\"\n"
    )
    (tmp_path / "python").chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    assert "(this Python has no pip)" in refusal()
    monkeypatch.setattr(sys, "executable", str(tmp_path / "no such python"))
    assert "(pip does not start: No such file or directory)" in refusal()


# The ratings themselves.


def test_first_keeps_order_and_shape():
    ratings = synthetic_ratings(30, 40, 200)
    part = ratings.first(50)
    np.testing.assert_array_equal(part.users, ratings.users[:50])
    np.testing.assert_array_equal(part.values, ratings.values[:50])
    assert part.matrix()[0].shape == (30, 40)
    assert part.source == f"The first 50 of these ratings: {ratings.source}"
    assert ratings.first(200) is ratings
    for n in (0, 201):
        with pytest.raises(InputError, match=f"first {n} ratings were asked for, but there are 200"):
            ratings.first(n)


def test_matrix_has_every_rating_in_its_place():
    ratings = synthetic_ratings(30, 40, 200)
    values, mask = ratings.matrix()
    assert mask.sum() == 200
    assert (values[~mask] == 0).all()
    for user, item, value in zip(ratings.users, ratings.items, ratings.values, strict=True):
        assert values[user, item] == value


def test_repeated_pair_and_index_outside_are_refused():
    def make(users, items, values):
        return Ratings(np.array(users), np.array(items), np.array(values), 3, 4, "made up", "")

    with pytest.raises(InputError, match="1 ratings repeat a user and an item"):
        make([0, 1, 0], [2, 2, 2], [1.0, 2.0, 3.0]).matrix()
    with pytest.raises(InputError, match="users of ratings must be whole numbers from 0 to 2"):
        make([0, 3], [0, 0], [1.0, 1.0])
    with pytest.raises(InputError, match="items of ratings must be whole numbers from 0 to 3"):
        make([0, 1], [0, -1], [1.0, 1.0])
    with pytest.raises(InputError, match="equal length"):
        make([0, 1], [0], [1.0, 1.0])


def test_ratings_cannot_be_changed():
    mine = np.array([0, 1])
    ratings = Ratings(mine, np.array([0, 1]), np.array([1.0, 2.0]), 2, 2, "made up", "")
    mine[0] = 1
    assert ratings.users[0] == 0
    with pytest.raises(ValueError, match="read-only"):
        ratings.values[0] = 5


def test_synthetic_ratings_have_the_shape_of_movielens():
    ratings = synthetic_ratings()
    assert (ratings.n_users, ratings.n_items, len(ratings)) == (943, 1682, 100_000)
    assert set(ratings.values) == {1.0, 2.0, 3.0, 4.0, 5.0}
    values, mask = ratings.matrix()
    per_item = np.sort(mask.sum(axis=0))
    assert per_item[-168:].sum() > 0.3 * 100_000  # the most popular tenth of the items
    assert per_item[-1] > 10 * per_item[len(per_item) // 2]
    # Structure of low rank beyond what the same values in shuffled places would have.
    centred = np.where(mask, values - values[mask].mean(), 0)
    shuffled = np.zeros_like(centred)
    shuffled[mask] = np.random.default_rng(1).permutation(centred[mask])
    assert svds(centred, k=1)[1][0] > 2 * svds(shuffled, k=1)[1][0]
    assert "not MovieLens" in ratings.source


def test_synthetic_ratings_follow_their_seed():
    assert synthetic_ratings(20, 30, 100).sha256 == synthetic_ratings(20, 30, 100).sha256
    assert synthetic_ratings(20, 30, 100, seed=1).sha256 != synthetic_ratings(20, 30, 100).sha256
    assert synthetic_ratings(4, 5, 20).matrix()[1].all()
    with pytest.raises(InputError, match="from 1 to n_users \\* n_items = 20"):
        synthetic_ratings(4, 5, 21)


def test_the_real_ratings():
    """Uses the real cache and network: where no source answers, this is skipped, loudly."""
    try:
        ratings = movielens_100k()
    except InputError as error:
        message = f"THE REAL MOVIELENS 100K IS NOT TESTED: {error}"
        warnings.warn(message, stacklevel=1)  # pytest lists warnings, but hides the reasons of skips
        pytest.skip(message)
    assert ratings.sha256 == movielens.U_DATA_SHA256
    assert len(ratings) == 100_000
    assert np.bincount(ratings.values.astype(int)).tolist() == [0, 6110, 11370, 27145, 34174, 21201]
    assert (len(np.unique(ratings.users)), len(np.unique(ratings.items))) == (943, 1682)
    values, mask = ratings.matrix()
    assert values.shape == (943, 1682)
    assert mask.sum() == 100_000
    # The file is not sorted, but not shuffled either: its first tenth has well under half of the users.
    assert (np.diff(ratings.users) < 0).any()
    assert len(np.unique(ratings.first(10_000).users)) == 385
