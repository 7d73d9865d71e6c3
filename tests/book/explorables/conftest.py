"""Explorables of the built book, opened from disk with the network off and moved as a reader moves them."""

import base64
from dataclasses import dataclass, field

import pytest

# A reader's finger travels; a jump would not be a drag.
STRIDES = 8


@dataclass
class Shown:
    """One explorable of an open page."""

    page: object
    name: str
    problems: list = field(default_factory=list)

    @property
    def root(self):
        return self.page.locator(f"[data-explorable={self.name}]")

    @property
    def values(self):
        """The numbers behind the picture, as the explorable last gave them."""
        return self.root.evaluate("root => root.values")

    @property
    def text(self):
        return self.root.locator(".dmfkit-x-text").text_content()

    def slider(self, label):
        return self.root.get_by_role("slider", name=label)

    def choose(self, label, option, *, by="keyboard"):
        """Choose an option of a row of radio buttons, by its text."""
        group = self.root.get_by_role("group", name=label, exact=True)
        wanted = group.get_by_label(option, exact=True)
        if by == "keyboard":
            group.locator("input:checked").focus()
            for _ in range(group.locator("input").count()):
                if wanted.is_checked():
                    break
                self.page.keyboard.press("ArrowRight")
        elif by == "touch":
            wanted.tap()
        else:
            wanted.click()
        assert wanted.is_checked()

    def press(self, label, *, by="keyboard"):
        """Press a button."""
        button = self.root.get_by_role("button", name=label, exact=True)
        if by == "keyboard":
            button.focus()
            button.press("Enter")
        elif by == "touch":
            button.tap()
        else:
            button.click()

    def slide(self, label, index, *, by="keyboard"):
        """Move a slider to the value with this number, counted from 0; negative numbers count from the end."""
        slider = self.slider(label)
        last = int(slider.get_attribute("max"))
        index = index if index >= 0 else last + 1 + index
        assert 0 <= index <= last
        slider.scroll_into_view_if_needed()
        if by == "keyboard":
            self._press(slider, index, last)
        else:
            self._drag(slider, index / last, touch=by == "touch")
        return int(slider.input_value())

    def _press(self, slider, index, last):
        slider.focus()
        near_end = index > last / 2
        slider.press("End" if near_end else "Home")
        for _ in range(last - index if near_end else index):
            slider.press("ArrowLeft" if near_end else "ArrowRight")

    def _drag(self, slider, share, *, touch):
        box = slider.bounding_box()
        thumb = 16
        now, last = int(slider.input_value()), int(slider.get_attribute("max"))
        x0, x1 = (box["x"] + thumb / 2 + part * (box["width"] - thumb) for part in (now / last, share))
        y = box["y"] + box["height"] / 2
        path = [x0 + (x1 - x0) * step / STRIDES for step in range(STRIDES + 1)]
        if touch:
            session = self.page.context.new_cdp_session(self.page)
            kinds = ["touchStart", *["touchMove"] * STRIDES]
            for kind, x in zip(kinds, path, strict=True):
                session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": [{"x": x, "y": y}]})
            session.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
        else:
            self.page.mouse.move(path[0], y)
            self.page.mouse.down()
            for x in path[1:]:
                self.page.mouse.move(x, y)
            self.page.mouse.up()


# What Jupyter does with a widget's state: bytes become views, the script is run as a module from a Blob.
MOUNT = """async ([code, style, content]) => {
  const view = (text) => new DataView(Uint8Array.from(atob(text), (character) => character.charCodeAt(0)).buffer);
  for (const packed of Object.values(content.arrays)) packed.data = view(packed.data);
  document.head.append(Object.assign(document.createElement("style"), { textContent: style }));
  const module = await import(URL.createObjectURL(new Blob([code], { type: "text/javascript" })));
  module.default.render({ model: { get: () => content }, el: document.body });
}"""


@pytest.fixture
def mount(browser):
    """Return a function that shows an explorable alone on an empty page, without a book around it."""
    mounted = []

    def show(explorable, *, width=390):
        context = browser.new_context(viewport={"width": width, "height": 900}, has_touch=True, offline=True)
        page = context.new_page()
        arrays = {
            name: packed | {"data": base64.b64encode(packed["data"]).decode()}
            for name, packed in explorable.content["arrays"].items()
        }
        problems = []
        page.on("pageerror", lambda error: problems.append(f"error: {error}"))
        page.evaluate(MOUNT, [explorable._esm, explorable._css, explorable.content | {"arrays": arrays}])
        name = page.locator("[data-explorable]").get_attribute("data-explorable")
        mounted.append((context, problems))
        return Shown(page, name, problems)

    yield show
    for context, problems in mounted:
        context.close()
        assert problems == []


@pytest.fixture
def open_explorable(browser, layout):
    """Return a function that opens a chapter and gives one of its explorables.

    The page comes from the disk and the browser is offline: whatever it asks for elsewhere is a problem, and the test
    fails at its end if there was one.
    """
    opened = []

    def show(chapter, name, *, width=390, theme="light", **options):
        context = browser.new_context(
            viewport={"width": width, "height": 900}, color_scheme=theme, has_touch=True, offline=True, **options
        )
        page = context.new_page()
        explorable = Shown(page, name)
        opened.append((context, explorable))
        found = explorable.problems.append
        page.on("console", lambda m: found(f"console: {m.text}") if m.type == "error" else None)
        page.on("pageerror", lambda error: found(f"error: {error}"))
        page.on(
            "request", lambda r: None if r.url.startswith(("file:", "data:", "blob:")) else found(f"request to {r.url}")
        )
        page.goto((layout.html / "notebooks" / f"{chapter}.html").as_uri())
        page.wait_for_selector("html[data-explorables=ready]")
        return explorable

    yield show
    for context, explorable in opened:
        context.close()
        assert explorable.problems == []
