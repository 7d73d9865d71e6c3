"""The pictures that chapters lend to the first page, and the first page's text around them."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
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


def thumbnail(png: bytes) -> tuple[bytes, tuple[int, int]]:
    """Return a picture shrunk to a card, as WebP, and its width and height."""
    picture = Image.open(io.BytesIO(png)).convert("RGB")
    picture.thumbnail(CARD_SIZE, Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    picture.save(buffer, format="WEBP", quality=80, method=6)
    return buffer.getvalue(), picture.size


def write_frontispiece(notebooks: Sequence[Path], pictures: Path) -> str:
    """Write the first page's large picture into a folder and return its markup; nothing where no chapter has one."""
    for path in notebooks:
        cover = find_cover(path, "frontispiece")
        if cover is not None:
            (pictures / "frontispiece.png").write_bytes(cover.png)
            image = _image("frontispiece.png", cover.alt, Image.open(io.BytesIO(cover.png)).size)
            number, link = _number(path), _link(path)
            caption = f"<figcaption>{escape(cover.sentence)} Chapter {number}: {link}.</figcaption>"
            return f'<figure class="dmfkit-frontispiece">{image}{caption}</figure>'
    return ""


def write_cards(parts: Mapping[str, Sequence[Path]], pictures: Path) -> str:
    """Write the small pictures of the chapters into a folder and return a grid of cards for each part of the book."""
    texts = []
    for caption, notebooks in parts.items():
        cards = []
        for path in notebooks:
            cover, image, sentence = find_cover(path, "cover"), "", ""
            if cover is not None:
                data, size = thumbnail(cover.png)
                (pictures / f"{path.stem}.webp").write_bytes(data)
                image = _image(f"{path.stem}.webp", cover.alt, size, 'loading="lazy" decoding="async"')
                sentence = f"<p>{escape(cover.sentence)}</p>"
            cards.append(f'<li>{image}<p class="dmfkit-card-title">{_number(path)}. {_link(path)}</p>{sentence}</li>')
        if cards:
            texts.append(f"### {caption}\n\n" + '<ul class="dmfkit-cards">\n' + "\n".join(cards) + "\n</ul>")
    return "\n\n".join(texts)


def _number(notebook: Path) -> str:
    return notebook.stem.split("_")[0].lstrip("0")


def _link(notebook: Path) -> str:
    return f'<a href="../notebooks/{notebook.stem}.html">{escape(title_of(notebook))}</a>'


def _image(name: str, alt: str, size: tuple[int, int], more: str = "") -> str:
    width, height = size
    return f'<img src="../_static/pictures/{name}" alt="{escape(alt)}" width="{width}" height="{height}" {more}>'
