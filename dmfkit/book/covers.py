"""The pictures that chapters lend to the first page, and the first page's text around them."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

import nbformat
from PIL import Image

from dmfkit.book.partial import title_of
from dmfkit.errors import InputError

# A card is at most 20 rem wide; twice its pixels are enough for a sharp screen.
CARD_SIZE = (640, 480)


@dataclass(frozen=True)
class Cover:
    """The picture of a cell, the text that stands for it, and one sentence about the chapter (empty if it has none)."""

    png: bytes
    alt: str
    sentence: str


def find_cover(notebook: Path, tag: str) -> Cover | None:
    """Return the picture that the cell with a tag shows in an executed chapter, or None if no cell has the tag.

    Parameters
    ----------
    notebook
        An executed chapter.
    tag
        "cover" for the picture of the chapter's card, "frontispiece" for the large picture of the first page.

    Raises
    ------
    InputError
        If the cell shows no picture, lacks its alt text, or is not the only one with the tag.
    """
    tagged = [cell for cell in nbformat.read(notebook, as_version=4).cells if tag in cell.metadata.get("tags", [])]
    if not tagged:
        return None
    alt = tagged[0].metadata.get("mystnb", {}).get("image", {}).get("alt", "")
    pictures = [output.data["image/png"] for output in tagged[0].outputs if "image/png" in output.get("data", {})]
    if not alt or not pictures or len(tagged) > 1:
        raise InputError(
            f"The cell {tagged[0].id} of {notebook.stem} is tagged {tag}: it must be the only one, show a PNG picture, "
            "and its metadata must hold mystnb.image.alt."
        )
    return Cover(base64.b64decode(pictures[0]), " ".join(alt.split()), tagged[0].metadata.get("card", ""))


def thumbnail(png: bytes) -> tuple[bytes, int, int]:
    """Return a picture shrunk to a card, as WebP, with its width and height."""
    picture = Image.open(io.BytesIO(png)).convert("RGB")
    picture.thumbnail(CARD_SIZE, Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    picture.save(buffer, format="WEBP", quality=80, method=6)
    return buffer.getvalue(), picture.width, picture.height


def write_frontispiece(notebooks: Sequence[Path], figures: Path) -> str:
    """Write the first page's large picture into a folder and return its text; nothing where no chapter has one."""
    found = [(path, cover) for path in notebooks if (cover := find_cover(path, "frontispiece")) is not None]
    if not found:
        return ""
    path, cover = found[0]
    figures.mkdir(parents=True, exist_ok=True)
    (figures / "frontispiece.png").write_bytes(cover.png)
    return (
        f"```{{figure}} figures/frontispiece.png\n:alt: {cover.alt}\n:figclass: dmfkit-frontispiece\n"
        f":target: ../notebooks/{path.stem}.html\n\n{cover.sentence}\n```"
    )


def write_cards(notebooks: Sequence[Path], static: Path) -> str:
    """Write the small pictures of the chapters into a folder of static files and return the grid of their cards."""
    cards = []
    folder = static / "cards"
    folder.mkdir(parents=True, exist_ok=True)
    for path in notebooks:
        cover, image = find_cover(path, "cover"), ""
        if cover is not None:
            data, width, height = thumbnail(cover.png)
            (folder / f"{path.stem}.webp").write_bytes(data)
            image = (
                f'<img src="../_static/cards/{path.stem}.webp" alt="{escape(cover.alt)}" '
                f'width="{width}" height="{height}" loading="lazy" decoding="async">'
            )
        sentence = f"<p>{escape(cover.sentence)}</p>" if cover is not None else ""
        number = path.stem.split("_")[0].lstrip("0")
        link = f'<a href="../notebooks/{path.stem}.html">{escape(title_of(path))}</a>'
        cards.append(f'<li>{image}<p class="dmfkit-card-title">{number}. {link}</p>{sentence}</li>')
    return '<ul class="dmfkit-cards">\n' + "\n".join(cards) + "\n</ul>"
