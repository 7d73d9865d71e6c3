"""The picture of the package's layers, drawn from the imports that the code really has, and the table beside it.

The order of the layers is the one that `make lint` checks; an arrow is an import. Imports that a path of other arrows
implies are left out of the picture: with them one would see nothing. The table has them all.
"""

from __future__ import annotations

import importlib
import inspect
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

import grimp

LIBRARY, TOOL = "dmfkit", "bookbuild"
Imports = Mapping[str, frozenset[str]]
Layers = Sequence[Sequence[str]]

# In units of the picture, of which a phone shows about one to a pixel. Lanes are for arrows around boxes.
WIDTH, MARGIN, ROW, BOX, GAP, LANE = 350, 12, 62, 32, 16, 14


def read_layers(settings: Path) -> list[list[str]]:
    """Return the packages of the library from the uppermost layer down, as the contract in pyproject.toml has them."""
    contracts = tomllib.loads(settings.read_text(encoding="utf-8"))["tool"]["importlinter"]["contracts"]
    layers = next(one["layers"] for one in contracts if one["id"] == "layers")
    return [[name.strip() for name in layer.split("|")] for layer in layers]


def read_imports() -> dict[str, frozenset[str]]:
    """Return which packages of the library, or modules beside them, each of them imports; the book's tool too."""
    graph = grimp.build_graph(LIBRARY, TOOL, cache_dir=None)
    found: dict[str, set[str]] = {}
    for module in graph.modules:
        package = _package(module)
        if package != LIBRARY:
            imported = {_package(name) for name in graph.find_modules_directly_imported_by(module)}
            found.setdefault(package, set()).update(imported - {package})
    return {package: frozenset(imported) for package, imported in sorted(found.items())}


def _package(module: str) -> str:
    """Return the package of the library that a module belongs to, or its distribution."""
    first, *others = module.split(".")
    return others[0] if first == LIBRARY and others else first


def direct(imports: Imports) -> set[tuple[str, str]]:
    """Return the imports that are not implied by a path of others: (who imports, what is imported)."""

    def reached(package: str) -> set[str]:
        return {package}.union(*map(reached, imports.get(package, ())))

    return {
        (package, name)
        for package, imported in imports.items()
        for name in imported
        if not any(name in reached(other) for other in imported - {name})
    }


@dataclass(frozen=True)
class Box:
    """Where a package stands in the picture: its row, and the middle and the half of its width."""

    row: int
    middle: float
    half: float

    @property
    def top(self) -> float:
        """Upper edge."""
        return self.row * ROW + GAP

    @property
    def bottom(self) -> float:
        """Lower edge."""
        return self.top + BOX

    def nearest(self, x: float) -> float:
        """Place on the upper or lower edge that is nearest to `x`, away from the corners."""
        return min(max(x, self.middle - self.half + 12), self.middle + self.half - 12)


def _boxes(rows: Layers, room: float) -> dict[str, Box]:
    """Place the packages of each row side by side, in the middle of the room."""
    boxes: dict[str, Box] = {}
    for row, names in enumerate(rows):
        width = min((room - (len(names) - 1) * GAP) / len(names), 150)
        first = MARGIN + (room - len(names) * width - (len(names) - 1) * GAP + width) / 2
        boxes |= {name: Box(row, first + place * (width + GAP), width / 2) for place, name in enumerate(names)}
    return boxes


def picture(layers: Layers, imports: Imports) -> str:
    """Return the layers with the arrows between them, as SVG in the colours of the page's theme.

    Parameters
    ----------
    layers
        Packages of the library, from the uppermost layer down.
    imports
        What each of them imports.
    """
    rows = [[TOOL], *layers]
    row_of = {name: row for row, names in enumerate(rows) for name in names}
    arrows = sorted(pair for pair in direct(imports) if TOOL not in pair)
    # What passes a row of boxes goes around it, each arrow in a lane of its own, the shorter ones within.
    around = [(one, other) for one, other in arrows if row_of[other] - row_of[one] > 1]
    around.sort(key=lambda arrow: row_of[arrow[1]] - row_of[arrow[0]])
    boxes = _boxes(rows, WIDTH - 2 * MARGIN - len(around) * LANE)
    lines = [_arrow((boxes[TOOL].middle, boxes[TOOL].bottom), (boxes[TOOL].middle, ROW))]
    for one, other in arrows:
        start, end = boxes[one], boxes[other]
        if (one, other) in around:
            lane = around.index((one, other))
            x = WIDTH - MARGIN - (len(around) - lane - 0.5) * LANE
            # Each at a height of its own, so that no two lines lie on one another.
            offset = lane * min(5, 15 / len(around))
            down, back = start.bottom + 6 + offset, end.top - 18 + offset
            right, target = start.nearest(WIDTH) - 8 * lane, end.nearest(WIDTH) - 8 * lane
            lines.append(
                _arrow((right, start.bottom), (right, down), (x, down), (x, back), (target, back), (target, end.top))
            )
        else:
            x, target = start.nearest(end.middle), end.nearest(start.middle)
            lines.append(_arrow((x, start.bottom), (target, end.top)))
    height = len(rows) * ROW
    said = f"The layers from the top: {'; '.join(' and '.join(names) for names in rows)}. "
    said += f"Arrows: {'; '.join(f'{one} to {other}' for one, other in [(TOOL, LIBRARY), *arrows])}."
    return "".join(
        [
            f'<svg class="dmfkit-layers" viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{escape(said)}">',
            '<defs><marker id="dmfkit-tip" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="7" markerHeight="7" '
            'orient="auto"><path d="M0 0 8 4 0 8z"/></marker></defs>',
            f'<rect class="dmfkit-library" x="2" y="{ROW}" width="{WIDTH - 4}" height="{height - ROW - 2}" rx="8"/>',
            f'<text x="{MARGIN}" y="{ROW + 22}">{LIBRARY}</text>',
            *lines,
            *(_box(name, box) for name, box in boxes.items()),
            "</svg>",
        ]
    )


def _arrow(*points: tuple[float, float]) -> str:
    path = " ".join(f"{x:g},{y:g}" for x, y in points)
    return f'<polyline points="{path}" marker-end="url(#dmfkit-tip)"/>'


def _box(name: str, box: Box) -> str:
    corner = f'x="{box.middle - box.half:g}" y="{box.top:g}" width="{2 * box.half:g}" height="{BOX}" rx="5"'
    text = f'<text x="{box.middle:g}" y="{box.top + BOX / 2 + 5:g}" text-anchor="middle">{name}</text>'
    return f"<rect {corner}/>{text}"


def table(layers: Layers, imports: Imports) -> str:
    """Return what each package of the library holds, by its own first sentence, and all that it imports."""
    lines = ["| package | holds | imports |", "|:--|:--|:--|"]
    for name in (name for names in layers for name in names):
        sentence = str(inspect.getdoc(importlib.import_module(f"{LIBRARY}.{name}"))).partition("\n\n")[0]
        imported = ", ".join(f"`{other}`" for other in sorted(imports[name])) or "nothing of the library"
        lines.append(f"| `{name}` | {' '.join(sentence.split())} | {imported} |")
    return "\n".join(["```{table}", ":class: dmfkit-stack", *lines, "```"])


def architecture(root: Path) -> str:
    """Return the picture and the table, as MyST, for the library that runs and the contract in a checkout."""
    layers, imports = read_layers(root / "pyproject.toml"), read_imports()
    figure = f'<figure class="dmfkit-architecture">{picture(layers, imports)}</figure>'
    return f"``````{{raw}} html\n{figure}\n``````\n\n{table(layers, imports)}"
