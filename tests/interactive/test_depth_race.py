"""What the race of depths is given: dmfkit's own matrices, orders and factors, or one sentence about bad input."""

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch

import dmfkit as dm
from dmfkit.interactive import BUDGET, DepthRace
from dmfkit.problems.completion import entry_order


def task(data_seed=0, **changes):
    return dm.CompletionTask(**{"d": 20, "rank": 3, "n_observed": 200, "data_seed": data_seed, **changes})


GOOD = {"seeds": [0, 4], "depths": [1, 2, 3], "init_scale": 1e-3, "lr": 2e-3, "n_steps": 5000}


def race(tasks=None, **changes):
    return DepthRace(plt.figure(), tasks=tasks or [task(0), task(7)], **{**GOOD, **changes})


def array(explorable, name):
    item = explorable.content["arrays"][name]
    return np.frombuffer(item["data"], dtype=item["type"]).reshape(item["shape"])


def test_it_holds_the_entries_and_the_unscaled_factors_of_dmfkit():
    made = race()
    assert made.stored_size() < BUDGET
    problem = task(7).problem()
    np.testing.assert_array_equal(array(made, "truths")[1], problem.ground_truth.numpy())
    np.testing.assert_array_equal(array(made, "orders")[1][:200], entry_order((20, 20), 7)[:200].numpy())
    assert set(array(made, "orders")[1][:200]) == set(np.flatnonzero(problem.mask.numpy()))
    for depth in (1, 2, 3):
        widths = dm.full_widths((20, 20), depth)
        factors = dm.initialise("gaussian", widths, [1e-3], [4]).factors
        for factor, normals in zip(factors, array(made, "normals")[1], strict=False):
            np.testing.assert_allclose(factor[0], dm.gaussian_std(widths, 1e-3) * normals, rtol=1e-13)


def test_settings_that_are_given_can_be_chosen():
    settings = race(init_scale=0.02, lr=5e-3, n_steps=3000, tasks=[task(n_observed=123)]).content["settings"]
    for name, choices in (("init_scale", "init_scales"), ("lr", "lrs")):
        assert settings[name] in settings[choices]
    for name in ("n_steps", "n_observed"):
        assert settings[name] in settings[f"{name}_choices"]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"tasks": [task(), task(d=10, n_observed=50)]}, "differ in more than data_seed"),
        ({"tasks": [task(normalisation="mean")]}, "half-sum loss"),
        ({"tasks": [task(d=60)]}, "between 2 and 40"),
        ({"tasks": [task(n_observed=400)]}, "not observed"),
        ({"seeds": []}, "at least one seed"),
        ({"depths": [3, 2]}, "ascending"),
        ({"depths": [2]}, "at least two depths"),
        ({"init_scale": 0.0}, "positive numbers"),
        ({"lr": -1.0}, "positive numbers"),
        ({"n_steps": 10**6}, "between 1 and 20000 steps"),
    ],
)
def test_bad_input_gets_one_sentence(changes, words):
    with pytest.raises(dm.InputError, match=words) as caught:
        race(**changes)
    assert "\n" not in str(caught.value)
    plt.close("all")


def test_no_tasks():
    with pytest.raises(dm.InputError, match="at least one CompletionTask"):
        DepthRace(plt.figure(), tasks=[], **GOOD)
    plt.close("all")


def test_the_order_of_entries_is_that_of_the_mask():
    for n_observed in (1, 57, 400):
        mask = dm.matrix_completion(torch.ones(20, 20, dtype=torch.float64), n_observed, 3).mask
        assert set(entry_order((20, 20), 3)[:n_observed].tolist()) == set(mask.flatten().nonzero().flatten().tolist())
