"""The page on the architecture: its picture shows the imports that the code has, and its recipe runs."""

import ast
import re
from pathlib import Path
from types import SimpleNamespace
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from documented_code import recipes

from bookbuild.architecture import architecture, direct, picture, read_imports, read_layers, table

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "book/architecture.md"
LAYERS = read_layers(ROOT / "pyproject.toml")


def imports_by_hand():
    """The same imports, read from the syntax of each file."""
    found = {}
    for path in sorted((ROOT / "dmfkit").rglob("*.py")):
        package = path.relative_to(ROOT / "dmfkit").parts[0].removesuffix(".py")
        if package == "__init__":
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = []
            if isinstance(node, ast.ImportFrom):
                names = [f"{node.module}.{alias.name}" for alias in node.names]
            elif isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            parts = [name.split(".") for name in names if name.startswith("dmfkit.")]
            found.setdefault(package, set()).update(part[1] for part in parts)
    return {package: names - {package} for package, names in found.items()}


def test_the_imports_are_those_of_the_files():
    found = read_imports()
    assert "dmfkit" in found.pop("bookbuild")
    assert found == imports_by_hand()


def test_every_package_has_its_place_and_all_that_is_imported_lies_below():
    imports = read_imports()
    row = {name: number for number, names in enumerate(LAYERS) for name in names}
    assert set(row) == set(imports) - {"bookbuild"}
    pairs = [(one, other) for one in row for other in imports[one]]
    assert len(pairs) > 30
    assert [(one, other) for one, other in pairs if row[other] <= row[one]] == []


def test_arrows_that_others_imply_are_left_out_and_nothing_else():
    imports = {"a": frozenset("bcd"), "b": frozenset("c"), "c": frozenset(), "d": frozenset("c")}
    assert direct(imports) == {("a", "b"), ("a", "d"), ("b", "c"), ("d", "c")}


def test_the_picture_has_a_box_for_each_package_and_its_arrows_begin_and_end_at_boxes():
    imports = read_imports()
    svg = ElementTree.fromstring(picture(LAYERS, imports))
    boxes = [{name: float(one.get(name)) for name in ("x", "y", "width", "height")} for one in svg.findall("rect")]
    names = [one.text for one in svg.findall("text")]
    assert names == ["dmfkit", "bookbuild", *(name for names in LAYERS for name in names)]
    library, *placed = boxes
    by_name = dict(zip(names[1:], placed, strict=True))
    drawn = set()
    for line in svg.findall("polyline"):
        points = [tuple(map(float, point.split(","))) for point in line.get("points").split()]
        (x, y), (end_x, end_y) = points[0], points[-1]
        start = [name for name, b in by_name.items() if y == b["y"] + b["height"] and b["x"] < x < b["x"] + b["width"]]
        end = [name for name, b in by_name.items() if end_y == b["y"] and b["x"] < end_x < b["x"] + b["width"]]
        drawn |= {(one, other) for one in start for other in end or (["dmfkit"] if end_y == library["y"] else [])}
        for corner in points[1:-1]:
            inside = [
                n
                for n, b in by_name.items()
                if b["x"] < corner[0] < b["x"] + b["width"] and b["y"] < corner[1] < b["y"] + b["height"]
            ]
            assert inside == []
    assert drawn == {pair for pair in direct(imports) if "bookbuild" not in pair} | {("bookbuild", "dmfkit")}
    for one, other in drawn:
        assert f"{one} to {other}" in svg.get("aria-label")


def test_the_table_has_all_imports():
    text = table(LAYERS, read_imports())
    for package, names in imports_by_hand().items():
        row = next(line for line in text.splitlines() if line.startswith(f"| `{package}` |"))
        assert set(re.findall(r"`(\w+)`", row.split(" | ")[2])) == names


def test_the_same_code_gives_the_same_bytes():
    assert architecture(ROOT) == architecture(ROOT)


@pytest.mark.parametrize("page", ["architecture", "contributing"])
def test_the_files_that_the_page_names_exist(page):
    text = re.sub(r"```.*?```", "", (ROOT / f"book/{page}.md").read_text(encoding="utf-8"), flags=re.DOTALL)
    named = set(re.findall(r"`((?:dmfkit|bookbuild|benchmarks|book|notebooks|tests|binder)/[\w./]*)`", text))
    assert len(named) > 5
    # NAME stands for a name of the reader's own.
    named = {name for name in named if "NAME" not in name and "NN_" not in name}
    assert [name for name in sorted(named) if not (ROOT / name).exists()] == []


def test_the_recipe_runs_as_it_stands():
    _, code = recipes(PAGE)["extend"]
    space = {"__name__": "recipe"}
    exec(code, space)
    runs = space["runs"]
    assert dict(runs["asymmetry"].sizes) == {"depth": 2, "width": 2, "time": 3}
    # A run that has ended is recorded no more.
    assert np.isfinite(runs["asymmetry"].sel(time=[0.0, 1.0])).all()
    # A symmetric part of norm 4 and an antisymmetric one of norm 3.
    matrix = torch.tensor([[[4.0, 3.0 / 2**0.5], [-3.0 / 2**0.5, 0.0]]])
    found = space["Asymmetry"]()(SimpleNamespace(end_to_end=matrix, norm=torch.tensor([5.0])))
    assert found["asymmetry"].item() == pytest.approx(0.6)
    observed = [int(space["BandTask"](d=12, rank=1, width=width).problem().mask.sum()) for width in (1, 4)]
    assert observed == [sum(abs(i - j) <= width for i in range(12) for j in range(12)) for width in (1, 4)]
