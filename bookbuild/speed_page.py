"""The tables of speeds, from the files that ``python -m benchmarks NAME --json FILE`` wrote.

What the engine is meant to reach on two cores, as rows of the stored tables of speeds.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from dmfkit.errors import InputError


@dataclass(frozen=True)
class Target:
    """What a machine with two cores is meant to reach.

    Attributes
    ----------
    text : str
    group, row : str
        Where the measured value stands.
    over : str
        Row of the same group whose value is divided by it; empty for the value itself.
    least, most : float, optional
        What the value must not fall below or exceed.
    """

    text: str
    group: str
    row: str
    over: str = ""
    least: float | None = None
    most: float | None = None


_STEP = "step, depth 3, float64: "
# The reference, whose time a run and step takes.
AUTOGRAD = f"{_STEP}autograd through nn.Linear, 1 run"
TARGETS = (
    Target("A step, depth 3, against `nn.Linear`, one run", "steps", f"{_STEP}dmfkit, 1 run", AUTOGRAD, 1.8),
    Target("the same, per run of a batch of 24", "steps", f"{_STEP}dmfkit, 24 runs", AUTOGRAD, 5.0),
    Target("A step, depth 3, against JAX, one run", "steps", f"{_STEP}dmfkit, 1 run", f"{_STEP}JAX, 1 run", 1.0),
    Target("the same, both in batches of 24", "steps", f"{_STEP}dmfkit, 24 runs", f"{_STEP}JAX, 24 runs", 1.0),
    *(
        Target(
            f"A step, d = 1000, {what}, against JAX",
            "steps",
            f"step, d = 1000, {what}: dmfkit",
            f"step, d = 1000, {what}: JAX",
            1.0,
        )
        for what in ("masked, full width", "masked, compressed", "fully observed, compressed")
    ),
    Target(
        "Share of the rate of batched products, depth 3, in percent",
        "peak",
        "share of the rate of numpy.matmul on all cores: descent, depth 3, 24 runs",
        least=85.0,
    ),
    Target(
        "Flow to the stop, against `nn.Linear` with GroupRMSprop",
        "stop",
        "to the stop, depth 3: dmfkit flow",
        "to the stop, depth 3: autograd through nn.Linear",
        60.0,
    ),
    Target("Figure 1, flow grid, in seconds", "figure1", "Figure 1, flow grid", most=45.0),
    Target("Figure 1, descent grid, in seconds", "figure1", "Figure 1, descent grid", most=1080.0),
    Target("Time of a sparse step, exponent in entries", "growth", "step, exponent in entries", most=1.1),
    *(
        Target(
            f"Peak memory of {what}, against entries and factors, d = 32,000",
            "growth",
            "entries and factors, d = 32000",
            f"peak memory, {what}, d = 32000",
            most=2.0,
        )
        for what in ("descent", "flow")
    ),
)


def reached(target: Target, groups: Mapping[str, Mapping[str, Any]]) -> float | None:
    """What was measured of a target; ``None`` if it was not."""
    rows = groups.get(target.group, {"rows": ()})["rows"]
    values = {row["name"]: row["value"] for row in rows}
    value, over = values.get(target.row), values.get(target.over) if target.over else 1.0
    if value is None or over is None:
        return None
    return over / value if target.over else value


# Titles of the groups that are known, and what their rows mean.
GROUPS = {
    "steps": (
        "One step of training",
        "A step is that of the released code's GroupRMSprop, loss tested; its time is divided by the number of runs in "
        "the batch. The reference is PyTorch as it is usually written, a stack of `nn.Linear` with automatic "
        "differentiation and that code's optimiser. JAX compiles a loop around `jax.grad`, and does not test the loss. "
        "All of them compute the same trajectory, and may use all cores. At the larger size it is fixed-step descent: "
        "full width, and the compressed factorization of Yaras et al. (2023).",
    ),
    "peak": (
        "How much of the time is matrix products",
        "The machine's rate is that of products of matrices of the size of the factors, best of several batches: by "
        "`numpy.matmul`, with a part of the batch on every core, and beside it by PyTorch and JAX. On a CPU the engine "
        "multiplies by OpenBLAS, as NumPy does. A step of gradient descent at depth $N$ is counted as the $3(N-1)$ "
        "products that its gradient needs: whatever else a step does lowers its share.",
    ),
    "stop": (
        "One run of Figure 1 to its stop",
        "From the same initial factors to a mean squared residual below $10^{-6}$, each once. Flow and GroupRMSprop "
        "minimise the mean of squares, as the reference does; fixed-step descent minimises half the sum.",
    ),
    "figure1": (
        "Figure 1, whole grids",
        "Every run of the two grids of Arora et al. (2019), Figure 1, trained anew. Some runs of descent diverge "
        "at the larger learning rate, or do not reach the stop within the steps that chapter 1 allows.",
    ),
    "workers": (
        "Workers side by side",
        "One sweep of gradient flows in one process, and on workers of one thread, whose start is timed by itself.",
    ),
    "compression": (
        "Compressed factorizations",
        "Steps, and whole runs of the gradient flow to a recovery error, at the same size as the larger one above. "
        "The narrow factorization has hidden layers of the compressed one's width, and no frames.",
    ),
    "size": ("Large matrices", "Completion by entries alone: growth with size, ways to compute, and other methods."),
    "growth": (
        "Large matrices: growth",
        "Time of a step of completion by entries alone, one quantity grown at a time, and peak memory beyond what "
        "Python and the libraries take: in each row with what the rows before it made, and what the allocator keeps. "
        "The runs of a batch are trained one after the other, each by all cores where its entries are many enough.",
    ),
    "products": (
        "Large matrices: products",
        "Ways to form the residuals at the observed entries, and gradients from them.",
    ),
    "recovery": (
        "Large matrices: recovery",
        "A matrix of low rank from few of its entries, by flows of factorizations, and by what one would take instead: "
        "alternating least squares of the package cmfrec, without biases, and soft-impute. Observations have no noise. "
        "Errors are squared, relative to the squared norm, on held-out entries: above 1 is worse than zero everywhere, "
        "where alternating least squares ends with a small ridge. Of soft-impute the estimate is shown that is best on "
        "the held-out entries, which flatters it. The peak memory counts all methods, and the libraries.",
    ),
    "all": ("All groups", "What the groups measure when nothing else is said, one after the other."),
}

# How the name of the row begins that has the rate of products in batches.
_RATE = "rate of numpy.matmul on all cores, 100 x 100, float64"


def stored(folder: Path) -> list[dict[str, Any]]:
    """Read the stored measurements, the latest of every device and group only.

    Raises
    ------
    InputError
        If a file is not what the benchmarks write.
    """
    latest: dict[tuple[str, str, str], dict[str, Any]] = {}
    for path in sorted(folder.glob("*.json")):
        try:
            one = json.loads(path.read_text(encoding="utf-8"))
            machine, _ = one["machine"], [(row["name"], row["value"], row["ratio"]) for row in one["rows"]]
            key = (machine["processor"], machine["device"], one["group"])
            if key not in latest or machine["date"] >= latest[key]["machine"]["date"]:
                latest[key] = one
        except (ValueError, KeyError, TypeError):
            raise InputError(
                f"{path} is not a table of speeds: write it with python -m benchmarks NAME --json {path.name}."
            ) from None
    return list(latest.values())


def speeds(folder: Path) -> str:
    """Return the page's tables as MyST: for every device its targets, then its groups in the order of `GROUPS`."""
    devices: dict[str, dict[str, dict[str, Any]]] = {}
    for one in stored(folder):
        machine = one["machine"]
        title = f"{machine['processor']}, {machine['device']}"
        devices.setdefault(title, {})[one["group"]] = one
    parts = []
    for title, groups in sorted(devices.items()):
        parts.append(f"## {_plain(title)}")
        machine = next(iter(groups.values()))["machine"]
        # The targets are for both of two cores.
        if machine["cores"] == machine["threads"] == 2 and machine["device"].startswith("CPU"):
            parts += [_targets(groups), *_limit(groups)]
        known = [name for name in GROUPS if name in groups]
        for name in [*known, *sorted(set(groups) - set(known))]:
            heading, meaning = GROUPS.get(name, (name.capitalize(), ""))
            parts += [
                f"### {heading}",
                *([meaning] if meaning else []),
                _made(groups[name]),
                _table(groups[name]["rows"]),
            ]
    return "\n\n".join(parts) if parts else "Nothing has been measured and stored so far."


def _made(one: Mapping[str, Any]) -> str:
    machine = one["machine"]
    versions = {**json.loads(machine["versions"]), "jax": machine.get("jax")}
    packages = ", ".join(f"{name} {version}" for name, version in versions.items() if version)
    cores = f"{machine['cores']} core{'s' if machine['cores'] != 1 else ''}"
    kernels = f"; {machine['kernels'].replace(', ', ' with kernels for ')}" if machine.get("kernels") else ""
    return f"Measured on {machine['date']}; {cores}; commit `{machine['commit']}`; {packages}{kernels}."


def _table(rows: Sequence[Mapping[str, Any]]) -> str:
    compared = any(row["against"] for row in rows)
    lines = ["| what | measured |" + (" beside it |" if compared else ""), "|:--|:--|" + (":--|" if compared else "")]
    for row in rows:
        value = "not reached" if row["value"] is None else _quantity(row["value"], row["unit"])
        beside = f" {_beside(row)} |" if compared else ""
        lines.append(f"| {_plain(row['name'])} | {_plain(value)} |{beside}")
    return _stacked(lines)


def _quantity(value: float, unit: str) -> str:
    """A value with its unit; short times in microseconds."""
    if (unit == "s" and 0 < value < 1e-3) or (unit == "ms" and 0 < value < 1e-1):
        value, unit = value * (1e6 if unit == "s" else 1e3), "us"
    return f"{_number(value, 4)} {unit}".strip()


def _number(value: float, digits: int) -> str:
    """A number with so many digits, thousands apart."""
    return f"{float(f'{value:.{digits}g}'):,.15g}"


def _beside(row: Mapping[str, Any]) -> str:
    """Ratio in words; what both names begin with is not said again."""
    if row["ratio"] is None:
        return ""
    prefix = row["name"].partition(": ")[0] + ": "
    return f"{_number(row['ratio'], 3)} times as much: {_plain(row['against'].removeprefix(prefix))}"


def _targets(groups: Mapping[str, Mapping[str, Any]]) -> str:
    lines = ["| target on two cores | wanted | measured |", "|:--|:--|:--|"]
    for target in TARGETS:
        wanted = f"at least {target.least:g}" if target.least is not None else f"at most {target.most:g}"
        value = reached(target, groups)
        found = "not measured"
        if value is not None:
            low, high = target.least, target.most
            met = (low is None or value >= low) and (high is None or value <= high)
            found = f"{_number(value, 3)}, {'met' if met else '**missed**'}"
        lines.append(f"| {target.text} | {wanted} | {found} |")
    return _stacked(lines)


def _limit(groups: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """How far any engine on the same matrix products could go; nothing where that was not measured."""
    values = {row["name"]: row["value"] for name in ("steps", "peak") for row in groups.get(name, {"rows": ()})["rows"]}
    rate = next((value for name, value in values.items() if name.startswith(_RATE)), None)
    reference = values.get(AUTOGRAD)
    if not rate or not reference:
        return []
    least = 6 * 2 * 100**3 / (1e9 * rate) * 1e6
    return [
        f"The six products of a step at depth 3 alone take {least:.3g} µs a run at the rate of `numpy.matmul` on all "
        f"cores. Such a step can be at most {reference / least:.3g} times faster than `nn.Linear` is on this "
        "machine, in batches too."
    ]


def _stacked(lines: Sequence[str]) -> str:
    """Table that becomes short entries on a narrow screen."""
    return "\n".join(["```{table}", ":class: dmfkit-stack", *lines, "```"])


def _plain(text: str) -> str:
    """Text in a cell of a table, shown as it is."""
    return escape(text, quote=False).replace("|", "\\|").replace("_", "\\_").replace("*", "\\*")
