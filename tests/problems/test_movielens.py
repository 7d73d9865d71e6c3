"""MovieLens 100K: every source, every way for it to fail, and the real ratings wherever a source answers."""

import contextlib
import hashlib
import io
import itertools
import os
import socket
import ssl
import subprocess
import sys
import threading
import warnings
import zipfile
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import trustme
from scipy.sparse.linalg import svds

from dmfkit.errors import InputError
from dmfkit.problems import movielens
from dmfkit.problems.movielens import cache_file, movielens_100k
from dmfkit.problems.ratings import Ratings, synthetic_ratings

# A stand-in for u.data, so that nothing of the real file is needed: the tests patch the expected hashes.
ROWS = b"".join(b"%d\t%d\t%d\t88125\n" % (u, 1 + 7 * u % 1682, 1 + u % 5) for u in range(1, 944))
HEADER = b"user_id:token\titem_id:token\trating:float\ttimestamp:float\n"


def zipped(member, content=ROWS):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(member, content)
    return buffer.getvalue()


class Site(BaseHTTPRequestHandler):
    """The official site: answers with what the server says, and keeps what was asked for."""

    def do_GET(self):
        self.server.asked.append(self.path)
        self.send_response(self.server.status)
        self.end_headers()
        with contextlib.suppress(ConnectionError):  # when the other side has heard enough
            for part in self.server.parts:
                if part is SILENCE:
                    self.server.over.wait()
                else:
                    self.wfile.write(part)

    def log_message(self, *_):
        pass


SILENCE = object()


@pytest.fixture
def stand_in(monkeypatch, tmp_path):
    """Expect the stand-in's hashes, cache in a temporary folder, and reach no site; returns the official zip."""
    official = zipped("ml-100k/u.data")
    monkeypatch.setattr(movielens, "U_DATA_SHA256", hashlib.sha256(ROWS).hexdigest())
    monkeypatch.setattr(movielens, "ZIP_SHA256", hashlib.sha256(official).hexdigest())
    monkeypatch.setenv("DMFKIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("NO_PROXY", "localhost,127.0.0.1")
    with socket.socket() as unused:  # bound, but nobody listens
        unused.bind(("127.0.0.1", 0))
        monkeypatch.setattr(movielens, "OFFICIAL_ZIP", f"http://127.0.0.1:{unused.getsockname()[1]}/ml-100k.zip")
        yield official


@pytest.fixture
def no_pip_index(stand_in, monkeypatch):
    def run(command, **options):
        return subprocess.CompletedProcess(command, 1, stdout="", stderr="ERROR: no index\n")

    monkeypatch.setattr(subprocess, "run", run)


@pytest.fixture
def site(stand_in, monkeypatch):
    """A server in the place of the official site, which gives the zip file unless the test has other wishes."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Site) as server:
        server.asked, server.status, server.parts, server.over = [], 200, [stand_in], threading.Event()
        monkeypatch.setattr(movielens, "OFFICIAL_ZIP", f"http://127.0.0.1:{server.server_port}/ml-100k.zip")
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.over.set()
        server.shutdown()
        thread.join()


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
    assert f"it has {movielens.LARGEST_FILE + 1} bytes" in refusal(huge)


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
    assert site.asked == ["/ml-100k.zip"]
    np.testing.assert_array_equal(first.values, second.values)


def test_cache_argument_overrides_the_environment(site, tmp_path):
    movielens_100k(cache=tmp_path / "elsewhere")
    assert cache_file(tmp_path / "elsewhere").read_bytes() == ROWS
    assert not cache_file().exists()


def test_cache_with_a_wrong_hash_is_replaced(site, capfd):
    cache_file().parent.mkdir(parents=True)
    cache_file().write_bytes(ROWS[:-1])
    assert "the official site" in movielens_100k().source
    assert cache_file().read_bytes() == ROWS
    assert capfd.readouterr() == ("", "")  # a chapter's output shows none of the reader's folders


def test_cache_with_a_wrong_hash_is_not_used_where_no_source_answers(no_pip_index):
    cache_file().parent.mkdir(parents=True)
    cache_file().write_bytes(ROWS[:-1])
    assert "the local cache (it has no genuine file)" in refusal()


def test_interrupted_write_leaves_no_cache(site, monkeypatch):
    def interrupted(written, target):
        assert Path(written).parent == cache_file().parent == Path(target).parent  # or the replacement is not atomic
        assert Path(written).read_bytes() == ROWS
        raise KeyboardInterrupt

    monkeypatch.setattr("shutil.move", interrupted)
    with pytest.raises(KeyboardInterrupt):
        movielens_100k()
    assert list(cache_file().parent.iterdir()) == []


def test_unusable_cache_costs_the_cache_only(site, tmp_path):
    (tmp_path / "cache").write_text("a file where the folder should be")
    with pytest.warns(UserWarning, match="could not be cached: (Not a directory|File exists)") as caught:
        assert len(movielens_100k()) == 943
    assert caught[0].filename == __file__
    assert list(tmp_path.iterdir()) == [tmp_path / "cache"]


def test_site_that_refuses_or_has_something_else(site, no_pip_index):
    site.status = 503
    assert "the official site (503 Server Error" in refusal()
    site.status, other = 200, zipped("ml-100k/u.data", ROWS + b"\n")
    site.parts = [other]  # never opened
    assert f"the official site ({len(other)} bytes with sha256 {hashlib.sha256(other).hexdigest()} ins" in refusal()
    assert list(cache_file().parent.iterdir()) == []


@pytest.mark.parametrize("before", [[], [bytes(10_000)]], ids=["at once", "half-way"])
def test_site_that_falls_silent_is_given_up_and_not_asked_again(site, no_pip_index, monkeypatch, before):
    monkeypatch.setattr(movielens, "SILENCE", 0.2)
    site.parts = [*before, SILENCE]
    assert "the official site (it did not answer)" in refusal()
    assert len(site.asked) <= 1  # the server may not yet have noticed


def test_site_that_never_ends_is_given_up(site, no_pip_index, monkeypatch):
    monkeypatch.setattr(movielens, "time", SimpleNamespace(monotonic=itertools.count(step=8.0).__next__))
    site.parts = itertools.repeat(bytes(1024))
    assert "the official site (not complete after 30 s)" in refusal()


def test_expired_certificate_is_not_accepted(no_pip_index, monkeypatch, tmp_path):
    """The certificate's only fault is its age: its authority is trusted, and its name is right."""
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost", not_after=datetime(2020, 12, 31, tzinfo=UTC)).configure_cert(context)
    authority.cert_pem.write_to_path(tmp_path / "authority.pem")
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "authority.pem"))
    with socket.create_server(("127.0.0.1", 0)) as listening:
        monkeypatch.setattr(movielens, "OFFICIAL_ZIP", f"https://localhost:{listening.getsockname()[1]}/ml-100k.zip")

        def answer():
            connection, _ = listening.accept()
            with connection, pytest.raises(ssl.SSLError):
                context.wrap_socket(connection, server_side=True)

        thread = threading.Thread(target=answer)
        thread.start()
        assert "the official site (certificate has expired)" in refusal()
        thread.join()


def test_no_source_reachable_names_each_and_the_way_out(no_pip_index):
    sentence = refusal()
    for words in (
        "the local cache (it has no genuine file)",
        "the official site (Connection refused)",
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
    assert (
        "PyPI's recbole==1.2.1 (pip says: THESE PACKAGES DO NOT MATCH THE HASHES FROM THE REQUIREMENTS FI" in refusal()
    )
    assert not cache_file().exists()


def test_python_without_pip(wheel_folder, monkeypatch, tmp_path):
    (tmp_path / "python").write_text(
        f"#!/bin/sh\nexec {sys.executable} -c \"import sys; sys.exit('No module named pip')\"\n"
    )
    (tmp_path / "python").chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    assert "(pip says: No module named pip)" in refusal()
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
