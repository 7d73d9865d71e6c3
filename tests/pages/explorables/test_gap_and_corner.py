"""Equation 11 and Proposition 1 under the reader's hands give the numbers of the package."""

import numpy as np
import pytest
import torch

import dmfkit as dm
from dmfkit import theory

pytestmark = pytest.mark.book
WAYS = ("keyboard", "mouse", "touch")


@pytest.mark.parametrize("by", WAYS)
def test_the_gap_follows_equation_11(open_explorable, by):
    gap = open_explorable("06_one_measurement", "depth-gap")
    before = gap.text
    for depth, alpha, ratio, growth in ((0, 3, 1, 70), (1, 15, 4, 20), (5, -1, 8, 60), (-1, 0, 3, -1)):
        gap.slide("depth N", depth, by=by)
        gap.slide("ratio of strengths", alpha, by=by)
        gap.slide("ratio of starts", ratio, by=by)
        gap.slide("has grown", growth, by=by)
        now = gap.values
        starts = {"alpha": now["alpha"], "first_0": now["first0"], "second_0": now["second0"]}
        expected = float(theory.first_singular_value(now["second"], depth=now["depth"], **starts))
        level = theory.saturation_level(now["depth"], **starts) if now["depth"] > 2 else np.inf
        np.testing.assert_allclose(now["first"], expected, rtol=1e-6)
        np.testing.assert_allclose(now["level"], level, rtol=1e-6)
        assert gap.text != before
        before = gap.text


def test_the_gap_says_where_there_is_no_level(open_explorable):
    gap = open_explorable("06_one_measurement", "depth-gap")
    gap.slide("depth N", -1)
    gap.slide("ratio of strengths", -1)
    gap.slide("ratio of starts", -1)
    gap.slide("has grown", -1)
    assert gap.values["level"] == np.inf
    assert gap.values["first"] == np.inf
    assert "no saturation level" in gap.text
    assert "outgrows" in gap.text


@pytest.mark.parametrize("by", WAYS)
def test_the_corner_has_the_quasi_norms_of_the_package(open_explorable, by):
    corner = open_explorable("02_norms_in_theory", "schatten-corner")
    for epsilon, exponent in ((0, 3), (1, -1), (40, 10), (99, 0), (-1, 5)):
        corner.slide("entries", epsilon, by=by)
        corner.slide("exponent", exponent, by=by)
        now = corner.values
        eigenvalues = np.linalg.eigvalsh(theory.perturbed_limit(5, now["epsilon"]))
        eigenvalues = torch.from_numpy(np.where(eigenvalues < 1e-12, 0.0, eigenvalues))
        np.testing.assert_allclose(now["quasi_norm_power"], float(dm.schatten(eigenvalues, now["p"])), rtol=1e-6)
        np.testing.assert_allclose(now["nuclear"], float(dm.schatten(eigenvalues, 1.0)), rtol=1e-6)
        assert now["rank"] == int((eigenvalues > 0).sum())
        assert (now["change"] < 0) == (now["epsilon"] > 0)
