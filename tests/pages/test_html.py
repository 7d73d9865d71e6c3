"""The built pages, read as files: links, alt texts, no other host, the scoreboard."""

import json
import re
from collections import Counter
from dataclasses import dataclass, field
from html.parser import HTMLParser
from urllib.parse import unquote, urlsplit

import nbformat
import pytest

import dmfkit
from dmfkit.chapters.claims import ledger

pytestmark = pytest.mark.book

# What a browser fetches by itself, in contrast to a link that a reader may follow.
FETCHED = {
    "script": ("src",),
    "img": ("src", "srcset"),
    "iframe": ("src",),
    "source": ("src", "srcset"),
    "video": ("src", "poster"),
    "audio": ("src",),
    "embed": ("src",),
    "object": ("data",),
    "link": ("href",),
}
# In bytes. A page is its text and its pictures; scripts, styles and fonts are the same for all of them and kept.
HEAVIEST_PICTURE, HEAVIEST_CARD, HEAVIEST_PAGE = 300_000, 30_000, 1_800_000
# These name a page and fetch nothing.
LINK_RELATIONS = {"canonical", "index", "search", "next", "prev", "author", "copyright"}


@dataclass
class Page(HTMLParser):
    """The parts of a page that the tests look at."""

    ids: list = field(default_factory=list)
    links: list = field(default_factory=list)
    fetched: list = field(default_factory=list)
    images: list = field(default_factory=list)
    rows: list = field(default_factory=list)

    def __post_init__(self):
        super().__init__()

    def handle_starttag(self, tag, attributes):
        values = {name: value or "" for name, value in attributes}
        if "id" in values:
            self.ids.append(values["id"])
        if tag == "a" and "href" in values:
            self.links.append(values["href"])
        if tag == "img":
            self.images.append((values.get("src", ""), values.get("alt")))
        if tag == "tr" and "id" in values:
            self.rows.append(values["id"])
        if tag == "link" and values.get("rel") in LINK_RELATIONS:
            return
        self.fetched += [values[name] for name in FETCHED.get(tag, ()) if name in values]


@pytest.fixture(scope="module")
def parsed(pages):
    result = {}
    for path in pages:
        page = Page()
        page.feed(path.read_text(encoding="utf-8"))
        result[path] = page
    return result


def test_the_first_page_exists_and_every_listed_chapter(layout):
    index = (layout.html / "index.html").read_text(encoding="utf-8")
    assert (layout.html / re.search(r'url=([^"]+)"', index)[1]).exists()
    # Without one, browsers ask the site for /favicon.ico, and report that it is not there.
    assert (layout.html / re.search(r'rel="icon" href="([^"]+)"', index)[1]).exists()
    chapters = {path.stem for path in layout.notebooks.glob("*.ipynb")}
    assert {path.stem for path in (layout.html / "notebooks").glob("*.html")} == chapters


def test_every_internal_link_and_anchor_resolves(parsed):
    broken = []
    checked = 0
    for path, page in parsed.items():
        for href in page.links + page.fetched:
            parts = urlsplit(href)
            if parts.scheme or parts.netloc:
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            checked += 1
            known = target.exists()
            if known and parts.fragment and target.suffix == ".html":
                known = target in parsed and unquote(parts.fragment) in parsed[target].ids
            if not known:
                broken.append((path.name, href))
    assert broken == []
    assert checked > 100


def test_no_id_occurs_twice_on_a_page(parsed):
    twice = {path.name: [name for name, n in Counter(page.ids).items() if n > 1] for path, page in parsed.items()}
    assert {name: ids for name, ids in twice.items() if ids} == {}


def pictures(parsed):
    """Every picture of the pages but the logo, which the theme puts on each twice: page, address, alternative text."""
    found = [(path.name, src, alt) for path, page in parsed.items() for src, alt in page.images]
    return [(name, src, alt) for name, src, alt in found if not src.endswith("logo.svg")]


def test_every_picture_has_an_alt_text_of_its_own(parsed):
    found = pictures(parsed)
    assert len(found) > 50
    bad = [(name, src, alt) for name, src, alt in found if not alt or alt == src or alt in src or "_images" in alt]
    assert bad == []
    # Long enough to say what is to be seen.
    assert [(name, alt) for name, _, alt in found if len(alt.split()) < 8] == []
    repeated = Counter((name, alt) for name, _, alt in found)
    assert [place for place, times in repeated.items() if times > 1] == []


def test_a_caption_is_not_the_alt_text_once_more(layout):
    for path in layout.executed.glob("*.ipynb"):
        for cell in nbformat.read(path, as_version=4).cells:
            shown = cell.metadata.get("mystnb", {})
            caption, alt = shown.get("figure", {}).get("caption", ""), shown.get("image", {}).get("alt", "")
            assert not alt or alt.strip() != caption.strip(), (path.stem, cell.id)


def test_pictures_and_pages_are_light(layout, parsed):
    files = [path for path in layout.html.rglob("*") if path.suffix in (".png", ".webp", ".svg", ".jpg")]
    # What the theme brings along lies elsewhere in the folder of static files.
    ours = [path for path in files if path.parent.name in ("_images", "pictures")]
    assert len(ours) > 50
    assert {path.name: size for path in ours if (size := path.stat().st_size) > HEAVIEST_PICTURE} == {}
    cards = list((layout.html / "_static" / "pictures").glob("*.webp"))
    assert len(cards) == len(list(layout.notebooks.glob("*.ipynb")))
    assert {path.name: size for path in cards if (size := path.stat().st_size) > HEAVIEST_CARD} == {}
    weights = {}
    for path, page in parsed.items():
        fetched = {(path.parent / unquote(urlsplit(address).path)).resolve() for address in page.fetched}
        own = [target for target in fetched if target.suffix in (".png", ".webp") and target.is_file()]
        weights[path.name] = path.stat().st_size + sum(target.stat().st_size for target in own)
    assert {name: size for name, size in weights.items() if size > HEAVIEST_PAGE} == {}


def test_pages_and_styles_fetch_nothing_from_other_hosts(layout, parsed):
    fetched = [(path.name, address) for path, page in parsed.items() for address in page.fetched]
    assert [(name, address) for name, address in fetched if re.match(r"(\w+:)?//", address)] == []
    styles = [*layout.html.rglob("*.css"), *parsed]
    pattern = re.compile(r"(?:url\(\s*[\"']?|@import\s+[\"'])((?:https?:)?//[^\"')\s]+)")
    found = {path.name: pattern.findall(path.read_text(encoding="utf-8")) for path in styles}
    assert {name: addresses for name, addresses in found.items() if addresses} == {}


def test_every_public_name_in_the_code_of_a_chapter_leads_to_its_entry(layout, parsed):
    name = re.compile(
        r'(<a class="dmfkit-entry"[^>]*>)?<span class="n">dm</span><span class="o">.</span>(?:<[^>]+>)(\w+)'
    )
    linked = Counter()
    for chapter in layout.notebooks.glob("*.ipynb"):
        page = layout.html / "notebooks" / f"{chapter.stem}.html"
        for link, used in name.findall(page.read_text(encoding="utf-8")):
            if used in dmfkit.__all__ and callable(getattr(dmfkit, used)):
                assert link, (chapter.stem, used)
                linked[used] += 1
    assert len(linked) > 50
    entries = {path.name: page for path, page in parsed.items() if path.name.startswith("api")}
    for used in linked:
        assert sum(f"dmfkit.{used}" in page.ids for page in entries.values()) == 1, used
    # Beside every entry stands the way to its source.
    assert all(any("_modules/" in href for href in page.links) for page in entries.values())


def test_the_scoreboard_has_every_claim_once(layout, parsed):
    rows = parsed[layout.html / "book" / "scoreboard.html"].rows
    assert Counter(rows) == Counter(list(ledger()))


def test_examined_claims_are_linked_to_their_cell(layout, parsed):
    claims = json.loads((layout.output / "claims.json").read_text(encoding="utf-8"))
    assert set(claims) <= set(ledger())
    links = parsed[layout.html / "book" / "scoreboard.html"].links
    for identifier, found in claims.items():
        assert f"../notebooks/{found['notebook']}.html#claim-{identifier}" in links
        cells = nbformat.read(layout.executed_notebook(found["notebook"]), as_version=4).cells
        assert found["cell"] in {cell.id for cell in cells}


def test_the_quick_preset_is_marked_where_it_changed_a_chapter(layout):
    for path in layout.executed.glob("*.ipynb"):
        tags = [tag for cell in nbformat.read(path, as_version=4).cells for tag in cell.metadata.get("tags", [])]
        page = (layout.html / "notebooks" / f"{path.stem}.html").read_text(encoding="utf-8")
        assert ("This build ran the chapter with other parameters" in page) == ("injected-parameters" in tags)
