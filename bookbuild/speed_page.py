"""The tables of speeds, from the files that ``python -m benchmarks NAME --json FILE`` wrote.

What the groups of measurements mean, and what they are meant to reach, stands beside the benchmarks, in
``groups.yml`` and ``targets.yml``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import yaml

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


@dataclass(frozen=True)
class Group:
    """A group of measurements: the title of its table, and what the rows mean, as MyST."""

    title: str
    meaning: str


def read_groups(benchmarks: Path) -> dict[str, Group]:
    """Return the groups that are known, by name, in the page's order."""
    text = (benchmarks / "groups.yml").read_text(encoding="utf-8")
    return {name: Group(**one) for name, one in yaml.safe_load(text).items()}


def read_targets(benchmarks: Path) -> list[Target]:
    """Return the targets in the page's order."""
    return [Target(**one) for one in yaml.safe_load((benchmarks / "targets.yml").read_text(encoding="utf-8"))]


def reached(target: Target, groups: Mapping[str, Mapping[str, Any]]) -> float | None:
    """What was measured of a target; ``None`` if it was not."""
    rows = groups.get(target.group, {"rows": ()})["rows"]
    values = {row["name"]: row["value"] for row in rows}
    value, over = values.get(target.row), values.get(target.over) if target.over else 1.0
    if value is None or over is None:
        return None
    result: float | None = over / value if target.over else value
    return result


# The reference, whose time a run and step takes.
_AUTOGRAD = "step, depth 3, float64: autograd through nn.Linear, 1 run"
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


def speeds(folder: Path, known: Mapping[str, Group], targets: Sequence[Target]) -> str:
    """Return the page's tables as MyST: for every device its targets, then its groups, the known ones in their order.

    Parameters
    ----------
    folder
        Where the measurements are stored.
    known, targets
        See `read_groups` and `read_targets`.
    """
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
            parts += [_targets(groups, targets), *_limit(groups)]
        order = [name for name in known if name in groups]
        for name in [*order, *sorted(set(groups) - set(order))]:
            group = known.get(name, Group(name.capitalize(), ""))
            meaning = [group.meaning] if group.meaning else []
            parts += [f"### {group.title}", *meaning, _made(groups[name]), _table(groups[name]["rows"])]
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


def _targets(groups: Mapping[str, Mapping[str, Any]], targets: Sequence[Target]) -> str:
    lines = ["| target on two cores | wanted | measured |", "|:--|:--|:--|"]
    for target in targets:
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
    reference = values.get(_AUTOGRAD)
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
