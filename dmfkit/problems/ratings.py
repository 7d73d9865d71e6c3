"""Ratings of items by users, as vectors and as a matrix, and synthetic ones to stand in for MovieLens 100K."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from dmfkit.errors import InputError

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
