"""Which matrix products an evaluation of loss and gradient takes, in which order, and what each reads and writes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import Literal, NamedTuple

# "product" is the product matrix on the way forward, and the gradient of the loss in it on the way back; "kept" are
# products of some of the factors; "passed" is that gradient after it went through some factors.
Kind = Literal["factor", "gradient", "product", "kept", "passed"]


class Place(NamedTuple):
    """A matrix that a product reads or writes, and whether it reads it transposed."""

    kind: Kind
    number: int = 0
    transposed: bool = False

    @property
    def mT(self) -> Place:
        return self._replace(transposed=not self.transposed)


class Multiplication(NamedTuple):
    """One matrix product."""

    left: Place
    right: Place
    target: Place


@dataclass(frozen=True)
class ProductPlan:
    """The products of one evaluation; none where there is a single factor, which is the product matrix itself.

    A depth-N evaluation takes ``3 (N - 1)`` matrix products: ``N - 1`` to form the product matrix, and for each further
    factor one to pass the gradient on and one to finish it. The intermediate products are kept on the narrower side:
    when the product matrix is wider than high, products are accumulated from the left, else from the right.

    Attributes
    ----------
    widths : tuple of int
        ``(d_0, .., d_N)``.
    from_left : bool
    forward, backward : tuple of Multiplication
    """

    widths: tuple[int, ...]
    from_left: bool
    forward: tuple[Multiplication, ...]
    backward: tuple[Multiplication, ...]

    def shape(self, place: Place) -> tuple[int, int]:
        """Rows and columns of what lies at a place, as it is stored."""
        factors = [(rows, columns) for columns, rows in pairwise(self.widths)]
        if place.kind in ("factor", "gradient"):
            return factors[place.number]
        if place.kind == "product":
            return self.widths[-1], self.widths[0]
        inner = self.widths[1:-1][place.number]
        return (self.widths[-1], inner) if self.from_left else (inner, self.widths[0])


@lru_cache(maxsize=256)
def product_plan(widths: tuple[int, ...], from_left: bool | None = None) -> ProductPlan:
    """Plan an evaluation for factors of these widths, from the side that is cheaper if none is named."""
    if from_left is None:
        from_left = widths[0] > widths[-1]
    last = len(widths) - 2
    if last == 0:
        return ProductPlan(widths, from_left, (), ())
    forward, backward = (_forward_left, _backward_left) if from_left else (_forward_right, _backward_right)
    return ProductPlan(widths, from_left, tuple(forward(last)), tuple(backward(last)))


def _forward_left(last: int) -> Iterator[Multiplication]:
    done = Place("factor", last)
    for index in range(last - 1, -1, -1):  # kept[index - 1] = W_N .. W_{index + 1}
        target = Place("kept", index - 1) if index else Place("product")
        yield Multiplication(done, Place("factor", index), target)
        done = target


def _forward_right(last: int) -> Iterator[Multiplication]:
    done = Place("factor", 0)
    for index in range(1, last + 1):  # kept[index] = W_{index + 1} .. W_1
        target = Place("kept", index) if index < last else Place("product")
        yield Multiplication(Place("factor", index), done, target)
        done = target


def _backward_right(last: int) -> Iterator[Multiplication]:
    gradient = Place("product")
    for index in range(last, 0, -1):
        before = Place("factor", 0) if index == 1 else Place("kept", index - 1)
        yield Multiplication(gradient, before.mT, Place("gradient", index))
        # The last pass-on is the first factor's own gradient.
        target = Place("gradient", 0) if index == 1 else Place("passed", index - 1)
        yield Multiplication(Place("factor", index).mT, gradient, target)
        gradient = target


def _backward_left(last: int) -> Iterator[Multiplication]:
    gradient = Place("product")
    for index in range(last):
        after = Place("factor", last) if index == last - 1 else Place("kept", index)
        yield Multiplication(after.mT, gradient, Place("gradient", index))
        target = Place("gradient", last) if index == last - 1 else Place("passed", index)
        yield Multiplication(gradient, Place("factor", index).mT, target)
        gradient = target
