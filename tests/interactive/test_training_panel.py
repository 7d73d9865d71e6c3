"""Training panels without a browser: what they offer, what they run, what they show where nobody sits in front."""

import asyncio
from concurrent.futures import ThreadPoolExecutor

import pytest
from IPython.core.interactiveshell import InteractiveShell

import dmfkit as dm
from dmfkit.interactive.training_panel import TrainingPanel, has_live_front_end

TASK = dm.CompletionTask(d=12, rank=2, n_observed=90)
METHODS = {"gradient flow": dm.Flow(stop=1e-8), "gradient descent": dm.Descent(lr=5e-3, max_steps=40_000)}


def panel(**choices):
    choices = choices or {"depth": [2, 3], "n_observed": [60, 90, 144], "lr": [5e-3, 10.0], "seed": [0, 1]}
    return TrainingPanel(TASK, {"Gaussian": dm.Start(init_scale=1e-2)}, METHODS, device="cpu", **choices)


def in_a_loop(coroutine):
    """Run in an event loop of its own thread: a browser that another test has open keeps this thread's loop running."""
    with ThreadPoolExecutor(1) as thread:
        thread.submit(asyncio.run, coroutine).result()


def press(one, button="train"):
    """Press a button inside a running loop, as a kernel does, and wait for what it begins."""

    async def pressed():
        getattr(one, button).click()
        await asyncio.gather(one._running, return_exceptions=True)

    in_a_loop(pressed())


def test_first_values_are_those_of_task_and_start():
    one = panel()
    assert {name: knob.value for name, knob in one.knobs.items()} == {
        "depth": 3,
        "n_observed": 90,
        "lr": 5e-3,
        "seed": 0,
    }


def test_a_control_without_effect_is_disabled():
    one = panel()
    assert one.knobs["lr"].disabled
    one.method.value = "gradient descent"
    assert not any(knob.disabled for knob in one.knobs.values())


def test_the_run_is_the_engines_own():
    one = panel()
    one.knobs["depth"].value, one.knobs["seed"].value, one.knobs["n_observed"].value = 2, 1, 144
    press(one)
    run = dm.sweep(
        dm.CompletionTask(d=12, rank=2, n_observed=144),
        dm.Start(depth=2, init_scale=1e-2, seed=1),
        METHODS["gradient flow"],
        seed=[1],
        device="cpu",
    )
    assert one._traces[-1].error[-1] == pytest.approx(float(run["final_relative_error"][0]), rel=1e-12)
    assert one._traces[-1].evaluations[-1] == int(run["n_evaluations"][0])
    assert f"{float(run['final_relative_error'][0]):.3g}" in one.text_value
    assert "fell below the stopping value" in one.text_value
    assert bytes(one.picture.value).startswith(b"\x89PNG")
    assert not one.train.disabled
    assert one.stop.disabled


def test_stop_stops_and_says_where():
    one = TrainingPanel(
        TASK, {"": dm.Start()}, {"": dm.Descent(lr=1e-6, max_steps=10_000_000)}, device="cpu", depth=[3]
    )

    async def stopped():
        one.train.click()
        while not (one._traces and any(one._traces[-1].evaluations)):
            await asyncio.sleep(0.01)
        assert one.train.disabled
        one.stop.click()
        await asyncio.gather(one._running, return_exceptions=True)

    in_a_loop(stopped())
    assert one.text_value.startswith("Stopped. ")
    assert 0 < one._traces[-1].evaluations[-1] < 1_000_000
    assert not one.train.disabled


def test_a_rate_that_is_too_large_is_said():
    one = panel()
    one.method.value, one.knobs["lr"].value = "gradient descent", 10.0
    press(one)
    assert "diverged: lower the learning rate" in one.text_value


def test_an_impossible_choice_gets_its_sentence():
    one = panel(n_observed=[90, 145])
    one.knobs["n_observed"].value = 145
    press(one)
    assert "145" in one.text_value
    assert not one.train.disabled


@pytest.mark.parametrize(
    ("choices", "sentence"),
    [
        ({"width": [1]}, "'width' cannot be swept: choose from"),
        ({"depth": []}, "depth is an empty list"),
        ({"depth": [2, 2]}, "has a value twice"),
    ],
)
def test_wrong_choices_are_refused_at_once(choices, sentence):
    with pytest.raises(dm.InputError, match=sentence):
        panel(**choices)


def test_without_a_front_end_there_is_a_picture_and_no_widget(monkeypatch, capsys):
    shell = InteractiveShell.instance()
    published = []
    monkeypatch.setattr(shell.display_pub, "publish", lambda data, **_: published.append(data))
    assert not has_live_front_end()
    panel()._ipython_display_()
    panel()._ipython_display_()
    assert [set(data) & {"image/png", "application/vnd.jupyter.widget-view+json"} for data in published] == [
        {"image/png"}
    ] * 2
    assert published[0]["image/png"] == published[1]["image/png"], "the same picture every time"
